import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Random;
import java.util.Set;
import java.util.TreeMap;
import java.util.TreeSet;
import org.apache.kafka.common.message.ApiMessageType;

/** What a sequence asks, all of it from its seed: a few requests that make a state, and up to five over it. */
final class Plan {
    /** A request that both brokers get. Where the version is one that no broker knows, the body is that of another. */
    record Step(ApiMessageType api, short version, short schema, Map<String, Object> tree, Set<String> tags) {
        @Override
        public String toString() {
            StringBuilder out = new StringBuilder(api.name + " " + version + (version == schema ? "" : " with the body of " + schema) + " " + tags + " ");
            Wire.print(tree, "  ", out);
            return out.toString();
        }
    }

    /** The versions of an API that both brokers serve, and all that one of them does. */
    record Range(short from, short to, short least, short most) {}

    private static final List<Set<String>> THEMES = List.of(
        Set.of("Produce", "Fetch", "ListOffsets", "DeleteRecords", "InitProducerId", "OffsetForLeaderEpoch", "DescribeProducers", "IncrementalAlterConfigs", "DeleteTopics", "DescribeLogDirs"),
        Set.of("Produce", "Fetch", "ListOffsets"),
        Set.of("JoinGroup", "SyncGroup", "Heartbeat", "LeaveGroup", "OffsetCommit", "OffsetFetch", "DescribeGroups", "ListGroups", "DeleteGroups", "OffsetDelete", "FindCoordinator"),
        Set.of("CreateTopics", "DeleteTopics", "CreatePartitions", "DescribeConfigs", "AlterConfigs", "IncrementalAlterConfigs", "Metadata", "DescribeTopicPartitions", "DescribeLogDirs", "ElectLeaders"),
        Set.of());

    /** They change what outlives a sequence, so they have a theme, and sequences, of their own. */
    static final Set<String> OF_TRANSACTIONS = Set.of("AddPartitionsToTxn", "AddOffsetsToTxn", "EndTxn", "TxnOffsetCommit", "DescribeTransactions", "ListTransactions", "WriteTxnMarkers");
    private static final Set<String> BESIDE_TRANSACTIONS = Set.of("InitProducerId", "DescribeProducers", "OffsetFetch", "Produce", "Fetch", "ListOffsets");

    private final TreeMap<ApiMessageType, Range> ranges;
    private final Set<String> chosen;

    Plan(TreeMap<ApiMessageType, Range> ranges, Set<String> chosen) {
        this.ranges = ranges;
        this.chosen = chosen;
    }

    List<Step> of(long seed, Draw.World world) {
        Random random = new Random(seed * 0x9E3779B97F4A7C15L);
        random.nextLong();
        Set<String> theme = chosen.isEmpty() ? THEMES.get(random.nextInt(THEMES.size())) : chosen;
        boolean transactions = chosen.isEmpty() ? seed % 6 == 5 : chosen.stream().anyMatch(OF_TRANSACTIONS::contains);
        List<ApiMessageType> apis = ranges.keySet().stream().filter(api -> chosen.isEmpty() && transactions
            ? OF_TRANSACTIONS.contains(api.name) || BESIDE_TRANSACTIONS.contains(api.name)
            : theme.contains(api.name) || theme.isEmpty() && !OF_TRANSACTIONS.contains(api.name)).toList();
        List<Step> steps = new ArrayList<>();
        if (transactions) {
            steps.addAll(transaction(random, world));
            steps.forEach(step -> step.tags().add("prepares"));
            int more = 1 + random.nextInt(5);
            for (int n = 0; n < more; n++) steps.add(step(apis.get(random.nextInt(apis.size())), new Random(random.nextLong()), world, true));
            return steps;
        }
        if (random.nextInt(10) < 6) steps.add(records(random, world));
        boolean groups = theme.contains("Heartbeat") || theme.contains("OffsetFetch") || theme.contains("DescribeGroups") || theme.contains("SyncGroup") || theme.contains("OffsetCommit");
        if (groups || random.nextInt(4) == 0) steps.addAll(group(random, world));
        steps.forEach(step -> step.tags().add("prepares"));
        int count = 1 + random.nextInt(5);
        for (int n = 0; n < count; n++) steps.add(step(apis.get(random.nextInt(apis.size())), new Random(random.nextLong()), world, false));
        return steps;
    }

    private Step step(ApiMessageType api, Random random, Draw.World world, boolean transactions) {
        Range range = ranges.get(api);
        int drawn = random.nextInt(20);
        double wrongness = drawn < 9 ? 0 : drawn < 17 ? 0.12 : 0.35;
        short schema = (short) (range.from() + random.nextInt(range.to() - range.from() + 1));
        short version = schema;
        if (random.nextInt(40) == 0) {
            version = (short) (random.nextBoolean() && range.least() > 0 ? range.least() - 1 : range.most() + 1);
            schema = version < schema ? range.from() : range.to();
        }
        Draw draw = new Draw(api, random, world, wrongness, transactions);
        Map<String, Object> tree = draw.request(schema);
        if (version != schema) draw.tags.add("version");
        if (random.nextInt(60) == 0) draw.tags.add(random.nextBoolean() ? "frame:longer" : "frame:cut");
        return new Step(api, version, schema, tree, draw.tags);
    }

    /** Some records to be read. */
    private Step records(Random random, Draw.World world) {
        List<Object> topics = new ArrayList<>();
        for (int n = 0; n < 3; n++) {
            Object partition = map("index", 0L, "records", Batch.draw(random, world.nowMs(), true, 0, new TreeSet<>()));
            if (random.nextBoolean()) topics.add(map("name", world.topic(n), "partition_data", List.of(partition)));
        }
        return fixed(ApiMessageType.PRODUCE, 9, map("transactional_id", null, "acks", -1L, "timeout_ms", 5_000L, "topic_data", topics));
    }

    /** A producer, with a transaction that has anything or nothing, of either version. */
    private List<Step> transaction(Random random, Draw.World world) {
        String id = world.prefix() + "txn-1";
        Object producer = new Draw.Last("producer");
        Object epoch = new Draw.Last("epoch");
        List<Step> steps = new ArrayList<>();
        if (random.nextInt(8) == 0) return steps;
        steps.add(fixed(ApiMessageType.INIT_PRODUCER_ID, 4, map("transactional_id", id, "transaction_timeout_ms", 60_000L, "producer_id", -1L, "producer_epoch", -1L)));
        if (random.nextBoolean()) {
            steps.add(fixed(ApiMessageType.ADD_PARTITIONS_TO_TXN, 3, map("v3_and_below_transactional_id", id, "v3_and_below_producer_id", producer, "v3_and_below_producer_epoch", epoch,
                "v3_and_below_topics", List.of(map("name", world.topic(0), "partitions", List.of(0L, 1L))))));
            if (random.nextBoolean()) steps.add(produced(random, world, id, 9));
        } else if (random.nextBoolean()) {
            // Version 2 of transactions: what is written to is part of them.
            steps.add(produced(random, world, id, 12));
        }
        if (random.nextInt(3) == 0) {
            String group = world.prefix() + "group-1";
            steps.add(fixed(ApiMessageType.ADD_OFFSETS_TO_TXN, 3, map("transactional_id", id, "producer_id", producer, "producer_epoch", epoch, "group_id", group)));
            Object partition = map("partition_index", 0L, "committed_offset", 3L, "committed_leader_epoch", -1L, "committed_metadata", "m");
            steps.add(fixed(ApiMessageType.TXN_OFFSET_COMMIT, 3, map("transactional_id", id, "group_id", group, "producer_id", producer, "producer_epoch", epoch,
                "generation_id", -1L, "generation_id_or_member_epoch", -1L, "member_id", "", "group_instance_id", null, "topics", List.of(map("name", world.topic(0), "partitions", List.of(partition))))));
        }
        if (random.nextInt(4) == 0) {
            steps.add(fixed(ApiMessageType.END_TXN, random.nextBoolean() ? 5 : 3, map("transactional_id", id, "producer_id", producer, "producer_epoch", epoch, "committed", random.nextBoolean())));
        }
        return steps;
    }

    private Step produced(Random random, Draw.World world, String id, int version) {
        Object partition = map("index", 0L, "records", Batch.drawTransactional(random, world.nowMs(), true, 0, new TreeSet<>()));
        return fixed(ApiMessageType.PRODUCE, version, map("transactional_id", id, "acks", -1L, "timeout_ms", 5_000L,
            "topic_data", List.of(map("name", world.topic(0), "partition_data", List.of(partition)))));
    }

    /** A group with a member, in any of its states. */
    private List<Step> group(Random random, Draw.World world) {
        String group = world.prefix() + "group-1";
        String instance = random.nextInt(4) == 0 ? "instance-1" : null;
        Object protocol = map("name", "range", "metadata", new byte[] {0, 0, 0, 0, 0, 0, -1, -1, -1, -1});
        List<Step> steps = new ArrayList<>();
        if (random.nextInt(3) > 0) {
            steps.add(fixed(ApiMessageType.JOIN_GROUP, random.nextInt(3) == 0 ? 5 : 3, map("group_id", group, "session_timeout_ms", 10_000L, "rebalance_timeout_ms", Draw.World.REBALANCE_MS, "member_id", "",
                "group_instance_id", instance, "protocol_type", "consumer", "protocols", List.of(protocol))));
            if (random.nextInt(3) > 0) {
                Object assignment = map("member_id", new Draw.Member(0), "assignment", new byte[] {0, 0, 0, 0, 0, 0, -1, -1, -1, -1});
                steps.add(fixed(ApiMessageType.SYNC_GROUP, 2, map("group_id", group, "generation_id", new Draw.Last("generation"), "member_id", new Draw.Member(0), "assignments", List.of(assignment))));
            }
        }
        if (random.nextInt(3) == 0) {
            boolean joined = !steps.isEmpty();
            Object partition = map("partition_index", 0L, "committed_offset", 3L, "committed_leader_epoch", -1L, "committed_metadata", "m");
            steps.add(fixed(ApiMessageType.OFFSET_COMMIT, 6, map("group_id", group, "generation_id_or_member_epoch", joined ? new Draw.Last("generation") : -1L,
                "member_id", joined ? new Draw.Member(0) : "", "topics", List.of(map("name", world.topic(0), "partitions", List.of(partition))))));
        }
        return steps;
    }

    static Step fixed(ApiMessageType api, int version, Map<String, Object> tree) {
        return new Step(api, (short) version, (short) version, tree, new TreeSet<>());
    }

    static Map<String, Object> map(Object... all) {
        Map<String, Object> map = new LinkedHashMap<>();
        for (int n = 0; n < all.length; n += 2) map.put((String) all[n], all[n + 1]);
        return map;
    }
}
