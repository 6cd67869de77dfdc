import java.util.List;
import java.util.Map;
import java.util.Random;

/** Names and values of configuration keys, mostly of topics. */
final class Configs {
    /** What a key may be set to, and after it what it may not; or both, for texts and numbers that mean nothing. */
    private static final Map<String, List<List<String>>> TOPICS = Map.ofEntries(
        entry("cleanup.policy", List.of("compact", "delete", "compact,delete", "delete,compact", "delete, compact"), List.of("nonsense", "Delete", "delete,delete", ",")),
        entry("retention.ms", List.of("100000000", "-1", " 100000000"), List.of("-2", "x", "1.5", "99999999999999999999")),
        entry("retention.bytes", List.of("-1", "1000000000"), List.of("-2", "x")),
        entry("segment.bytes", List.of("1048576", "2000000"), List.of("13", "2147483648", "x")),
        entry("segment.ms", List.of("100000000"), List.of("0", "-1")),
        entry("max.message.bytes", List.of("1000", "100", "5000000"), List.of("-1", "x")),
        entry("compression.type", List.of("producer", "uncompressed", "gzip", "lz4", "snappy", "zstd"), List.of("none", "GZIP", "x")),
        entry("compression.gzip.level", List.of("-1", "1", "9"), List.of("10", "-2")),
        entry("compression.lz4.level", List.of("1", "9"), List.of("18", "-1")),
        entry("compression.zstd.level", List.of("3", "1"), List.of("23", "x")),
        entry("message.timestamp.type", List.of("CreateTime", "LogAppendTime"), List.of("createtime", "")),
        entry("message.timestamp.before.max.ms", List.of("9223372036854775807", "3600000"), List.of("-1")),
        entry("message.timestamp.after.max.ms", List.of("3600000", "9223372036854775807"), List.of("-1", "x")),
        entry("min.insync.replicas", List.of("1", "2"), List.of("0", "x")),
        entry("unclean.leader.election.enable", List.of("true", "false", "TRUE"), List.of("yes", "")),
        entry("preallocate", List.of("false", "true"), List.of("1")),
        entry("flush.messages", List.of("9223372036854775807", "1"), List.of("-1")),
        entry("flush.ms", List.of("9223372036854775807", "1000"), List.of("-1")),
        entry("index.interval.bytes", List.of("4096"), List.of("-1")),
        entry("segment.index.bytes", List.of("10485760"), List.of("3")),
        entry("segment.jitter.ms", List.of("0"), List.of("-1")),
        entry("file.delete.delay.ms", List.of("60000", "0"), List.of("-1")),
        entry("delete.retention.ms", List.of("86400000"), List.of("-1")),
        entry("min.compaction.lag.ms", List.of("0", "1000"), List.of("-1")),
        entry("max.compaction.lag.ms", List.of("9223372036854775807", "1000"), List.of("0")),
        entry("min.cleanable.dirty.ratio", List.of("0.5", "1", "0"), List.of("1.1", "-0.1", "x")),
        entry("remote.storage.enable", List.of("false"), List.of("true", "x")),
        entry("local.retention.ms", List.of("-2", "1000"), List.of("-3")),
        entry("local.retention.bytes", List.of("-2"), List.of("-3")),
        entry("leader.replication.throttled.replicas", List.of("", "*", "0:0"), List.of("0", "x:y", "*,0:0")),
        entry("follower.replication.throttled.replicas", List.of("*", "0:0,1:0"), List.of("none")),
        entry("message.downconversion.enable", List.of("true"), List.of("x")),
        entry("message.format.version", List.of("3.0"), List.of("9.9")),
        entry("unknown.key", List.of("1"), List.of("")),
        entry("", List.of("1"), List.of("")));
    private static final List<String> NAMES = TOPICS.keySet().stream().sorted().toList();
    private static final List<String> OTHERS = List.of("log.retention.ms", "advertised.listeners", "background.threads", "consumer.session.timeout.ms", "interval.ms", "metrics");

    private static Map.Entry<String, List<List<String>>> entry(String name, List<String> right, List<String> wrong) {
        return Map.entry(name, List.of(right, wrong));
    }

    static String name(Random random, double wrongness) {
        if (random.nextDouble() < wrongness / 2) return OTHERS.get(random.nextInt(OTHERS.size()));
        while (true) {
            String name = NAMES.get(random.nextInt(NAMES.size()));
            boolean odd = name.isEmpty() || name.startsWith("unknown") || name.startsWith("message.downconversion") || name.startsWith("message.format");
            if (!odd || random.nextDouble() < wrongness) return name;
        }
    }

    static String value(Random random, String name, double wrongness) {
        List<List<String>> values = TOPICS.getOrDefault(name, List.of(List.of("1"), List.of("x")));
        if (random.nextDouble() < wrongness / 4) return random.nextBoolean() ? null : "";
        List<String> chosen = values.get(random.nextDouble() < wrongness ? 1 : 0);
        return chosen.get(random.nextInt(chosen.size()));
    }
}
