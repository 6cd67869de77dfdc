# When the processes of a control script are ready, beyond an open port. Each gets the numbers of those that run.

# Every broker that runs has registered and heard of every other one.
brokers_know_each_other() {
  local running=()
  for n in "$@"; do running+=("${ports[$n]}"); done
  # As the admin, where they take nobody who is not known.
  [ ! -f "$dir/security/suite.properties" ] || running=(--properties "$dir/security/client.properties" "${running[@]}")
  python3 "$lib/members.py" "${running[@]}"
}

# Every server answers, once there are enough for a majority.
zookeeper_serves() {
  [ $(($# * 2)) -gt ${#ports[@]} ] || return 0
  for n in "$@"; do
    for _ in $(seq 1200); do
      zookeeper_says "${ports[$n]}" srvr | grep -q '^Mode:' && continue 2
      sleep 0.05
    done
    return 1
  done
}

zookeeper_says() { # port word
  # One that is only just there may take the word and never answer.
  (exec 3<>"/dev/tcp/127.0.0.1/$1" && printf '%s' "$2" >&3 && timeout 2 cat <&3) 2>/dev/null
}
