# A Flink job reads a topic, and writes what it read to another one, at least once by its checkpoints, while the broker is killed.
version=$(basename "$JARS"/flink/flink-clients-*.jar .jar); version=${version##*-}
echo "CLIENT Flink|$version|Java|a job from topic to topic with checkpoints, at least once through kill -9|apps/flink"
dir=$WORK/flink classes=$WORK/flink/classes jars=$(class_path flink)
mkdir -p "$classes"
if ! javac -nowarn -cp "$jars" -d "$classes" "$here/lib/Access.java" "$apps/Copy.java" 2>"$dir/javac"; then
  fail flink/compile "$(head -n 1 "$dir/javac")"
  exit
fi
kafka_tool TopicCommand --create --topic flink-in --partitions 2 >/dev/null
open=(--add-opens java.base/java.lang=ALL-UNNAMED --add-opens java.base/java.util=ALL-UNNAMED --add-opens java.base/java.nio=ALL-UNNAMED)
java -Xmx640m -XX:+UseSerialGC "${open[@]}" -cp "$jars:$classes" Copy "$dir/checkpoints" >"$dir/out" 2>&1 &
flink=$!
trap 'kill $flink 2>/dev/null' EXIT
distinct() { topic_lines "$BOOTSTRAP" flink-out | sort -u | wc -l; }
seq 1 3000 | kcat -b "$BOOTSTRAP" -P -t flink-in
until_true '[ "$(distinct)" = 3000 ]' || true
check flink/copies "[ $(distinct) = 3000 ]" "$(distinct) of 3000"
seq 3001 5000 | kcat -b "$BOOTSTRAP" -P -t flink-in
"$BROKER_CTL" kill9 && "$BROKER_CTL" start
seq 5001 6000 | kcat -b "$BOOTSTRAP" -P -t flink-in
until_true '[ "$(distinct)" = 6000 ]' || true
check flink/nothing-missing "[ $(distinct) = 6000 ]" "$(distinct) of 6000"
# Its checkpoints commit offsets for people to see.
committed() { kcat -b "$BOOTSTRAP" -Q -t flink-in:0:-1 >/dev/null 2>&1; kafka_tool consumer.group.ConsumerGroupCommand --describe --offsets --group flink | awk '$2 == "flink-in" {n += $4} END {print n + 0}'; }
until_true '[ "$(committed)" = 6000 ]' || true
check flink/commits-offsets '[ "$(committed)" = 6000 ]' "$(committed) of 6000"
