#!/bin/sh
# Renews src/shapes.txt from Kafka's own message classes, and tests/golden.txt, which they write. Needs a JDK and, in
# CLASSPATH_DIR, the jars of kafka-clients 4.4.0 (compat-tests/run fetches them to compat-tests/.work/jars/kafka).
set -eu
here=$(cd "$(dirname "$0")" && pwd)
jars=$(echo "${CLASSPATH_DIR:-$here/../../compat-tests/.work/jars/kafka}"/*.jar | tr ' ' ':')
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
javac -cp "$jars" -d "$out" "$here/DumpSchemas.java" "$here/GoldenMessages.java"
# Only the messages that generate.py writes.
own=$(sed -n '/^MESSAGES/,/^]/s/.*"\(.*\)".*/\1/p' "$here/generate.py" | tr '\n' ' ')
# Those, and the APIs of the version table.
keys=$(grep -oE 'ApiKey::[A-Z][A-Za-z]+' "$here/../src/versions.rs" | sed 's/.*:://' | sort -u | tr '\n' ' ')
java -cp "$jars:$out" DumpSchemas "$keys $own" > "$here/../src/shapes.txt"
java -cp "$jars:$out" GoldenMessages "$own" > "$here/../tests/golden.txt"
wc -l "$here/../src/shapes.txt" "$here/../tests/golden.txt"
