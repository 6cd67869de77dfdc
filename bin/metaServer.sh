#!/usr/bin/env bash
# Starts, stops and asks a metaq broker, in MetaQ's words: a thin layer over the subcommands of metaq.
#
# Exit codes as LSB init scripts: status is 0 while it runs, 3 when it is stopped, 1 when it died; 2 for wrong arguments,
# 4 for slave-status without an answer, 5 without a program, 6 with a wrong configuration, 7 when it should run and does not.
# METAQ_BIN names the program, METAQ_CONF the configuration, METAQ_OPTS more arguments (--set KEY=VALUE).
# METAQ_LOGS is where logs and the pid file are, logs/ beside conf/ by default.
# METAQ_BROKER and METAQ_DASHBOARD are where a running broker is asked; by default where its configuration says that it is.
set -u
home=$(cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/.." && pwd)
conf=${METAQ_CONF:-$home/conf/server.ini}
logs=${METAQ_LOGS:-$home/logs}

usage() {
  cat >&2 <<END
usage: $0 VERB
  start [local|slave|samsa|gregor]   start it and wait until it is ready
  stop | restart | status | reload
  slave-status                       what each broker keeps, and whether it is in sync
  stats [ITEM|TOPIC]                 figures of the broker
  query -topic T [-group G] [-partition P]
  open-partitions   -topic T -start A -end B
  close-partitions  -topic T -start A -end B     no put; get stays allowed
  delete-partitions -topic T -start A -end B     empties closed partitions
  move-partitions   -topic T -start A -end B -to DIRECTORY
END
  exit 2
}

for candidate in "${METAQ_BIN:-}" "$home/bin/metaq" "$home/target/release/metaq"; do
  [ -n "$candidate" ] && [ -x "$candidate" ] && { metaq=$(readlink -f "$candidate"); break; }
done
[ -n "${metaq:-}" ] || { echo "metaq is not built: cargo build --release, or set METAQ_BIN" >&2; exit 5; }

# MetaQ's options have one dash.
options=()
words() {
  local word
  for word in "$@"; do
    case $word in
      -topic | -start | -end | -group | -partition | -to | -home) options+=("-$word") ;;
      *) options+=("$word") ;;
    esac
  done
}

verb=${1:-}
[ $# -gt 0 ] && shift
words "$@"
pid_file=(--pid-file "$logs/metaq.pid")
# shellcheck disable=SC2206 # METAQ_OPTS are several words
start=("${pid_file[@]}" --log-file "$logs/metaq.log" --config "$conf" ${METAQ_OPTS:-})
# Relative data directories are beside conf/.
cd "$home" || exit 1

# Of this broker, and of no other one on the machine.
address="" asked=""
case $verb in
  stats) asked=${METAQ_DASHBOARD:-} ;;
  slave-status | query | *-partitions) asked=${METAQ_BROKER:-} ;;
esac
case $verb in
  slave-status | stats | query | *-partitions)
    # shellcheck disable=SC2086 # METAQ_OPTS are several words
    [ -n "$asked" ] || address=$("$metaq" server address --config "$conf" ${METAQ_OPTS:-}) || exit 6
    broker=(--bootstrap "${METAQ_BROKER:-${address% *}}")
    dashboard=(--dashboard "${METAQ_DASHBOARD:-${address#* }}") ;;
esac

case $verb in
  start | restart) exec "$metaq" server "$verb" "${options[@]}" "${start[@]}" ;;
  stop | status) exec "$metaq" server "$verb" "${pid_file[@]}" "${options[@]}" ;;
  slave-status) exec "$metaq" server slave-status "${broker[@]}" "${options[@]}" ;;
  # shellcheck disable=SC2086 # METAQ_OPTS are several words
  reload) exec "$metaq" config reload --config "$conf" ${METAQ_OPTS:-} "${options[@]}" ;;
  stats) exec "$metaq" stats "${dashboard[@]}" "${options[@]}" ;;
  query) exec "$metaq" query "${broker[@]}" "${options[@]}" ;;
  open-partitions | close-partitions | delete-partitions | move-partitions)
    exec "$metaq" partition "${verb%-partitions}" "${broker[@]}" "${options[@]}" ;;
  *) usage ;;
esac
