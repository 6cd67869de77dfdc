#!/usr/bin/env bash
# Writes the report card from the suites' output: a row a client. Rows of suites that did not run are kept, and so are
# those of the other coordination and of the other security.
set -u
results=$1 against=$2 report=$3 coordination=$4 security=$5
[ "$against" = metaq ] || exit 0
rows=$(mktemp)
trap 'rm -f "$rows"' EXIT
[ -f "$report" ] && grep -E '^\| [a-z]' "$report" | grep -v '^| suite ' >"$rows.old" || : >"$rows.old"
for file in "$results"/*; do
  suite=$(basename "$file")
  case "$coordination:$suite" in
    *:zookeeper) ;;
    *:*-zookeeper | zookeeper:*) suite="${suite%-zookeeper}, three brokers" ;;
  esac
  [ "$security" = plaintext ] || suite+=", secured"
  grep -q '^CLIENT ' "$file" 2>/dev/null || continue
  sed -i "/^| $suite |/d" "$rows.old"
  while IFS='|' read -r client version language exercised prefix; do
    passed=$(grep -c "^PASS $prefix" "$file"); failed=$(grep -c "^FAIL $prefix" "$file"); skipped=$(grep -c "^SKIP $prefix" "$file")
    echo "| $suite | $client | $version | $language | $exercised | $passed passed, $failed failed, $skipped skipped |"
  done < <(grep '^CLIENT ' "$file" | sed 's/^CLIENT //') >>"$rows"
done
{
  echo "# Report card"
  echo
  echo "Written by \`compat-tests/run\`. Every row is a real client against metaq; the same suites pass against Apache Kafka 4.4.0 (\`compat-tests/run --against kafka\`)."
  echo
  echo "| suite | client | version | language | exercised | result |"
  echo "|---|---|---|---|---|---|"
  cat "$rows.old" "$rows" | sort
} >"$report.tmp" && mv "$report.tmp" "$report"
rm -f "$rows.old"
