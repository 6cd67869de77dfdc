# MirrorMaker 2 copies a topic with its configuration and a group's offsets from metaq to Kafka and back under another name,
# while metaq is killed. Two versions of MirrorMaker, Apache Kafka as the other cluster.
kafka=$WORK/mirrormaker/kafka
mkdir -p "$kafka"
kafka_ctl "$kafka" >"$kafka/ctl.log" 2>&1 && "$kafka/ctl" start
METAQ_BOOTSTRAP=$BOOTSTRAP METAQ_CTL=$BROKER_CTL
other=$(sed -n 's/.*BOOTSTRAP=\([^ ]*\).*/\1/p' "$kafka/env")
trap 'kill $mirror 2>/dev/null; "$kafka/ctl" kill9' EXIT
configs() { java -cp "$(class_path kafka)" org.apache.kafka.tools.ConfigCommand --bootstrap-server "$@" 2>/dev/null; }
distinct() { topic_lines "$1" "$2" | sort -u | wc -l; } # broker topic

for release in mirrormaker mirrormaker-3; do
  version=$(basename "$JARS/$release"/connect-mirror-[0-9]*.jar .jar); version=${version##*-}
  name=apps/mirrormaker-$version topic=mirrored-${version//./-}
  echo "CLIENT MirrorMaker 2|$version|Java|a topic, its configuration and a group's offsets from metaq to Kafka and back, through kill -9|$name"
  dir=$WORK/mirrormaker/$version
  mkdir -p "$dir"
  kafka_tool TopicCommand --create --topic "$topic" --partitions 2 --config retention.ms=7200000 >/dev/null
  cat >"$dir/mm2.properties" <<CONF
clusters = here, there
here.bootstrap.servers = $METAQ_BOOTSTRAP
there.bootstrap.servers = $other
here->there.enabled = true
here->there.topics = $topic
there->here.enabled = true
there->here.topics = here.$topic
replication.factor = 1
checkpoints.topic.replication.factor = 1
heartbeats.topic.replication.factor = 1
offset-syncs.topic.replication.factor = 1
offset.storage.replication.factor = 1
status.storage.replication.factor = 1
config.storage.replication.factor = 1
tasks.max = 2
refresh.topics.interval.seconds = 3
sync.topic.configs.interval.seconds = 3
sync.group.offsets.enabled = true
sync.group.offsets.interval.seconds = 2
emit.checkpoints.interval.seconds = 2
refresh.groups.interval.seconds = 3
offset.flush.interval.ms = 1000
# Or a topic that comes back would be taken for one in a circle.
replication.policy.class = org.apache.kafka.connect.mirror.DefaultReplicationPolicy
CONF
  access here. >>"$dir/mm2.properties"
  seq 1 2000 | kcat -b "$METAQ_BOOTSTRAP" -P -t "$topic"
  java -Xmx384m -XX:+UseSerialGC -cp "$(class_path "$release")" org.apache.kafka.connect.mirror.MirrorMaker "$dir/mm2.properties" >"$dir/out" 2>&1 &
  mirror=$!
  until_true '[ "$(distinct "$other" "here.$topic")" = 2000 ]' || until_true '[ "$(distinct "$other" "here.$topic")" = 2000 ]' || true
  check "mirrormaker-$version/to-kafka" '[ "$(distinct "$other" "here.$topic")" = 2000 ]' "$(distinct "$other" "here.$topic") of 2000"
  timeout 20 kcat -b "$METAQ_BOOTSTRAP" -G "readers-$version" -X auto.offset.reset=earliest -c 2000 -q "$topic" >/dev/null 2>&1
  seq 2001 3000 | kcat -b "$METAQ_BOOTSTRAP" -P -t "$topic"
  "$METAQ_CTL" kill9 && "$METAQ_CTL" start
  seq 3001 4000 | kcat -b "$METAQ_BOOTSTRAP" -P -t "$topic"
  until_true '[ "$(distinct "$other" "here.$topic")" = 4000 ]' || true
  check "mirrormaker-$version/through-kill" '[ "$(distinct "$other" "here.$topic")" = 4000 ]' "$(distinct "$other" "here.$topic") of 4000"
  synced() { configs "$other" --describe --topic "here.$topic" | grep -q retention.ms=7200000; }
  until_true synced || true
  check "mirrormaker-$version/configuration" synced "not synced"
  offsets() { java -cp "$(class_path kafka)" org.apache.kafka.tools.consumer.group.ConsumerGroupCommand --bootstrap-server "$other" --describe --offsets --group "readers-$version" 2>/dev/null | grep -c "here.$topic"; }
  until_true '[ "$(offsets)" -ge 1 ]' || true
  check "mirrormaker-$version/group-offsets" '[ "$(offsets)" -ge 1 ]' "none at the other cluster"
  # Back: what Kafka has comes to metaq under both names.
  echo back-1 | kcat_at "$other" -P -t "from-kafka-$topic"
  kill "$mirror"; wait "$mirror" 2>/dev/null
  sed -i "s/^there->here.topics.*/there->here.topics = from-kafka-$topic/; s/^here->there.enabled.*/here->there.enabled = false/" "$dir/mm2.properties"
  seq 1 1000 | kcat_at "$other" -P -t "from-kafka-$topic"
  java -Xmx384m -XX:+UseSerialGC -cp "$(class_path "$release")" org.apache.kafka.connect.mirror.MirrorMaker "$dir/mm2.properties" >>"$dir/out" 2>&1 &
  mirror=$!
  until_true '[ "$(distinct "$METAQ_BOOTSTRAP" "there.from-kafka-$topic")" = 1001 ]' || true
  "$METAQ_CTL" kill9 && "$METAQ_CTL" start
  seq 1001 2000 | kcat_at "$other" -P -t "from-kafka-$topic"
  until_true '[ "$(distinct "$METAQ_BOOTSTRAP" "there.from-kafka-$topic")" = 2001 ]' || true
  check "mirrormaker-$version/from-kafka" '[ "$(distinct "$METAQ_BOOTSTRAP" "there.from-kafka-$topic")" = 2001 ]' "$(distinct "$METAQ_BOOTSTRAP" "there.from-kafka-$topic") of 2001"
  kill "$mirror"; wait "$mirror" 2>/dev/null
done
true
