# ZooKeeper for suites: one server, or an ensemble, on free ports of this machine alone. Writes DIR/env with ZOOKEEPER
# (host:port of all servers) and ZOOKEEPER_CTL, and DIR/ctl with the verbs of lib/ctl.sh. Needs lib/broker.sh.

zookeeper_class_path() { echo "$here_work"/jars/zookeeper/*.jar | tr ' ' ':'; }

zookeeper_up() { # dir [servers]
  zookeeper_ctl "$@" && "$1/ctl" start
}

zookeeper_ctl() { # dir [servers]
  local dir=$1 servers=${2:-1} ports n peer address="" commands=()
  mkdir -p "$dir"
  read -r -a ports < <(free_ports $((servers * 3)))
  for n in $(seq 0 $((servers - 1))); do
    mkdir -p "$dir/$n"
    {
      printf '%s\n' tickTime=500 initLimit=40 syncLimit=20 maxClientCnxns=0 admin.enableServer=false '4lw.commands.whitelist=*'
      printf '%s\n' "dataDir=$dir/$n" "clientPort=${ports[$n]}" clientPortAddress=127.0.0.1
      if [ "$servers" -gt 1 ]; then
        for peer in $(seq 0 $((servers - 1))); do
          echo "server.$peer=127.0.0.1:${ports[$((servers + peer))]}:${ports[$((2 * servers + peer))]}"
        done
      fi
    } >"$dir/$n/zoo.cfg"
    echo "$n" >"$dir/$n/myid"
    commands+=("${ports[$n]}" "java -Xmx256m -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -cp '$(zookeeper_class_path)' org.apache.zookeeper.server.quorum.QuorumPeerMain '$dir/$n/zoo.cfg'")
    address+=",127.0.0.1:${ports[$n]}"
  done
  echo "export ZOOKEEPER=${address#,} ZOOKEEPER_CTL=$dir/ctl" >"$dir/env"
  write_ctl "$dir" server.log zookeeper_serves "${commands[@]}"
}

# The same servers behind a way that can be cut or made slow: what the file DIR/faults says (lib/proxy.py).
zookeeper_proxied() { # dir zookeeper-dir
  local dir=$1 n=0 address="" servers ports commands=() ZOOKEEPER ZOOKEEPER_CTL
  mkdir -p "$dir"
  . "$2/env"
  IFS=, read -r -a servers <<<"$ZOOKEEPER"
  read -r -a ports < <(free_ports "${#servers[@]}")
  for server in "${servers[@]}"; do
    commands+=("${ports[$n]}" "python3 '$here/lib/proxy.py' ${ports[$n]} $server '$dir/faults'")
    address+=",127.0.0.1:${ports[$n]}"
    n=$((n + 1))
  done
  echo "export ZOOKEEPER=${address#,} ZOOKEEPER_CTL=$ZOOKEEPER_CTL" >"$dir/env"
  write_ctl "$dir" proxy.log true "${commands[@]}" && "$dir/ctl" start
}
