# Kafka Streams, exactly once: two processes count words. One is killed and comes back, the broker is killed, the other process is
# killed and loses its state directory. A reader of committed records must see every word counted by one, again and again, without
# a gap or a repeat, up to its true count.
version=$(basename "$JARS"/streams/kafka-streams-*.jar .jar); version=${version##*-}
echo "CLIENT Kafka Streams|$version|Java|word count with exactly_once_v2: every count of every word once, through kill -9 of broker and program|apps/words"
dir=$WORK/words classes=$WORK/words/classes jars=$(class_path streams)
mkdir -p "$classes"
if ! javac -nowarn -cp "$jars" -d "$classes" "$here/lib/Access.java" "$apps/Words.java" 2>"$dir/javac"; then
  fail words/compile "$(head -n 1 "$dir/javac")"
  exit
fi
declare -A processes
begin() { # name
  java -Xmx256m -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -cp "$jars:$classes" Words "$dir/state-$1" >>"$dir/out-$1" 2>&1 &
  processes[$1]=$!
}
kill9() { echo "$SECONDS s: $1 is killed at line $(cat "$dir/sent")" >&2; kill -9 "${processes[$1]}"; wait "${processes[$1]}" 2>/dev/null; }
trap 'kill -9 "${processes[@]}" $feeder 2>/dev/null' EXIT
# Three words a line, of which there are 7, 11 and 13 different ones.
lines() { seq "$1" "$2" | awk '{print "a" $1 % 7, "b" $1 % 11, "c" $1 % 13}'; } # from to
send() { lines "$1" "$2" | kcat -b "$BOOTSTRAP" -P -t words-in; } # from to
# A little at a time.
feed() { local from; for from in $(seq "$1" 50 "$2"); do send "$from" $((from + 49)) && echo "$from" >"$dir/sent.new" && mv "$dir/sent.new" "$dir/sent"; sleep 0.05; done; } # from to
sent() { until_true "[ \$(cat $dir/sent) -ge $1 ]"; } # line
truth() { topic_lines "$BOOTSTRAP" words-in | tr ' ' '\n' | sort | uniq -c | awk '{print $2 "=" $1}' | sort; }
# librdkafka reads committed records, unless it is told otherwise.
counted() { topic_lines "$BOOTSTRAP" words-out; }
last_counts() { counted | awk -F= '{last[$1] = $2} END {for (word in last) print word "=" last[word]}' | sort; }
is_true() { [ "$(last_counts)" = "$(truth)" ]; }

for topic in words-in words-out; do kafka_tool TopicCommand --create --topic "$topic" --partitions 2 >/dev/null; done
begin one
begin two
send 1 1000
until_true is_true || true
check words/counts is_true "$(diff <(last_counts) <(truth) | head -n 3 | tr '\n' ' ')"
echo 0 >"$dir/sent"
feed 1001 12000 &
feeder=$!
sent 2500
kill9 one
begin one
sent 6000
echo "$SECONDS s: the broker is killed at line $(cat "$dir/sent")" >&2
"$BROKER_CTL" kill9 && "$BROKER_CTL" start
sent 9000
kill9 two
rm -rf "$dir/state-two"
begin two
wait "$feeder"
until_true is_true || true
check words/counts-are-true-after-kills is_true "$(diff <(last_counts) <(truth) | head -n 3 | tr '\n' ' ')"
wrong=$(counted | awk -F= '$2 != last[$1] + 1 {print $1 ": " last[$1] " and then " $2} {last[$1] = $2}' | head -n 3 | tr '\n' ' ')
check words/every-count-is-there-once '[ -z "$wrong" ]' "$wrong"
