# The verbs of a control script: start, stop, kill9, pause, resume, restart, alive, for all its processes or with a
# number behind for one of them. What it is sourced by gives `dir`, `log`, `ports` (one a process), a function run_N
# that becomes process N, and `ready N…`, which says whether more than an open port is there.

if [ $# -gt 1 ]; then chosen=("${@:2}"); else chosen=("${!ports[@]}"); fi

pid_file() { if [ ${#ports[@]} -eq 1 ]; then echo "$dir/pid"; else echo "$dir/pid-$1"; fi; }
pid() { cat "$(pid_file "$1")" 2>/dev/null; }
# A process that ended may still wait to be reaped. One whose first thread ended looks the same while its others go on, with
# its ports and locks: a thread that waits for a disk is killed only after that.
alive() {
  local pid tasks; pid=$(pid "$1") && kill -0 "$pid" 2>/dev/null || return 1
  grep -qs ') Z ' "/proc/$pid/stat" || return 0
  tasks=("/proc/$pid/task"/*) && [ ${#tasks[@]} -gt 1 ]
}
gone() { for _ in $(seq 600); do alive "$1" || return 0; sleep 0.05; done; return 1; }
accepts() { (exec 3<>"/dev/tcp/127.0.0.1/${ports[$1]}") 2>/dev/null; }
living() { local n; for n in "${!ports[@]}"; do alive "$n" && echo "$n"; done; }

# One log for all; where they are several, each line begins with the number of its process.
launch() { # n
  if [ ${#ports[@]} -eq 1 ]; then
    ("run_$1") >>"$dir/$log" 2>&1 </dev/null &
  else
    ("run_$1") > >(exec setsid sed -u "s/^/$1| /" >>"$dir/$log" 2>&1) 2>&1 </dev/null &
  fi
  echo $! >"$(pid_file "$1")"
}

start() {
  local n tries=1200
  for n in "${chosen[@]}"; do alive "$n" || launch "$n"; done
  for n in "${chosen[@]}"; do
    until accepts "$n"; do
      alive "$n" && [ $((tries -= 1)) -gt 0 ] || return 1
      sleep 0.05
    done
  done
  # shellcheck disable=SC2046
  ready $(living) || return 1
  # The port may have been another process's.
  for n in "${chosen[@]}"; do alive "$n" || return 1; done
}

send() { # signal
  local n
  for n in "${chosen[@]}"; do if alive "$n"; then kill "-$1" "$(pid "$n")"; fi; done
}

wait_gone() { local n; for n in "${chosen[@]}"; do gone "$n" || return 1; done; }

case "${1:-}" in
  start) start ;;
  stop) send CONT; send TERM; wait_gone ;;
  kill9) send KILL; wait_gone ;;
  pause) send STOP ;;
  resume) send CONT ;;
  restart) "$0" stop "${@:2}" && "$0" start "${@:2}" ;;
  alive) for n in "${chosen[@]}"; do alive "$n" || exit 1; done ;;
  *) echo "start, stop, kill9, pause, resume, restart or alive" >&2; exit 2 ;;
esac
