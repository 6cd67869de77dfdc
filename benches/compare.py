"""The table of benches/compare, from the JSON that its runs left."""
import json, pathlib, statistics, sys

work, rounds, mib, gib = pathlib.Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4]

has_before = any(work.glob("before-*"))


def median(who, name, field):
    """Of all rounds; None where it was not measured."""
    files = [work / f"{who}-{n}" / f"{name}.json" for n in range(1, rounds + 1)]
    values = [json.loads(file.read_text())[field] for file in files if file.exists()]
    return statistics.median(values) if values else None


def row(title, name, field, better, kind="", floor=False):
    ours, theirs = median(f"metaq{kind}", name, field), median(f"kafka{kind}", name, field)
    least = median("floor", name, field) if floor else None
    cells = [title, *(f"{value:,.2f}" if value is not None else "" for value in (ours, theirs))]
    if ours and theirs:
        cells.append(f"{theirs / ours if better == 'less' else ours / theirs:.1f}x {better}")
    else:
        cells.append("")
    cells.append(f"{least:,.2f}; {ours / least:.1f}x" if ours and least else "")
    if has_before:
        before = median(f"before{kind}", name, field)
        changed = f"{before:,.2f}; {(ours / before - 1) * 100:+.0f} %" if ours and before else ""
        cells.append(changed)
    return "| " + " | ".join(cells) + " |"


cpu = "broker CPU, s/GiB"
lines = [
    "| | metaq | Kafka 4.4.0 | | floor; metaq is |" + (" before; metaq is |" if has_before else ""),
    "|---|---:|---:|---:|---:|" + ("---:|" if has_before else ""),
    row(f"produce 1 KiB records, 256 KiB batches, acks=all: {cpu}", "produce_256k", "cpu_s_per_gib", "less", floor=True),
    row(f"produce 1 KiB records, 16 KiB batches, acks=all: {cpu}", "produce_16k", "cpu_s_per_gib", "less", floor=True),
    row(f"produce 100 B records, 16 KiB batches, acks=all: {cpu}", "produce_100b", "cpu_s_per_gib", "less", floor=True),
    row("produce 1 KiB records, 16 KiB batches: MiB/s", "produce_16k", "mib_per_s", "more"),
    row(f"fetch by kafka-consumer-perf-test, the broker's first {int(mib) / 1024:g} GiB: {cpu}", "perf_fetch", "cpu_s_per_gib", "less"),
    row(f"fetch behind that, {int(mib) / 256:g} GiB: {cpu}", "fetch", "cpu_s_per_gib", "less", floor=True),
    row("the same: MiB/s", "fetch", "mib_per_s", "more"),
    row(f"the same by three readers a partition: {cpu}", "fan_out", "cpu_s_per_gib", "less", floor=True),
    row("flush.messages=1, 32 partitions: records/s", "synced", "records_per_s", "more"),
    row("the same: p99 of an acknowledgement, ms", "synced", "p99_ms", "less"),
    row("5,000 records/s, one a request: p99 of an acknowledgement, ms", "paced", "p99_ms", "less", floor=True),
    row("50 producers, 1,000 partitions, half of Kafka's most: p99, ms", "half", "p99_ms", "less", "-many"),
    row("the same: p99.9, ms", "half", "p999_ms", "less", "-many"),
    row("the same producers at full speed: MiB/s", "most", "mib_per_s", "more", "-many"),
    row("start to first answer, empty directory: ms", "start", "ms", "less"),
    row(f"start after kill -9 to first records, 2,000 partitions, {gib} GiB: ms", "killed", "ms", "less", "-recovery"),
    row("resident, fresh: MiB", "start", "rss_mib", "less"),
    row("resident after the produce loads: MiB", "produce_100b", "rss_mib", "less"),
    row("10,000 partitions created in one topic: ms", "ten", "create_ms", "less", "-ten"),
    row("the same, idle: % of a core", "ten", "idle_percent", "less", "-ten"),
    row("the same, idle: resident, MiB", "ten", "rss_mib", "less", "-ten"),
]
text = (
    f"Medians of {rounds} rounds, up to {mib} MiB written a run, all in turn on one machine of two cores shared with the load: "
    f"`benches/compare --rounds {rounds} --mib {mib}`. Latencies count from the moment a request was due. Memory is "
    "warmed before the produce loads (a file of a run's size is written and removed; a run stays below the threshold at which the system "
    "begins to write back), and what was written before is synced. Fetch differs least, because both send files by sendfile, and a third of "
    "Kafka's CPU is less than bare sendfile takes ([docs/performance.md](docs/performance.md)). The floor is a program that receives the same "
    "bytes, computes CRC-32C, writes them and answers 64 bytes, or that sends a file with sendfile (`benches/floor.rs`).\n\n"
    + "\n".join(lines)
)
print(text)
if len(sys.argv) > 5:
    readme = pathlib.Path(sys.argv[5])
    head, rest = readme.read_text().split("<!-- benchmark:begin -->")
    readme.write_text(head + "<!-- benchmark:begin -->\n" + text + "\n<!-- benchmark:end -->" + rest.split("<!-- benchmark:end -->")[1])
