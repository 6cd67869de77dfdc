# syslog-ng with its kafka-c destination and a buffer on disk ships numbered lines of a file, while the broker is killed and away.
unpacked=$(dirname "$JARS")/unpacked/syslog-ng
modules=$(dirname "$(find "$unpacked" -name libkafka.so)")
syslog_ng() { LD_LIBRARY_PATH="$(dirname "$modules")" exec "$unpacked/usr/sbin/syslog-ng" --module-path "$modules" "$@"; }
version=$(syslog_ng -V | head -n 1 | grep -oE '[0-9]+\.[0-9.]+' | head -n 1)
echo "CLIENT syslog-ng kafka-c|$version|C|lines of a file with a buffer on disk, through kill -9 and a broker that is away|apps/syslog-ng"
dir=$WORK/syslog-ng topic=syslog-ng
mkdir -p "$dir/buffer"
: >"$dir/app.log"
access=""
[ -z "${KCAT_CONFIG:-}" ] || access=$(sed 's/^\([^=]*\)=\(.*\)/\1("\2")/' "$KCAT_CONFIG" | tr '\n' ' ')
cat >"$dir/syslog-ng.conf" <<CONF
@version: 3.38
options { stats-freq(0); };
source lines { file("$dir/app.log" flags(no-parse) follow-freq(0.2)); };
destination kafka {
  kafka-c(
    bootstrap-servers("$BOOTSTRAP") topic("$topic") message("\$MSG\n")
    time-reopen(1) retries(1000)
    config(queue.buffering.max.ms("5") $access)
    disk-buffer(reliable(yes) dir("$dir/buffer") disk-buf-size(100000000) mem-buf-size(1000000))
  );
};
log { source(lines); destination(kafka); };
CONF
syslog_ng -F -f "$dir/syslog-ng.conf" -R "$dir/persist" -p "$dir/pid" -c "$dir/ctl" >"$dir/out" 2>&1 &
syslog=$!
trap 'kill $syslog 2>/dev/null' EXIT
send() { seq -f 'line %.0f' "$1" "$2" >>"$dir/app.log"; } # from to
distinct() { topic_lines "$BOOTSTRAP" "$topic" | grep -oE 'line [0-9]+' | sort -u | wc -l; }

send 1 500
until_true '[ "$(distinct)" = 500 ]' || true
check syslog-ng/ships-lines "[ $(distinct) = 500 ]" "$(distinct) of 500"
send 501 1000
"$BROKER_CTL" kill9
send 1001 1500
sleep 1
"$BROKER_CTL" start
send 1501 2000
until_true '[ "$(distinct)" = 2000 ]' || true
check syslog-ng/nothing-missing "[ $(distinct) = 2000 ]" "$(distinct) of 2000"
kill $syslog
