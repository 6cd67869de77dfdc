#!/usr/bin/env bash
# Starts and stops a metaq broker in the background, with its logs in logs/ beside conf/.
#
#   bin/metaServer.sh start | stop | restart | status
#
# Exit codes as LSB init scripts: status is 0 while it runs, 3 when it is stopped.
# METAQ_BIN names the program, METAQ_CONF the configuration, METAQ_OPTS more arguments.
set -u
home=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
conf=${METAQ_CONF:-$home/conf/server.ini}
logs=$home/logs
pid_file=$logs/metaq.pid
out=$logs/metaq.log

program() {
  local candidate
  for candidate in "${METAQ_BIN:-}" "$home/bin/metaq" "$home/target/release/metaq"; do
    [ -n "$candidate" ] && [ -x "$candidate" ] && { echo "$candidate"; return; }
  done
  echo "metaq is not built: cargo build --release, or set METAQ_BIN" >&2
  exit 5
}

running() { [ -f "$pid_file" ] && kill -0 "$(cat "$pid_file")" 2>/dev/null; }

start() {
  if running; then
    echo "metaq runs already, process $(cat "$pid_file")"
    return 0
  fi
  local metaq
  metaq=$(program) || exit $?
  mkdir -p "$logs"
  local from=1
  [ -f "$out" ] && from=$(($(wc -l <"$out") + 1))
  # shellcheck disable=SC2086 # METAQ_OPTS are several words
  (cd "$home" && exec nohup "$metaq" start -c "$conf" ${METAQ_OPTS:-} >>"$out" 2>&1 </dev/null) &
  echo $! >"$pid_file"
  for _ in $(seq 600); do
    if tail -n "+$from" "$out" 2>/dev/null | grep -m1 '^metaq .* ready:'; then
      return 0
    fi
    running || break
    sleep 0.1
  done
  echo "metaq did not start; $out ends with:" >&2
  tail -n 5 "$out" >&2
  rm -f "$pid_file"
  return 1
}

stop() {
  if ! running; then
    echo "metaq is stopped"
    rm -f "$pid_file"
    return 0
  fi
  local pid
  pid=$(cat "$pid_file")
  kill -TERM "$pid"
  for _ in $(seq 600); do
    kill -0 "$pid" 2>/dev/null || { rm -f "$pid_file"; echo "metaq stopped"; return 0; }
    sleep 0.1
  done
  echo "metaq, process $pid, still drains after 60 s" >&2
  return 1
}

case "${1:-}" in
  start) start ;;
  stop) stop ;;
  restart) stop && start ;;
  status)
    if running; then echo "metaq runs, process $(cat "$pid_file")"; else echo "metaq is stopped"; exit 3; fi ;;
  *) echo "usage: $0 start | stop | restart | status" >&2; exit 2 ;;
esac
