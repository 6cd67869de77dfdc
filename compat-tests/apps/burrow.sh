# Burrow reads a group's commits from __consumer_offsets (offsets.topic.mirror=true), before and after the broker is killed. It
# wants a ZooKeeper for itself. Debian's release asks for the ends of partitions by ListOffsets 0, which Kafka has not served since
# 4.0 and which costs the connection, so it asks seldom, and knows no lag, here or there: what it reads is found in its log.
version=$(dpkg-query -W -f '${Version}' burrow); version=${version%%-*}
echo "CLIENT Burrow|$version|Go|a group's commits in __consumer_offsets, before and after kill -9|apps/burrow"
dir=$WORK/burrow
mkdir -p "$dir/config"
zookeeper_up "$dir/zookeeper" >"$dir/zookeeper.log" 2>&1
ZOOKEEPER="" && . "$dir/zookeeper/env"
read -r port < <(free_ports 1)
cat >"$dir/config/burrow.toml" <<CONF
[general]
pidfile="$dir/pid"
[logging]
filename="$dir/log"
level="debug"
[zookeeper]
servers=["$ZOOKEEPER"]
root-path="/burrow"
[client-profile.metaq]
client-id="burrow"
kafka-version="1.0.0"
[cluster.metaq]
class-name="kafka"
servers=["$BOOTSTRAP"]
client-profile="metaq"
topic-refresh=5
offset-refresh=30
[consumer.metaq]
class-name="kafka"
cluster="metaq"
servers=["$BOOTSTRAP"]
client-profile="metaq"
offsets-topic="__consumer_offsets"
[storage.default]
class-name="inmemory"
min-distance=0
[httpserver.default]
address="127.0.0.1:$port"
CONF
# This release knows no mechanism but PLAIN, and no authority but the system's where it has no certificate of its own.
if [ -n "${CLIENT_USER:-}" ]; then
  sed -i 's/^kafka-version=.*/&\ntls="broker"\nsasl="broker"/' "$dir/config/burrow.toml"
  cat >>"$dir/config/burrow.toml" <<CONF
[tls.broker]
noverify=false
[sasl.broker]
username="$CLIENT_USER"
password="$CLIENT_PASSWORD"
handshake-first=true
CONF
  export SSL_CERT_FILE=$CLIENT_CA
fi
# Where it does not get at its topics at once, it ends: somebody starts it anew.
begin() {
  (
    trap 'kill "$child"; exit' TERM
    while :; do
      Burrow --config-dir "$dir/config" >>"$dir/out" 2>&1 &
      child=$!
      wait "$child"
      sleep 1
    done
  ) &
  burrow=$!
}
end() { kill "$burrow" 2>/dev/null; "$dir/zookeeper/ctl" kill9; }
trap end EXIT
send() { seq "$1" | kcat -b "$BOOTSTRAP" -P -t burrow; } # count
# Reads so many messages in a group, and commits.
take() { timeout 30 kcat -b "$BOOTSTRAP" -G burrowed -X auto.offset.reset=earliest -c "$1" -q burrow >/dev/null 2>&1; }
# Offsets of the group as Burrow has read them, the latest one.
seen() { grep '"msg":"consumer offset"' "$dir/log" 2>/dev/null | grep '"group":"burrowed"' | grep '"topic":"burrow"' | tail -n 1 | grep -oE '"offset":[0-9]+' | cut -d: -f2; }

send 100
begin
until_true 'grep -q "starting consumers" "$dir/log"' || true
sleep 1
take 60
until_true '[ "$(seen)" = 60 ]' || true
check burrow/reads-commits '[ "$(seen)" = 60 ]' "$(seen)"
"$BROKER_CTL" kill9 && "$BROKER_CTL" start
take 30
until_true '[ "$(seen)" = 90 ]' || true
check burrow/reads-commits-after-kill '[ "$(seen)" = 90 ]' "$(seen)"
# Kafka's own tool reads the same.
formatted() { kafka_tool consumer.ConsoleConsumer --topic __consumer_offsets --from-beginning --timeout-ms 10000 --formatter "org.apache.kafka.tools.consumer.$1"; }
formatted OffsetsMessageFormatter >"$dir/offsets"
check offsets-formatter "grep -q '\"group\":\"burrowed\",\"topic\":\"burrow\".*\"offset\":90' $dir/offsets" "$(head -n 1 "$dir/offsets")"
formatted GroupMetadataMessageFormatter >"$dir/groups"
check group-formatter "grep -q '\"group\":\"burrowed\".*\"protocolType\":\"consumer\"' $dir/groups" "$(head -n 1 "$dir/groups")"
