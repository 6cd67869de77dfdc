import java.io.IOException;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Random;
import java.util.Set;
import java.util.TreeSet;
import org.apache.kafka.common.message.ApiMessageType;

/**
 * What the requests of a sequence are allowed to do: access control lists of everybody at one host, from which they come. The
 * same at both brokers, from the sequence's seed, and gone after it.
 */
final class Rights {
    /** From where rights are given and everything is made ready: that host may do everything. */
    private static final String ADMIN = "127.0.0.1";
    /** Nobody is there: bindings that requests make are of these, and mean nothing. */
    static final List<String> NOWHERE = List.of("192.0.2.1", "192.0.2.0/24", "2001:db8::/32");
    private static final long TOPIC = 2;
    private static final long GROUP = 3;
    private static final long CLUSTER = 4;
    private static final long TRANSACTIONAL_ID = 5;
    private static final long LITERAL = 3;
    private static final long PREFIXED = 4;
    private static final long DENY = 2;
    private static final long ALLOW = 3;
    private static final long ALL = 2;

    private final String host;
    private final List<Object> bindings = new ArrayList<>();
    private final Set<String> known = new TreeSet<>();

    Rights(String host) {
        this.host = host;
    }

    /** Nothing, everything, everything but one thing, or some of it. */
    static Rights draw(long seed, Draw.World world, String host) {
        Rights rights = new Rights(host);
        Random random = new Random(seed * 0x9E3779B97F4A7C15L + 1);
        int sort = random.nextInt(10);
        if (sort == 0) return rights;
        if (sort <= 3) {
            for (long resource : new long[] {TOPIC, GROUP, CLUSTER, TRANSACTIONAL_ID}) rights.add(resource, resource == CLUSTER ? "kafka-cluster" : "*", LITERAL, ALL, ALLOW);
            if (sort > 1) rights.some(random, world, DENY, 1);
            return rights;
        }
        rights.some(random, world, ALLOW, 2 + random.nextInt(12));
        if (random.nextInt(6) == 0) rights.some(random, world, DENY, 1);
        return rights;
    }

    private void some(Random random, Draw.World world, long permission, int count) {
        for (int n = 0; n < count; n++) {
            long[] kinds = {TOPIC, TOPIC, TOPIC, GROUP, GROUP, CLUSTER, CLUSTER, TRANSACTIONAL_ID};
            long resource = kinds[random.nextInt(kinds.length)];
            boolean prefixed = resource != CLUSTER && random.nextInt(3) == 0;
            long[] operations = resource == TOPIC ? new long[] {3, 4, 5, 6, 7, 8, 8, 10, 11} : resource == GROUP ? new long[] {3, 3, 6, 8, 10, 11} : resource == CLUSTER ? new long[] {5, 7, 8, 9, 10, 11, 12} : new long[] {4, 8, 15};
            long operation = random.nextInt(8) == 0 ? ALL : operations[random.nextInt(operations.length)];
            String name = resource == CLUSTER ? "kafka-cluster"
                : prefixed ? random.nextInt(4) == 0 ? world.topic(0).substring(0, world.topic(0).length() - 3) : world.prefix()
                : random.nextInt(8) == 0 ? "*"
                : resource == TOPIC ? world.topic(random.nextInt(4))
                : world.prefix() + (resource == GROUP ? "group-" : "txn-") + (1 + random.nextInt(2));
            add(resource, name, prefixed ? PREFIXED : LITERAL, operation, permission);
        }
    }

    private void add(long resource, String name, long kind, long operation, long permission) {
        if (!known.add(resource + name + kind + "/" + operation + "/" + permission)) return;
        bindings.add(Plan.map("resource_type", resource, "resource_name", name, "resource_pattern_type", kind, "principal", "User:*", "host", host, "operation", operation, "permission_type", permission));
    }

    /** Whoever is at the admin's host may do everything; whoever is elsewhere nothing. */
    static Rights ofAdmin() {
        Rights rights = new Rights(ADMIN);
        // The cluster first: until there is a binding of a resource, everybody may do everything to it.
        rights.add(CLUSTER, "kafka-cluster", LITERAL, ALL, ALLOW);
        for (long resource : new long[] {TOPIC, GROUP, TRANSACTIONAL_ID}) rights.add(resource, "*", LITERAL, ALL, ALLOW);
        return rights;
    }

    /** Gives them, and waits until they are in force. */
    void give(Differ.Asker asker) throws IOException {
        if (bindings.isEmpty()) return;
        Map<String, Object> answer = asker.ask(Plan.fixed(ApiMessageType.CREATE_ACLS, 3, Plan.map("creations", bindings)));
        for (Object one : (List<?>) answer.get("results")) if (!Wire.tree(one).get("error_code").equals(0L)) throw new IOException("no rights are given: " + answer);
        await(asker, bindings.size());
    }

    /** Takes all of them, and what requests have made. */
    void take(Differ.Asker asker) throws IOException {
        List<Object> filters = new ArrayList<>();
        filters.add(filter(host));
        for (String nowhere : NOWHERE) filters.add(filter(nowhere));
        asker.ask(Plan.fixed(ApiMessageType.DELETE_ACLS, 3, Plan.map("filters", filters)));
        await(asker, 0);
    }

    private void await(Differ.Asker asker, int count) throws IOException {
        for (int tries = 0; tries < 1000; tries++) {
            Map<String, Object> answer = asker.ask(Plan.fixed(ApiMessageType.DESCRIBE_ACLS, 3, filter(host)));
            int there = 0;
            for (Object resource : (List<?>) answer.get("resources")) there += ((List<?>) Wire.tree(resource).get("acls")).size();
            if (there == count) return;
            Differ.pause();
        }
        throw new IOException("the rights of " + host + " do not become " + count);
    }

    private static Map<String, Object> filter(String host) {
        return Plan.map("resource_type_filter", 1L, "resource_name_filter", null, "pattern_type_filter", 1L, "principal_filter", null, "host_filter", host, "operation", 1L, "permission_type", 1L);
    }

    @Override
    public String toString() {
        StringBuilder out = new StringBuilder("rights:");
        for (Object one : bindings) {
            Map<String, Object> tree = Wire.tree(one);
            out.append(" [").append(tree.get("permission_type").equals(DENY) ? "deny " : "").append(org.apache.kafka.common.acl.AclOperation.fromCode((byte) (long) (Long) tree.get("operation")))
                .append(" ").append(org.apache.kafka.common.resource.ResourceType.fromCode((byte) (long) (Long) tree.get("resource_type"))).append(" ").append(tree.get("resource_name"))
                .append(tree.get("resource_pattern_type").equals(PREFIXED) ? "…]" : "]");
        }
        return out.toString();
    }
}
