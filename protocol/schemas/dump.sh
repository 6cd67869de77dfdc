#!/bin/sh
# Renews src/shapes.txt from Kafka's own message classes. Needs a JDK and, in CLASSPATH_DIR, the jars of
# kafka-clients 4.1.1 (compat-tests/run fetches them to compat-tests/.work/jars/kafka).
set -eu
here=$(cd "$(dirname "$0")" && pwd)
jars=$(echo "${CLASSPATH_DIR:-$here/../../compat-tests/.work/jars/kafka}"/*.jar | tr ' ' ':')
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
javac -cp "$jars" -d "$out" "$here/DumpSchemas.java"
# Only the APIs of the version table.
keys=$(grep -oE 'ApiKey::[A-Z][A-Za-z]+' "$here/../src/versions.rs" | sed 's/.*:://' | sort -u | tr '\n' ' ')
java -cp "$jars:$out" DumpSchemas "$keys" > "$here/../src/shapes.txt"
wc -l "$here/../src/shapes.txt"
