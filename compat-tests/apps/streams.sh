# Kafka Streams, at least once: every record goes through a repartition topic, is counted in a store with a changelog, and comes
# out. The broker is killed under it; the program loses its state directory and finds its counts in the changelog.
version=$(basename "$JARS"/streams/kafka-streams-*.jar .jar); version=${version##*-}
echo "CLIENT Kafka Streams|$version|Java|repartition and changelog topics, a store restored, at least once through kill -9|apps/streams"
classes=$WORK/streams/classes jars=$(class_path streams)
mkdir -p "$classes"
if ! javac -nowarn -cp "$jars" -d "$classes" "$here/lib/Access.java" "$apps/Counter.java" 2>"$WORK/streams/javac"; then
  fail streams/compile "$(head -n 1 "$WORK/streams/javac")"
  exit
fi
begin() {
  java -Xmx256m -XX:+UseSerialGC -cp "$jars:$classes" Counter "$WORK/streams/state" >>"$WORK/streams/out" 2>&1 &
  streams=$!
}
end() { kill "$streams" 2>/dev/null; wait "$streams" 2>/dev/null; }
send() { seq "$1" "$2" | kcat -b "$BOOTSTRAP" -P -t streams-in -p "$(($1 % 2))"; } # from to
passed_on() { topic_lines "$BOOTSTRAP" streams-out | sort -un | wc -l; }
trap end EXIT

kafka_tool TopicCommand --create --topic streams-in --partitions 2 >/dev/null
kafka_tool TopicCommand --create --topic streams-out --partitions 1 >/dev/null
kafka_tool TopicCommand --create --topic streams-counts --partitions 1 >/dev/null
begin
send 1 5000
until_true '[ "$(passed_on)" = 5000 ]' || true
check streams/passes-on "[ $(passed_on) = 5000 ]" "$(passed_on) of 5000"
send 5001 8000
"$BROKER_CTL" kill9 && "$BROKER_CTL" start
send 8001 10000
until_true '[ "$(passed_on)" = 10000 ]' || true
check streams/nothing-missing-after-kill "[ $(passed_on) = 10000 ]" "$(passed_on) of 10000"
end
rm -rf "$WORK/streams/state"
begin
send 10001 11000
until_true '[ "$(passed_on)" = 11000 ]' || true
# Ten keys with 1,100 records each: a store that was not restored would have begun at zero.
counted() { topic_lines "$BOOTSTRAP" streams-counts | awk -F= '$2 > most[$1] {most[$1] = $2} END {for (key in most) if (most[key] >= 1100) n++; print n + 0}'; }
until_true '[ "$(counted)" = 10 ]' || true
check streams/store-is-restored "[ $(counted) = 10 ]" "$(counted) of 10 keys"
internal=$(kafka_tool TopicCommand --list | grep -cE '^counter-.*-(repartition|changelog)$')
check streams/internal-topics "[ $internal = 2 ]" "$internal"
