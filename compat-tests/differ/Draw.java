import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.HashSet;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Random;
import java.util.Objects;
import java.util.Set;
import java.util.TreeSet;
import org.apache.kafka.common.Uuid;
import org.apache.kafka.common.message.ApiMessageType;
import org.apache.kafka.common.protocol.types.BoundField;
import org.apache.kafka.common.protocol.types.Field;
import org.apache.kafka.common.protocol.types.NullableSchema;
import org.apache.kafka.common.protocol.types.Schema;
import org.apache.kafka.common.protocol.types.TaggedFields;
import org.apache.kafka.common.protocol.types.Type;

/** A request of one API and version from its schema: every field gets a value that fits its name. */
final class Draw {
    private final ApiMessageType api;
    private final Random random;
    private final World world;
    /** How often a value is an unusual one. */
    private final double wrongness;
    /** Whether requests are of transactions, where others could be of them too. */
    private final boolean transactions;
    final Set<String> tags = new TreeSet<>();

    /** What the requests of a sequence have in common: its topics and groups, which are its own. */
    record World(String prefix, long nowMs) {
        /** A member that joins waits this long for those that do not, and is gone when it does not sync for so long. */
        static final long REBALANCE_MS = 600;

        /** Two partitions; compacted; with the broker's timestamps; only ever created by the sequence. */
        String topic(int number) {
            return prefix + List.of("plain", "compacted", "stamped", "later").get(number);
        }
    }

    Draw(ApiMessageType api, Random random, World world, double wrongness, boolean transactions) {
        this.transactions = transactions;
        this.api = api;
        this.random = random;
        this.world = world;
        this.wrongness = wrongness;
    }

    Map<String, Object> request(short version) {
        Map<String, Object> tree = struct(api.requestSchemas()[version], "");
        harmless(tree, version);
        return tree;
    }

    /** Nothing that lasts longer than the sequence, or takes a broker's service away. */
    private void harmless(Map<String, Object> tree, short version) {
        if (tree.get("resources") instanceof List<?> resources && tree.containsKey("validate_only")) {
            if (resources.stream().anyMatch(one -> !Wire.tree(one).get("resource_type").equals(2L))) tree.put("validate_only", true);
        }
        if (api == ApiMessageType.CREATE_TOPICS && ((List<?>) tree.get("topics")).stream().anyMatch(one -> Wire.tree(one).get("name").toString().startsWith("__"))) tree.put("validate_only", true);
        if (api == ApiMessageType.UPDATE_FEATURES && version > 0) tree.put("validate_only", true);
        if (api == ApiMessageType.JOIN_GROUP && version == 0 && tree.get("session_timeout_ms").equals(10_000L)) tree.put("session_timeout_ms", 1_500L);
        if (api == ApiMessageType.CREATE_TOPICS || api == ApiMessageType.CREATE_PARTITIONS || api == ApiMessageType.DELETE_TOPICS) tree.put("timeout_ms", 5_000L);
        // Of nobody: what they are given outlives the sequence.
        if (tree.get("creations") instanceof List<?> creations) for (Object one : creations) nowhere(Wire.tree(one), "host");
        if (tree.get("filters") instanceof List<?> filters) for (Object one : filters) nowhere(Wire.tree(one), "host_filter");
        if (api == ApiMessageType.DESCRIBE_ACLS) nowhere(tree, "host_filter");
        if (tree.get("acks") instanceof Long acks && acks == 0) tags.add("acks-0");
    }

    private void nowhere(Map<String, Object> tree, String name) {
        List<String> hosts = Rights.NOWHERE;
        tree.put(name, name.equals("host") && unusual() ? any("", "192.0.2.0/33", "192.0.2/24") : hosts.get(random.nextInt(hosts.size())));
    }

    private boolean ofAcls() {
        return api == ApiMessageType.CREATE_ACLS || api == ApiMessageType.DELETE_ACLS || api == ApiMessageType.DESCRIBE_ACLS;
    }

    private Map<String, Object> struct(Schema schema, String path) {
        Map<String, Object> tree = new LinkedHashMap<>();
        for (BoundField field : schema.fields()) {
            if (!(field.def.type instanceof TaggedFields tagged)) {
                tree.put(field.def.name, value(field.def.type, field.def.name, path, tree));
            } else {
                for (Field one : tagged.fields().values()) {
                    // Followers' and controllers' own.
                    if (api != ApiMessageType.FETCH) tree.put(one.name, value(one.type, one.name, path, tree));
                }
            }
        }
        return tree;
    }

    private Object value(Type type, String name, String path, Map<String, Object> siblings) {
        if (type.isArray()) return list(type, name, path + name + "/");
        if (type instanceof Schema schema) {
            if (schema instanceof NullableSchema && random.nextInt(3) > 0) return null;
            return struct(schema, path + name + "/");
        }
        return switch (type.toString()) {
            case "STRING", "COMPACT_STRING" -> text(name, path, siblings, false);
            case "NULLABLE_STRING", "COMPACT_NULLABLE_STRING" -> text(name, path, siblings, true);
            case "BOOLEAN" -> {
                boolean drawn = random.nextInt(3) == 0;
                if (drawn && name.equals("verify_only")) tags.add("verify");
                yield drawn;
            }
            case "UUID" -> id();
            case "FLOAT64" -> 1.5;
            case "INT8", "INT16", "INT32", "INT64", "UINT16" -> number(name, siblings);
            case "BYTES", "COMPACT_BYTES", "NULLABLE_BYTES", "COMPACT_NULLABLE_BYTES" -> bytes(name);
            default -> {
                boolean keyed = random.nextInt(3) > 0;
                yield transactions ? Batch.drawTransactional(random, world.nowMs(), keyed, wrongness, tags) : Batch.draw(random, world.nowMs(), keyed, wrongness, tags);
            }
        };
    }

    private Object list(Type type, String name, String path) {
        Type element = type.arrayElementType().get();
        if (type.isNullable() && random.nextInt(8) == 0) return null;
        if (name.equals("assignments") && api != ApiMessageType.SYNC_GROUP && random.nextInt(8) > 0) return type.isNullable() ? null : List.of();
        if ((name.equals("forgotten_topics_data") || name.equals("configuration_keys")) && random.nextInt(3) > 0) return type.isNullable() ? null : List.of();
        if (name.equals("configs") && api == ApiMessageType.CREATE_TOPICS && random.nextInt(2) > 0) return List.of();
        int drawn = random.nextInt(20);
        int count = drawn == 0 ? 0 : drawn < 13 ? 1 : drawn < 18 ? 2 : 3;
        if (drawn == 0 && !unusual() && !name.endsWith("filter")) count = 1;
        boolean twice = unusual();
        Set<Object> seen = new HashSet<>();
        List<Object> list = new ArrayList<>();
        for (int n = 0; n < count; n++) {
            Object one = element instanceof Schema schema ? struct(schema, path) : value(element, name, path, Map.of());
            Object key = key(one);
            if (twice || seen.add(key)) list.add(one);
            if (twice && !seen.add(key)) tags.add("twice");
        }
        if (name.equals("topics") && list.isEmpty()) tags.add("topics:none");
        if (name.equals("configs") && list.size() > 1) tags.add("configs:several");
        return list;
    }

    /** What may not be twice in a list. */
    private static Object key(Object element) {
        if (!(element instanceof Map)) return element;
        Map<String, Object> tree = Wire.tree(element);
        for (String name : List.of("transactional_id", "producer_id", "name", "topic", "topic_name", "topic_id", "partition_index", "partition", "index", "group_id", "member_id", "feature", "entity_type")) {
            if (tree.containsKey(name)) return String.valueOf(tree.get(name));
        }
        return tree.containsKey("resource_type") ? tree.get("resource_type") + "/" + tree.get("resource_name") : element.toString();
    }

    private boolean unusual() {
        return random.nextDouble() < wrongness;
    }

    @SafeVarargs
    private <T> T any(T... values) {
        return values[random.nextInt(values.length)];
    }

    private Object id() {
        if (api == ApiMessageType.GET_TELEMETRY_SUBSCRIPTIONS || api == ApiMessageType.PUSH_TELEMETRY) {
            return any(Uuid.ZERO_UUID, Uuid.fromString("AAAAAAAAAAAAAAAAAAAATg"));
        }
        if (unusual()) {
            Object id = any(Uuid.ZERO_UUID, Uuid.fromString("AAAAAAAAAAAAAAAAAAAAUg"), Uuid.METADATA_TOPIC_ID);
            tags.add(id.equals(Uuid.ZERO_UUID) ? "id:zero" : "id:unknown");
            return id;
        }
        return new IdOf(world.topic(random.nextInt(3)));
    }

    /** A topic's id at each broker. */
    record IdOf(String name) implements Wire.Symbol {
        @Override
        public Object resolve(Names names) {
            return names.topicId(name);
        }
    }

    /** A member that the broker has named. */
    record Member(int number) implements Wire.Symbol {
        @Override
        public Object resolve(Names names) {
            // An answer may name none.
            return Objects.requireNonNullElse(names.member(number), "");
        }
    }

    /** A number that the broker has given out last: producer, generation, session. */
    record Last(String what) implements Wire.Symbol {
        @Override
        public Object resolve(Names names) {
            return switch (what) {
                case "producer" -> names.producer();
                case "epoch" -> names.epoch();
                case "coordinator" -> names.coordinatorEpoch();
                case "session" -> names.session();
                default -> names.generation();
            };
        }
    }

    private Object text(String name, String path, Map<String, Object> siblings, boolean nullable) {
        String where = ("/" + path).replaceAll(".*/([^/]+)/$", "$1");
        switch (name) {
            case "name":
                if (where.equals("configs")) return Configs.name(random, wrongness);
                if (where.equals("protocols")) return unusual() ? any("", "other") : any("range", "roundrobin");
                return topic(nullable);
            case "topic", "topic_name", "topics":
                return topic(nullable);
            case "value":
                return Configs.value(random, String.valueOf(siblings.get("name")), wrongness);
            case "configuration_keys":
                return Configs.name(random, wrongness);
            case "resource_name":
                return resource(siblings);
            case "group_id", "groups", "groups_names", "key", "coordinator_keys":
                return group();
            case "member_id":
                if (nullable) return unusual() ? any("", "nobody") : null;
                return unusual() ? any("", "nobody") : random.nextInt(4) == 0 && api == ApiMessageType.JOIN_GROUP ? "" : new Member(random.nextInt(2));
            case "group_instance_id":
                return random.nextInt(6) == 0 ? any("instance-1", "instance-2") : unusual() ? "" : null;
            case "protocol_type":
                return unusual() ? any("", "connect", "other") : "consumer";
            case "protocol_name":
                return unusual() ? any("", "other") : nullable && random.nextInt(4) == 0 ? null : "range";
            case "reason":
                return any(null, "", "why not");
            case "v3_and_below_transactional_id", "transactional_ids":
                return transactional();
            case "transactional_id_pattern":
                return unusual() ? any("(", "", world.prefix() + "nothing") : any(null, world.prefix() + "txn-.*");
            case "state_filters":
                return unusual() ? any("", "nonsense", "Dead") : any("Empty", "Ongoing", "CompleteCommit", "CompleteAbort");
            case "transactional_id":
                if (transactions) return nullable && random.nextInt(4) == 0 ? null : transactional();
                if (!unusual()) return null;
                tags.add("transactional-id");
                // Kafka makes an internal topic for any other, which later sequences would see.
                return "";
            case "committed_metadata":
                return unusual() ? any("x".repeat(4096), "x".repeat(4097), nullable ? null : "") : any("", "m");
            case "states_filter":
                return unusual() ? any("", "nonsense", "stable") : any("Stable", "Empty", "PreparingRebalance", "Dead", "CompletingRebalance");
            case "types_filter":
                return unusual() ? any("", "nonsense", "Classic") : any("classic", "consumer", "share");
            case "entity_type":
                return any("user", "client-id", "ip", "other");
            case "match", "principal_filter", "principal":
                return any(nullable ? null : "User:a", "User:a", unusual() ? "" : "User:*", unusual() ? "a" : "Kind:a:b");
            case "host", "host_filter":
                return any("*", "127.0.0.1");
            case "resource_name_filter":
                return any(nullable ? null : "x", "x", world.topic(0), "*");
            case "feature":
                return any("no.such.feature", "");
            case "path":
                return any("/nowhere", "relative", "");
            case "client_software_name":
                return unusual() ? any("", "-", "a b", "ä") : "apache-kafka-java";
            case "client_software_version":
                return unusual() ? any("", ".", "1 2") : "4.4.0";
            default:
                return nullable ? null : any("", "x");
        }
    }

    private String transactional() {
        if (!unusual()) return world.prefix() + any("txn-1", "txn-1", "txn-1", "txn-2");
        tags.add("transactional-id");
        return any("", world.prefix() + "txn-unknown");
    }

    private String topic(boolean nullable) {
        if (!unusual()) return world.topic(random.nextInt(api == ApiMessageType.CREATE_TOPICS ? 4 : 3));
        String chosen = any(
            world.topic(3), world.prefix + "missing", "", (world.prefix + "x".repeat(250)).substring(0, 249), (world.prefix + "x".repeat(250)).substring(0, 250),
            world.prefix + "bad name!", ".", "..", "__consumer_offsets", "__cluster_metadata", "__transaction_state", "__share_group_state",
            world.topic(0).replace('-', '.'), world.topic(0).replace('-', '_'), world.prefix + "ü", nullable ? null : "");
        tags.add("topic:" + (chosen == null ? "null" : chosen.startsWith("__") ? chosen : chosen.isEmpty() ? "empty" : "unusual"));
        return chosen;
    }

    private String group() {
        if (!unusual()) return world.prefix + any("group-1", "group-1", "group-2");
        String chosen = any("", world.prefix + "missing", world.prefix + "ä 🚀", world.prefix + "y".repeat(300));
        tags.add(chosen.isEmpty() ? "group:empty" : "group:unusual");
        return chosen;
    }

    private String resource(Map<String, Object> siblings) {
        if (ofAcls()) return Long.valueOf(4).equals(siblings.get("resource_type")) && !unusual() ? "kafka-cluster" : any(world.topic(0), "x", "*", unusual() ? "" : "y");
        if (siblings.get("resource_type") instanceof Long sort) {
            tags.add("resource:" + sort);
            if (sort == 2) return topic(false);
            if (sort == 4) return unusual() ? any("", "1", "x") : "0";
            if (sort == 8) return any("0", "", "1");
            if (sort == 16) return any("", "metrics-1");
            if (sort == 32) return group();
        }
        return any("", "x");
    }

    private byte[] bytes(String name) {
        if (name.equals("metadata") && !unusual()) {
            // A consumer's subscription: version 0, one topic, no data of its own.
            byte[] topic = world.topic(0).getBytes(StandardCharsets.UTF_8);
            return ByteBuffer.allocate(12 + topic.length).putShort((short) 0).putInt(1).putShort((short) topic.length).put(topic).putInt(-1).array();
        }
        return random.nextInt(3) == 0 ? new byte[0] : new byte[] {0, 1, 2, 3};
    }

    private long ofAcl(String name, boolean unusual) {
        boolean creates = api == ApiMessageType.CREATE_ACLS;
        if (unusual) {
            long code = any(0L, 1L, 2L, 99L, -1L);
            if (code == 1 || code == 2 && name.equals("resource_pattern_type")) tags.add("acl:any");
            return code;
        }
        return switch (name) {
            case "resource_type", "resource_type_filter" -> creates ? any(2L, 3L, 4L, 5L, 6L, 7L) : any(1L, 1L, 2L, 3L, 4L);
            case "resource_pattern_type", "pattern_type_filter" -> creates ? any(3L, 4L) : any(1L, 1L, 2L, 3L, 4L);
            case "operation" -> creates ? any(2L, 3L, 4L, 8L, 15L) : any(1L, 1L, 2L, 3L);
            case "permission_type" -> creates ? any(2L, 3L) : any(1L, 1L, 2L, 3L);
            default -> 0L;
        };
    }

    private Object number(String name, Map<String, Object> siblings) {
        boolean unusual = unusual();
        if (ofAcls()) return ofAcl(name, unusual);
        long most = Integer.MAX_VALUE;
        return switch (name) {
            case "acks" -> unusual ? any(0L, 2L, -2L) : any(-1L, 1L);
            case "index", "partition", "partition_index", "partitions", "partition_indexes" -> {
                long number = unusual ? any(-1L, 2L, 99L, most) : any(0L, 0L, 1L);
                if (unusual) tags.add("partition:unusual");
                yield number;
            }
            case "max_wait_ms" -> unusual ? any(-1L, 100L) : any(0L, 50L);
            case "min_bytes" -> unusual ? any(-1L, most) : any(0L, 1L, 100L);
            case "max_bytes", "partition_max_bytes" -> {
                long bytes = unusual ? any(-1L, 0L, 1L, most) : any(1_000_000L, 100L);
                if (bytes < 0) tags.add("bytes:negative");
                yield bytes;
            }
            case "isolation_level" -> {
                if (unusual) tags.add("isolation:unusual");
                yield unusual ? any(2L, -1L) : any(0L, 1L);
            }
            case "session_id" -> unusual ? any(1L, -1L) : any(0L, new Last("session"));
            case "session_epoch" -> unusual ? any(2L, -2L) : any(-1L, 0L, 1L);
            case "current_leader_epoch" -> unusual ? any(1L, 5L, -2L) : any(-1L, 0L);
            case "leader_epoch" -> unusual ? any(-1L, 1L, 5L) : 0L;
            case "fetch_offset" -> unusual ? any(-1L, 100L, Long.MAX_VALUE) : any(0L, 1L, 2L, 3L);
            case "last_fetched_epoch" -> {
                if (unusual) tags.add("last-fetched-epoch");
                yield unusual ? any(0L, 1L, -2L) : -1L;
            }
            case "log_start_offset" -> unusual ? any(0L, 5L) : -1L;
            case "replica_id" -> unusual && api == ApiMessageType.LIST_OFFSETS ? -2L : -1L;
            case "timestamp" -> {
                long timestamp = unusual ? any(-3L, -4L, -5L, -6L, -7L, Long.MAX_VALUE, 0L) : any(-1L, -2L, -3L, world.nowMs() - 7_200_000L, world.nowMs() - 3_600_000L);
                if (timestamp == -3) tags.add("timestamp:largest");
                yield timestamp;
            }
            case "generation_id", "generation_id_or_member_epoch" -> unusual ? any(-1L, 0L, 99L, -2L) : random.nextInt(5) == 0 ? -1L : new Last("generation");
            case "committed_offset" -> unusual ? any(-1L, -2L, Long.MAX_VALUE) : any(0L, 5L);
            case "committed_leader_epoch" -> unusual ? any(5L, -2L) : any(-1L, 0L);
            case "retention_time_ms" -> unusual ? any(0L, 1_000_000L) : -1L;
            case "member_epoch" -> unusual ? any(0L, 5L, -2L) : -1L;
            // Others make internal topics.
            case "key_type" -> unusual ? any(3L, -1L) : 0L;
            case "session_timeout_ms" -> unusual ? any(0L, -1L, 9L, 1_800_001L) : 10_000L;
            case "rebalance_timeout_ms" -> unusual ? any(0L, -1L) : World.REBALANCE_MS;
            case "num_partitions" -> unusual ? any(0L, -2L) : any(-1L, 1L, 2L);
            case "replication_factor" -> unusual ? any(0L, 2L, -2L) : any(1L, -1L);
            case "broker_ids" -> unusual ? any(1L, -1L) : 0L;
            case "count" -> unusual ? any(1L, 0L, -1L) : any(2L, 3L, 4L);
            case "offset" -> unusual ? any(100L, -2L) : any(0L, 1L, 2L, -1L);
            // A later one would fence the coordinator's own markers.
            case "coordinator_epoch" -> new Last("coordinator");
            case "transaction_version" -> any(0L, 1L, 2L);
            case "duration_filter" -> unusual ? any(-2L, 3_600_000L) : any(-1L, 0L);
            case "transaction_timeout_ms" -> unusual ? any(0L, -1L) : 60_000L;
            case "producer_id", "v3_and_below_producer_id", "producer_id_filters" -> transactions ? unusual ? any(-1L, 123L, -2L) : new Last("producer") : unusual ? any(new Last("producer"), 123L, -2L) : -1L;
            case "producer_epoch", "v3_and_below_producer_epoch" -> transactions ? unusual ? any(0L, 1L, 5L, -1L) : new Last("epoch") : unusual ? any(0L, 5L, -2L) : -1L;
            case "resource_type" -> unusual ? any(0L, 1L, 3L, 8L, 99L, -1L) : any(2L, 2L, 2L, 2L, 4L, 16L, 32L);
            case "resource_types" -> unusual ? any(0L, 1L, 99L) : any(2L, 4L, 8L, 16L, 32L);
            case "config_operation" -> {
                if (unusual) tags.add("operation:unusual");
                yield unusual ? any(4L, -1L) : any(0L, 0L, 1L, 2L, 3L);
            }
            case "election_type" -> unusual ? 2L : any(0L, 1L);
            case "max_version_level" -> any(0L, 1L, 2L, 99L, -1L);
            case "broker_id" -> any(99L, -1L);
            case "endpoint_type" -> unusual ? any(0L, 2L, 3L) : 1L;
            case "response_partition_limit" -> unusual ? any(0L, -1L) : any(2000L, 1L);
            case "timeout_ms" -> unusual && api == ApiMessageType.PRODUCE ? any(0L, -1L) : 5_000L;
            case "compression_type" -> unusual ? any(5L, -1L) : any(0L, 1L);
            default -> any(0L, 1L, 2L, 3L);
        };
    }
}
