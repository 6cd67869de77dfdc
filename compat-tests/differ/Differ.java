import java.io.IOException;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.TreeMap;
import java.util.TreeSet;
import java.util.stream.Collectors;
import org.apache.kafka.common.message.ApiMessageType;

/**
 * The same requests to metaq and to Apache Kafka, and where their answers differ.
 *
 *     Differ METAQ KAFKA ALLOWED [--seed N] [--count N] [--seconds S] [--apis A,B] [--sequence SEED] [--from HOST]
 *
 * Sequences of up to five requests over topics and groups of their own, made from a seed by Kafka's message schemas.
 * A sequence ends with its first difference that is not allowed, and is tried again then: what does not come again is said
 * and not counted. Of each sort of difference the first is shortened to the requests that it needs and printed.
 *
 * With --from requests come from that host, which has rights drawn for each sequence ({@link Rights}); both brokers have an
 * authorizer then, and everything is allowed until there are access control lists.
 */
public final class Differ {
    private final Link metaq;
    private final Link kafka;
    /** The same connections, or where there are rights those of who has all of them. */
    private final Link metaqAdmin;
    private final Link kafkaAdmin;
    /** Whose rights are drawn, if anybody's. */
    private final String from;
    private final Allowed allowed;
    private final TreeMap<ApiMessageType, Plan.Range> ranges = new TreeMap<>();
    private final Map<String, Integer> sorts = new LinkedHashMap<>();
    private final Map<String, Long> examples = new HashMap<>();
    private final Map<String, Integer> asked = new TreeMap<>();
    private final Map<String, Integer> differing = new TreeMap<>();
    private long worlds = System.currentTimeMillis() / 100 % 10_000_000;

    private Differ(String metaq, String kafka, Allowed allowed, String from) {
        this.metaq = new Link(metaq, from);
        this.kafka = new Link(kafka, from);
        this.metaqAdmin = from == null ? this.metaq : new Link(metaq, null);
        this.kafkaAdmin = from == null ? this.kafka : new Link(kafka, null);
        this.from = from;
        this.allowed = allowed;
    }

    public static void main(String[] args) throws Exception {
        Map<String, String> options = new HashMap<>();
        for (int n = 3; n + 1 < args.length; n += 2) options.put(args[n], args[n + 1]);
        if (args.length < 3 || args.length % 2 == 0 || !Set.of("--seed", "--count", "--seconds", "--apis", "--sequence", "--from").containsAll(options.keySet())) {
            System.err.println("Differ METAQ KAFKA ALLOWED [--seed N] [--count N] [--seconds S] [--apis A,B] [--sequence SEED] [--from HOST]");
            System.exit(2);
        }
        Differ differ = new Differ(args[0], args[1], new Allowed(Path.of(args[2])), options.get("--from"));
        differ.meet();
        Set<String> apis = Arrays.stream(options.getOrDefault("--apis", "").split(",")).filter(one -> !one.isEmpty()).collect(Collectors.toSet());
        Plan plan = new Plan(differ.ranges, apis);
        if (options.containsKey("--sequence")) {
            differ.sequence(plan, Long.parseLong(options.get("--sequence")), true);
        } else {
            long seed = Long.parseLong(options.getOrDefault("--seed", "1"));
            long count = Long.parseLong(options.getOrDefault("--count", options.containsKey("--seconds") ? "1000000000" : "100"));
            long end = System.nanoTime() + Long.parseLong(options.getOrDefault("--seconds", "1000000")) * 1_000_000_000L;
            long n = 0;
            for (; n < count && System.nanoTime() < end; n++) differ.sequence(plan, seed * 1_000_000 + n, false);
            System.out.println("# " + n + " sequences from seed " + seed);
        }
        System.exit(differ.report() ? 0 : 1);
    }

    /** The versions that both serve; and both their coordinators are there. */
    private void meet() throws IOException {
        if (from != null) for (Link link : admins()) Rights.ofAdmin().give(asker(link));
        Map<Long, long[]> ours = versions(metaqAdmin);
        Map<Long, long[]> theirs = versions(kafkaAdmin);
        ours.forEach((key, range) -> {
            long[] other = theirs.get(key);
            if (other == null) return;
            ApiMessageType api = ApiMessageType.fromApiKey(key.shortValue());
            // Produce is advertised from version 0, and served from where the schemas begin.
            long from = Math.max(Math.max(range[0], other[0]), api.lowestSupportedVersion());
            ranges.put(api, new Plan.Range((short) from, (short) Math.min(range[1], other[1]), (short) Math.min(range[0], other[0]), (short) Math.max(range[1], other[1])));
        });
        for (Link link : admins()) {
            for (int tries = 0; ; tries++) {
                Map<String, Object> answer = ask(link, Plan.fixed(ApiMessageType.OFFSET_FETCH, 5, Plan.map("group_id", "first", "topics", null)));
                if (answer.get("error_code").equals(0L)) break;
                if (tries > 200) throw new IOException("no coordinator: " + answer);
                ask(link, Plan.fixed(ApiMessageType.FIND_COORDINATOR, 2, Plan.map("key", "first", "key_type", 0L)));
                pause();
            }
            Plan.Step producer = Plan.fixed(ApiMessageType.INIT_PRODUCER_ID, 0, Plan.map("transactional_id", null, "transaction_timeout_ms", 60_000L));
            for (int tries = 0; tries < 200 && !ask(link, producer).get("error_code").equals(0L); tries++) pause();
            Plan.Step transactional = Plan.fixed(ApiMessageType.INIT_PRODUCER_ID, 0, Plan.map("transactional_id", "first", "transaction_timeout_ms", 60_000L));
            for (int tries = 0; !ask(link, transactional).get("error_code").equals(0L); tries++) {
                if (tries > 2000) throw new IOException("no coordinator of transactions");
                ask(link, Plan.fixed(ApiMessageType.FIND_COORDINATOR, 2, Plan.map("key", "first", "key_type", 1L)));
                pause();
            }
        }
    }

    private Map<Long, long[]> versions(Link link) throws IOException {
        Map<Long, long[]> result = new HashMap<>();
        for (Object one : (List<?>) ask(link, Plan.fixed(ApiMessageType.API_VERSIONS, 0, Map.of())).get("api_keys")) {
            Map<String, Object> tree = Wire.tree(one);
            result.put((Long) tree.get("api_key"), new long[] {(Long) tree.get("min_version"), (Long) tree.get("max_version")});
        }
        return result;
    }

    /** Asks one broker. */
    interface Asker {
        Map<String, Object> ask(Plan.Step step) throws IOException;
    }

    private Asker asker(Link link) {
        return step -> ask(link, step);
    }

    private List<Link> admins() {
        return List.of(metaqAdmin, kafkaAdmin);
    }

    private Rights rights(long seed, Draw.World world) {
        return from == null ? null : Rights.draw(seed, world, from);
    }

    static void pause() {
        try {
            Thread.sleep(5);
        } catch (InterruptedException error) {
            throw new IllegalStateException(error);
        }
    }

    private Map<String, Object> ask(Link link, Plan.Step step) throws IOException {
        return ask(link, step, new Names("", 0));
    }

    private Map<String, Object> ask(Link link, Plan.Step step, Names names) throws IOException {
        link.send(step, names);
        Link.Outcome outcome = link.receive(step.api(), step.version());
        if (!outcome.answered()) throw new IOException(step.api().name + ": " + outcome.tree());
        names.learn(outcome.tree());
        return Wire.tree(outcome.tree());
    }

    /** What one run of a plan came to: the differences of its last step, none where all was well. */
    private record Result(List<Plan.Step> steps, Rights rights, Object metaq, Object kafka, List<Diff.Found> found) {
        String sort() {
            Diff.Found chosen = found.stream().filter(one -> one.path().endsWith("error_code")).findFirst().orElse(found.get(0));
            return steps.get(steps.size() - 1).api().name + " " + chosen.kind() + ": metaq " + brief(chosen.metaq()) + ", Kafka " + brief(chosen.kafka());
        }

        private static String brief(String value) {
            String text = value.replaceAll("df-\\S+", "NAME").replaceAll("0x[0-9a-f]+", "0x…").replaceAll("\\d{3,}", "N");
            return text.length() > 90 ? text.substring(0, 90) + "…" : text;
        }
    }

    private void sequence(Plan plan, long seed, boolean verbose) throws IOException {
        Draw.World world = world();
        Result result = run(plan.of(seed, world), rights(seed, world), world, verbose, true);
        if (result.found().isEmpty()) return;
        String sort = result.sort();
        Draw.World again = world();
        if (run(plan.of(seed, again), rights(seed, again), again, false, false).found().isEmpty()) {
            // Something took longer than it does.
            System.out.println("# once, and not again, --sequence " + seed + ": " + sort);
            return;
        }
        differing.merge(result.steps().get(result.steps().size() - 1).api().name, 1, Integer::sum);
        if (sorts.merge(sort, 1, Integer::sum) > 1) return;
        examples.put(sort, seed);
        print(shortened(plan, seed, result), seed);
    }

    private Draw.World world() {
        return new Draw.World("df" + ++worlds + "-", System.currentTimeMillis());
    }

    /** The same difference with as few steps before it as will do. */
    private Result shortened(Plan plan, long seed, Result whole) throws IOException {
        Result best = whole;
        List<Integer> kept = new ArrayList<>();
        for (int n = 0; n < whole.steps().size(); n++) kept.add(n);
        for (int n = whole.steps().size() - 2; n >= 0; n--) {
            List<Integer> fewer = new ArrayList<>(kept);
            fewer.remove((Integer) n);
            Draw.World world = world();
            List<Plan.Step> all = plan.of(seed, world);
            Result result = run(fewer.stream().map(all::get).toList(), rights(seed, world), world, false, false);
            if (result.found().isEmpty() || !result.sort().equals(whole.sort())) continue;
            best = result;
            kept = fewer;
        }
        return best;
    }

    private void print(Result result, long seed) {
        System.out.println("== " + result.sort() + " (--sequence " + seed + ")");
        if (result.rights() != null) System.out.println("-- " + result.rights());
        for (Plan.Step step : result.steps()) System.out.println("-- " + step);
        for (Object answer : new Object[] {result.metaq(), result.kafka()}) {
            StringBuilder out = new StringBuilder(answer == result.metaq() ? "-- metaq: " : "-- Kafka: ");
            Wire.print(answer, "  ", out);
            System.out.println(out.length() > 6000 ? out.substring(0, 6000) + "…" : out);
        }
        for (Diff.Found one : result.found()) {
            String line = "   " + one.path() + ": metaq " + one.metaq() + ", Kafka " + one.kafka();
            System.out.println(line.length() > 600 ? line.substring(0, 600) + "…" : line);
        }
        System.out.flush();
    }

    private Result run(List<Plan.Step> steps, Rights rights, Draw.World world, boolean verbose, boolean counted) throws IOException {
        Names ours = new Names(world.prefix(), 1);
        Names theirs = new Names(world.prefix(), 0);
        try {
            topics(metaqAdmin, world, ours);
            topics(kafkaAdmin, world, theirs);
            if (rights != null) for (Link link : admins()) rights.give(asker(link));
            List<Plan.Step> done = new ArrayList<>();
            for (Plan.Step step : steps) {
                done.add(step);
                if (counted) asked.merge(step.api().name, 1, Integer::sum);
                boolean prepares = step.tags().contains("prepares");
                Link one = prepares ? metaqAdmin : metaq;
                Link other = prepares ? kafkaAdmin : kafka;
                step(step, one, ours);
                step(step, other, theirs);
                Object metaqs = outcome(step, one, ours);
                Object kafkas = outcome(step, other, theirs);
                boolean[] ended = new boolean[1];
                List<Diff.Found> found = Diff.between(metaqs, kafkas).stream()
                    .map(difference -> difference.path().isEmpty() ? new Diff.Found("<answer>", difference.metaq(), difference.kafka()) : difference)
                    .filter(difference -> !allowed.allows(step.api().name, step.version(), difference, step.tags(), ended)).toList();
                if (verbose) print(new Result(List.of(step), rights, metaqs, kafkas, found.isEmpty() ? List.of(new Diff.Found("no difference", "", "")) : found), 0);
                if (!found.isEmpty()) return new Result(done, rights, metaqs, kafkas, found);
                if (ended[0] || allowed.leavesOtherState(step.api().name, step.version(), step.tags())) break;
                settle(step, world, done.size());
            }
            return new Result(done, rights, null, null, List.of());
        } finally {
            metaq.close();
            kafka.close();
            if (rights != null) for (Link link : admins()) rights.take(asker(link));
            cleanUp(metaqAdmin, world, ours);
            cleanUp(kafkaAdmin, world, theirs);
        }
    }

    private static void step(Plan.Step step, Link link, Names names) throws IOException {
        link.send(step, names);
    }

    private static Object outcome(Plan.Step step, Link link, Names names) throws IOException {
        if (step.tags().contains("acks-0")) return link.silence().tree();
        // An unknown version of ApiVersions is answered in the form of version 0.
        boolean unknown = step.api() == ApiMessageType.API_VERSIONS && step.version() != step.schema();
        Object tree = link.receive(step.api(), unknown ? 0 : step.schema()).tree();
        names.learn(tree);
        return names.canonical("", tree);
    }

    /** Two partitions; compacted; with the broker's timestamps. All can be used afterwards. */
    private void topics(Link link, Draw.World world, Names names) throws IOException {
        List<Object> all = new ArrayList<>();
        for (int n = 0; n < 3; n++) {
            List<Object> configs = n == 0 ? List.of() : List.of(Plan.map("name", n == 1 ? "cleanup.policy" : "message.timestamp.type", "value", n == 1 ? "compact" : "LogAppendTime"));
            all.add(Plan.map("name", world.topic(n), "num_partitions", n == 0 ? 2L : 1L, "replication_factor", 1L, "assignments", List.of(), "configs", configs));
        }
        create(link, all, names);
    }

    private void create(Link link, List<Object> topics, Names names) throws IOException {
        ask(link, Plan.fixed(ApiMessageType.CREATE_TOPICS, 7, Plan.map("topics", topics, "timeout_ms", 5_000L, "validate_only", false)), names);
        List<Object> asked = new ArrayList<>();
        for (Object topic : topics) {
            List<Object> partitions = new ArrayList<>();
            for (long n = 0; n < (Long) Wire.tree(topic).get("num_partitions"); n++) partitions.add(Plan.map("partition_index", n, "timestamp", -1L));
            asked.add(Plan.map("name", Wire.tree(topic).get("name"), "partitions", partitions));
        }
        for (int tries = 0; tries < 400; tries++) {
            Map<String, Object> answer = ask(link, Plan.fixed(ApiMessageType.LIST_OFFSETS, 1, Plan.map("replica_id", -1L, "topics", asked)), names);
            if (((List<?>) answer.get("topics")).stream().allMatch(topic -> ((List<?>) Wire.tree(topic).get("partitions")).stream()
                .allMatch(one -> Wire.tree(one).get("error_code").equals(0L)))) return;
            pause();
        }
        throw new IOException("the topics have no leader");
    }

    /** Kafka's brokers apply what its controller has answered later, in order: so once a topic that is made now is there, all before it has been applied. */
    private void settle(Plan.Step step, Draw.World world, int number) throws IOException {
        if (Plan.OF_TRANSACTIONS.contains(step.api().name) || step.api() == ApiMessageType.INIT_PRODUCER_ID) for (Link link : admins()) markersWritten(link, world);
        if (!Set.of("CreateTopics", "DeleteTopics", "CreatePartitions", "AlterConfigs", "IncrementalAlterConfigs", "CreateAcls", "DeleteAcls").contains(step.api().name)) return;
        List<Object> topic = List.of(Plan.map("name", world.prefix() + "settled-" + number, "num_partitions", 1L, "replication_factor", 1L, "assignments", List.of(), "configs", List.of()));
        for (Link link : admins()) create(link, topic, new Names("", 0));
    }

    /** Transactions that end are over. */
    private void markersWritten(Link link, Draw.World world) throws IOException {
        Plan.Step describe = Plan.fixed(ApiMessageType.DESCRIBE_TRANSACTIONS, 0, Plan.map("transactional_ids", List.of(world.prefix() + "txn-1", world.prefix() + "txn-2")));
        for (int tries = 0; tries < 400; tries++) {
            List<?> found = (List<?>) ask(link, describe).get("transaction_states");
            if (found.stream().noneMatch(one -> Wire.tree(one).get("transaction_state").toString().startsWith("Prepare"))) return;
            pause();
        }
    }

    private void cleanUp(Link link, Draw.World world, Names names) throws IOException {
        link.close();
        List<Object> members = new ArrayList<>();
        for (int n = 0; n < 3; n++) if (!names.member(n).isEmpty()) members.add(Plan.map("member_id", names.member(n), "group_instance_id", null));
        List<Object> groups = List.of(world.prefix() + "group-1", world.prefix() + "group-2");
        for (Object group : members.isEmpty() ? List.of() : groups) ask(link, Plan.fixed(ApiMessageType.LEAVE_GROUP, 3, Plan.map("group_id", group, "members", members)));
        ask(link, Plan.fixed(ApiMessageType.DELETE_GROUPS, 1, Plan.map("groups_names", groups)));
        Map<String, Object> known = ask(link, Plan.fixed(ApiMessageType.METADATA, 4, Plan.map("topics", null, "allow_auto_topic_creation", false)));
        List<Object> topics = new ArrayList<>();
        for (Object topic : (List<?>) known.get("topics")) if (((String) Wire.tree(topic).get("name")).startsWith(world.prefix().replaceAll("-$", ""))) topics.add(Wire.tree(topic).get("name"));
        ask(link, Plan.fixed(ApiMessageType.DELETE_TOPICS, 4, Plan.map("topic_names", topics, "timeout_ms", 5_000L)));
        link.close();
    }

    private boolean report() {
        asked.forEach((api, count) -> {
            String first = sorts.keySet().stream().filter(sort -> sort.startsWith(api + " ")).findFirst().orElse("");
            if (differing.containsKey(api)) System.out.println("FAIL differ/" + api + ": " + differing.get(api) + " differences, --sequence " + examples.get(first) + ": " + first);
            else System.out.println("PASS differ/" + api);
        });
        sorts.entrySet().stream().sorted((one, other) -> other.getValue() - one.getValue())
            .forEach(sort -> System.out.println("# " + sort.getValue() + " times, --sequence " + examples.get(sort.getKey()) + ": " + sort.getKey()));
        allowed.unmatched(asked.keySet()).forEach(line -> System.out.println("# allowed, and not met: " + line));
        return sorts.isEmpty();
    }
}
