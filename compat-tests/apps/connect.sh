# Kafka Connect, two workers, with a source in exactly-once mode: offsets go into the transactions of the records. A worker is
# killed, the broker is killed, the other worker is killed after the first one came back. A reader of committed records must find
# every number of every task once, in order.
version=$(basename "$JARS"/mirrormaker/connect-runtime-*.jar .jar); version=${version##*-}
echo "CLIENT Kafka Connect|$version|Java|a source of two tasks in exactly-once mode on two workers, through kill -9 of each and of the broker|apps/connect"
dir=$WORK/connect classes=$WORK/connect/classes jars=$(class_path mirrormaker)
mkdir -p "$classes"
if ! javac -nowarn -cp "$jars" -d "$classes" "$apps/Numbers.java" 2>"$dir/javac"; then
  fail connect/compile "$(head -n 1 "$dir/javac")"
  exit
fi
read -r -a ports < <(free_ports 2)
workers=()
trap 'kill -9 "${workers[@]}" 2>/dev/null' EXIT
begin() { # n
  cat >"$dir/worker-$1.properties" <<CONF
bootstrap.servers=$BOOTSTRAP
listeners=http://127.0.0.1:${ports[$1]}
group.id=connect
exactly.once.source.support=enabled
key.converter=org.apache.kafka.connect.storage.StringConverter
value.converter=org.apache.kafka.connect.storage.StringConverter
config.storage.topic=connect-configs
config.storage.replication.factor=1
offset.storage.topic=connect-offsets
offset.storage.replication.factor=1
offset.storage.partitions=2
status.storage.topic=connect-status
status.storage.replication.factor=1
status.storage.partitions=2
offset.flush.interval.ms=200
session.timeout.ms=6000
heartbeat.interval.ms=1000
scheduled.rebalance.max.delay.ms=1000
CONF
  for prefix in "" producer. consumer. admin.; do access "$prefix"; done >>"$dir/worker-$1.properties"
  java -Xmx256m -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -cp "$jars:$classes" org.apache.kafka.connect.cli.ConnectDistributed "$dir/worker-$1.properties" >>"$dir/out-$1" 2>&1 &
  workers[$1]=$!
}
kill9() { echo "$SECONDS s: worker $1 is killed at $(ends numbers)" >&2; kill -9 "${workers[$1]}"; wait "${workers[$1]}" 2>/dev/null; }
ask() { curl -s -H 'Content-Type: application/json' "http://127.0.0.1:${ports[$1]}/$2" "${@:3}"; } # worker path
running() { [ "$(ask "$1" connectors/numbers/status | grep -o '"state":"RUNNING"' | wc -l)" = 3 ]; } # worker: the connector and both tasks
# Both tasks write.
goes_on() { local seen; seen=$(ends numbers); until_true "grown $seen"; }
grown() { local now; read -r -a now <<<"$(ends numbers)"; [ $((now[0] - $1)) -gt 100 ] && [ $((now[1] - $2)) -gt 100 ]; } # ends before
# librdkafka reads committed records, unless it is told otherwise.
numbers() { kcat -b "$BOOTSTRAP" -C -t numbers -p "$1" -e -q 2>/dev/null; } # partition
in_order() { seq 0 $(($(wc -l <"$1") - 1)) | cmp -s - "$1"; } # file

kafka_tool TopicCommand --create --topic numbers --partitions 2 >/dev/null
begin 0
begin 1
config='{"connector.class":"Numbers","tasks.max":"2","topic":"numbers","until.file":"'$dir/until'","exactly.once.support":"required","transaction.boundary":"poll"}'
until_true 'ask 0 connectors | grep -q "^\[\]$"' || true
until_true 'ask 0 connectors/numbers/config -X PUT -d "$config" | grep -q "\"name\":\"numbers\""' || true
until_true 'running 0' || true
check connect/runs-the-source 'running 0 && goes_on' "$(ask 0 connectors/numbers/status | head -c 300)"
kill9 1
check connect/goes-on-after-a-workers-kill goes_on "$(ends numbers); $(ask 0 connectors/numbers/status | head -c 300)"
begin 1
echo "$SECONDS s: the broker is killed at $(ends numbers)" >&2
"$BROKER_CTL" kill9 && "$BROKER_CTL" start
check connect/goes-on-after-the-brokers-kill goes_on "$(ends numbers)"
until_true 'running 1' || true
kill9 0
check connect/goes-on-after-the-other-workers-kill 'until_true "running 1" && goes_on' "$(ends numbers); $(ask 1 connectors/numbers/status | head -c 300)"
touch "$dir/until"
# What is still open is committed, or aborted and done again.
still() { local seen; seen=$(ends numbers); sleep 1; [ "$(ends numbers)" = "$seen" ]; }
until_true still || true
for partition in 0 1; do
  numbers "$partition" >"$dir/numbers-$partition"
  check "connect/every-number-once-$partition" 'in_order "$dir/numbers-$partition" && [ "$(wc -l <"$dir/numbers-$partition")" -gt 300 ]' \
    "$(wc -l <"$dir/numbers-$partition") numbers, $(seq 0 $(($(wc -l <"$dir/numbers-$partition") - 1)) | diff "$dir/numbers-$partition" - | head -n 3 | tr '\n' ' ')"
done
