import java.io.*;
import java.nio.file.*;
import java.time.Duration;
import java.util.*;
import java.util.concurrent.*;
import java.util.function.*;
import java.util.stream.*;
import org.apache.kafka.clients.admin.*;
import org.apache.kafka.clients.consumer.*;
import org.apache.kafka.clients.producer.*;
import org.apache.kafka.common.*;
import org.apache.kafka.common.config.ConfigResource;
import org.apache.kafka.common.serialization.*;
import org.apache.kafka.common.utils.Bytes;
import org.apache.kafka.streams.*;
import org.apache.kafka.streams.errors.StreamsUncaughtExceptionHandler.StreamThreadExceptionResponse;
import org.apache.kafka.streams.kstream.*;
import org.apache.kafka.streams.state.*;

/** Kafka Streams with group.protocol=streams: tasks over threads and processes, standby replicas, exactly once, crashes, tools. */
public class Streams {
    static final String BROKER_CTL = System.getenv("BROKER_CTL");
    static final int BROKERS = System.getenv("BOOTSTRAP").split(",").length;
    /** Where there are several, so that none of them is needed. */
    static final short REPLICAS = (short) BROKERS;
    static final String WORK = System.getenv("WORK");
    static final String RUN = UUID.randomUUID().toString().substring(0, 8);
    static Admin admin;
    static Producer<String, String> producer;

    interface Test { void run() throws Exception; }

    public static void main(String[] args) throws Exception {
        System.out.println("CLIENT Kafka Streams|4.4.0|Java|group.protocol=streams: tasks, standby replicas, exactly once, kill -9, kafka-streams-groups|streams/");
        admin = Admin.create(Access.config());
        producer = new KafkaProducer<>(Access.config(), new StringSerializer(), new StringSerializer());
        test(args, "tasks-over-threads-and-processes", Streams::tasks_over_threads);
        test(args, "a-process-that-leaves-is-replaced", Streams::leaving);
        test(args, "standby-replicas", Streams::standbys);
        test(args, "exactly-once-through-kill", Streams::exactly_once);
        if (BROKERS > 1) test(args, "one-broker-after-the-other-killed", Streams::killed_brokers);
        test(args, "a-source-topic-that-comes-later", Streams::missing_source);
        test(args, "topics-that-do-not-fit", Streams::not_copartitioned);
        test(args, "kafka-streams-groups", Streams::tool);
        Runtime.getRuntime().halt(0);
    }

    static void test(String[] args, String name, Test test) {
        if (args.length > 0 && !List.of(args).contains(name)) return;
        long start = System.currentTimeMillis();
        try {
            test.run();
            System.out.println("PASS streams/" + name);
        } catch (Throwable failure) {
            failure.printStackTrace();
            String text = failure.toString().replaceAll("\\s+", " ");
            System.out.println("FAIL streams/" + name + ": " + text.substring(0, Math.min(500, text.length())));
        } finally {
            close_all();
        }
        System.err.println("streams/" + name + " took " + (System.currentTimeMillis() - start) + " ms");
    }

    static void check(boolean holds, Object what) { if (!holds) throw new AssertionError(String.valueOf(what)); }

    static void until(String what, Callable<Boolean> holds) throws Exception {
        long end = System.currentTimeMillis() + 60_000;
        Object last = null;
        while (System.currentTimeMillis() < end) {
            try { if (holds.call()) return; } catch (ExecutionException | AssertionError failure) { last = failure; }
            Thread.sleep(50);
        }
        throw new AssertionError("not within 60 s: " + what + (last == null ? "" : " (" + last + ")"));
    }

    static void topic(String name, int partitions) throws Exception {
        NewTopic asked = new NewTopic(name, partitions, REPLICAS).configs(REPLICAS > 1 ? Map.of("min.insync.replicas", "2") : Map.of());
        admin.createTopics(List.of(asked)).all().get();
    }

    static final List<KafkaStreams> running = new ArrayList<>();
    static final List<Throwable> failures = Collections.synchronizedList(new ArrayList<>());

    static void close_all() {
        running.parallelStream().forEach(streams -> streams.close(Duration.ofSeconds(10)));
        running.clear();
        failures.clear();
    }

    static Topology counter(String in, String out) {
        var builder = new StreamsBuilder();
        builder.<String, String>stream(in)
            .groupBy((key, word) -> word, Grouped.as("words"))
            .count(Materialized.<String, Long, KeyValueStore<Bytes, byte[]>>as("counts"))
            .toStream()
            .mapValues((word, count) -> Long.toString(count))
            .to(out);
        return builder.build();
    }

    static KafkaStreams start(String application, int process, int threads, Topology topology, String guarantee) {
        var config = new Properties();
        config.put("application.id", application);
        config.putAll(Access.config());
        config.put("group.protocol", "streams");
        config.put("replication.factor", (int) REPLICAS);
        config.put("state.dir", WORK + "/state-" + application + "-" + process);
        config.put("default.key.serde", Serdes.StringSerde.class);
        config.put("default.value.serde", Serdes.StringSerde.class);
        config.put("num.stream.threads", threads);
        config.put("commit.interval.ms", 200);
        config.put("processing.guarantee", guarantee);
        config.put("application.server", "localhost:" + (7000 + process));
        config.put("statestore.cache.max.bytes", 0);
        config.put("main.consumer.auto.offset.reset", "earliest");
        config.put("main.consumer.metadata.max.age.ms", 1000);
        var streams = new KafkaStreams(topology, config);
        streams.setUncaughtExceptionHandler(failure -> { failures.add(failure); return StreamThreadExceptionResponse.REPLACE_THREAD; });
        running.add(streams);
        streams.start();
        return streams;
    }

    /** Words, of which there are eleven different ones, each so often. */
    static void send(String topic, int each) {
        for (int n = 0; n < each; n++) for (int word = 0; word < 11; word++) producer.send(new ProducerRecord<>(topic, Integer.toString(n), "w" + word));
        producer.flush();
    }

    static List<Map.Entry<String, Long>> read(String topic) {
        var config = Access.config("isolation.level", "read_committed", "auto.offset.reset", "earliest");
        try (var consumer = new KafkaConsumer<>(config, new StringDeserializer(), new StringDeserializer())) {
            var partitions = consumer.partitionsFor(topic).stream().map(p -> new TopicPartition(topic, p.partition())).toList();
            consumer.assign(partitions);
            consumer.seekToBeginning(partitions);
            var ends = consumer.endOffsets(partitions);
            var found = new ArrayList<Map.Entry<String, Long>>();
            long end = System.currentTimeMillis() + 10_000;
            while (partitions.stream().anyMatch(p -> consumer.position(p) < ends.get(p)) && System.currentTimeMillis() < end)
                for (var record : consumer.poll(Duration.ofMillis(100))) found.add(Map.entry(record.key(), Long.parseLong(record.value())));
            return found;
        }
    }

    static Map<String, Long> last(String topic) {
        var last = new TreeMap<String, Long>();
        for (var entry : read(topic)) last.merge(entry.getKey(), entry.getValue(), Math::max);
        return last;
    }

    static boolean counted(String topic, long each) {
        var last = last(topic);
        return last.size() == 11 && last.values().stream().allMatch(count -> count == each);
    }

    static StreamsGroupDescription describe(String group) throws Exception {
        return admin.describeStreamsGroups(List.of(group)).all().get().get(group);
    }

    static List<String> tasks(Collection<StreamsGroupMemberAssignment.TaskIds> ids) {
        return ids.stream().flatMap(id -> id.partitions().stream().map(partition -> id.subtopologyId() + "_" + partition)).sorted().toList();
    }

    static List<String> active(StreamsGroupDescription group) {
        return group.members().stream().flatMap(member -> tasks(member.assignment().activeTasks()).stream()).sorted().toList();
    }

    static boolean settled(String group, int members, int tasks) throws Exception {
        var found = describe(group);
        var active = active(found);
        check(new HashSet<>(active).size() == active.size(), "two run a task: " + active);
        return found.groupState() == GroupState.STABLE && found.members().size() == members && active.size() == tasks;
    }

    static void tasks_over_threads() throws Exception {
        String in = "in-a-" + RUN, out = "out-a-" + RUN, app = "app-a-" + RUN;
        topic(in, 4);
        topic(out, 2);
        send(in, 50);
        start(app, 1, 2, counter(in, out), "at_least_once");
        start(app, 2, 2, counter(in, out), "at_least_once");
        // The part that reads, and the part that counts: four tasks each.
        until("settled", () -> settled(app, 4, 8));
        var group = describe(app);
        for (var member : group.members()) check(tasks(member.assignment().activeTasks()).size() == 2, group.members());
        check(group.topologyEpoch() == 0 && group.subtopologies().size() == 2, group);
        until("counted", () -> counted(out, 50));
        var names = admin.listTopics().names().get();
        check(names.contains(app + "-words-repartition") && names.contains(app + "-counts-changelog"), names);
        var internal = admin.describeTopics(List.of(app + "-words-repartition", app + "-counts-changelog")).allTopicNames().get();
        check(internal.values().stream().allMatch(topic -> topic.partitions().size() == 4), internal);
        var config = new ConfigResource(ConfigResource.Type.TOPIC, app + "-counts-changelog");
        check(admin.describeConfigs(List.of(config)).all().get().get(config).get("cleanup.policy").value().equals("compact"), "not compacted");
        // Each knows where the state of the other one can be asked for.
        for (var streams : running) until("endpoints", () -> streams.metadataForAllStreamsClients().stream().filter(client -> !client.topicPartitions().isEmpty()).count() == 2);
        check(failures.isEmpty(), failures);
    }

    static void leaving() throws Exception {
        String in = "in-b-" + RUN, out = "out-b-" + RUN, app = "app-b-" + RUN;
        topic(in, 4);
        topic(out, 2);
        var first = start(app, 1, 1, counter(in, out), "at_least_once");
        start(app, 2, 1, counter(in, out), "at_least_once");
        until("settled", () -> settled(app, 2, 8));
        send(in, 20);
        until("counted", () -> counted(out, 20));
        first.close(Duration.ofSeconds(10));
        send(in, 20);
        until("the other one has all", () -> settled(app, 1, 8));
        until("counted by the other one", () -> counted(out, 40));
        start(app, 3, 1, counter(in, out), "at_least_once");
        until("shared again", () -> settled(app, 2, 8));
        var group = describe(app);
        for (var member : group.members()) check(tasks(member.assignment().activeTasks()).size() == 4, group.members());
        send(in, 20);
        until("counted by both", () -> counted(out, 60));
        check(failures.isEmpty(), failures);
    }

    static void standbys() throws Exception {
        String in = "in-c-" + RUN, out = "out-c-" + RUN, app = "app-c-" + RUN;
        topic(in, 3);
        topic(out, 1);
        send(in, 30);
        start(app, 1, 1, counter(in, out), "at_least_once");
        start(app, 2, 1, counter(in, out), "at_least_once");
        until("settled", () -> settled(app, 2, 6));
        var resource = new ConfigResource(ConfigResource.Type.GROUP, app);
        admin.incrementalAlterConfigs(Map.of(resource, List.of(new AlterConfigOp(new ConfigEntry("streams.num.standby.replicas", "1"), AlterConfigOp.OpType.SET)))).all().get();
        until("every counting task has a standby", () -> {
            var group = describe(app);
            var standby = group.members().stream().flatMap(member -> tasks(member.assignment().standbyTasks()).stream()).sorted().toList();
            for (var member : group.members()) {
                var both = new HashSet<>(tasks(member.assignment().activeTasks()));
                both.retainAll(tasks(member.assignment().standbyTasks()));
                check(both.isEmpty(), "runs and stands by for " + both);
            }
            return settled(app, 2, 6) && standby.equals(List.of("1_0", "1_1", "1_2"));
        });
        until("counted", () -> counted(out, 30));
        check(failures.isEmpty(), failures);
    }

    static void exactly_once() throws Exception {
        String in = "in-d-" + RUN, out = "out-d-" + RUN, app = "app-d-" + RUN;
        topic(in, 2);
        topic(out, 1);
        start(app, 1, 1, counter(in, out), "exactly_once_v2");
        var second = start(app, 2, 1, counter(in, out), "exactly_once_v2");
        until("settled", () -> settled(app, 2, 4));
        send(in, 30);
        until("counted", () -> counted(out, 30));
        if (BROKER_CTL != null && !BROKER_CTL.isEmpty()) {
            ctl("kill9");
            ctl("start");
        }
        send(in, 30);
        until("counted after the broker's death", () -> counted(out, 60));
        second.close(Duration.ofSeconds(10));
        send(in, 30);
        until("counted by one", () -> counted(out, 90));
        each_count_once(out);
    }

    static void each_count_once(String out) {
        var each = new HashMap<String, Long>();
        for (var entry : read(out)) {
            check(entry.getValue() == each.getOrDefault(entry.getKey(), 0L) + 1, entry + " after " + each.get(entry.getKey()));
            each.put(entry.getKey(), entry.getValue());
        }
    }

    /** Exactly once without the group's coordinator, and without a leader of what it reads. */
    static void killed_brokers() throws Exception {
        String in = "in-h-" + RUN, out = "out-h-" + RUN, app = "app-h-" + RUN;
        topic(in, 3);
        topic(out, 1);
        start(app, 1, 1, counter(in, out), "exactly_once_v2");
        start(app, 2, 1, counter(in, out), "exactly_once_v2");
        until("settled", () -> settled(app, 2, 6));
        send(in, 10);
        until("counted", () -> counted(out, 10));
        int coordinator = describe(app).coordinator().id();
        int other = admin.describeTopics(List.of(in)).allTopicNames().get().get(in).partitions().stream().map(one -> one.leader().id())
            .filter(id -> id != coordinator).findFirst().get();
        int each = 10;
        for (int broker : List.of(coordinator, other)) {
            ctl("kill9", "" + broker);
            send(in, 10);
            int with = each += 10;
            until("counted without broker " + broker, () -> counted(out, with));
            check(describe(app).coordinator().id() != broker, "it coordinates still");
            ctl("start", "" + broker);
            until("settled", () -> settled(app, 2, 6));
        }
        send(in, 10);
        int all = each + 10;
        until("counted by all", () -> counted(out, all));
        each_count_once(out);
    }

    /** Does something to the broker, to all brokers of a cluster, or to those named. */
    static void ctl(String... words) throws Exception {
        var command = new ArrayList<>(List.of(BROKER_CTL));
        command.addAll(List.of(words));
        check(new ProcessBuilder(command).redirectErrorStream(true).redirectOutput(ProcessBuilder.Redirect.DISCARD).start().waitFor() == 0, command);
    }

    static void missing_source() throws Exception {
        String in = "in-e-" + RUN, out = "out-e-" + RUN, app = "app-e-" + RUN;
        topic(out, 1);
        start(app, 1, 1, counter(in, out), "at_least_once");
        until("not ready", () -> describe(app).groupState() == GroupState.NOT_READY);
        topic(in, 2);
        send(in, 10);
        until("settled", () -> settled(app, 1, 4));
        until("counted", () -> counted(out, 10));
    }

    static void not_copartitioned() throws Exception {
        String left = "left-" + RUN, right = "right-" + RUN, out = "out-f-" + RUN, app = "app-f-" + RUN;
        topic(left, 2);
        topic(right, 3);
        topic(out, 1);
        var builder = new StreamsBuilder();
        KTable<String, String> table = builder.table(right);
        builder.<String, String>stream(left).join(table, (a, b) -> a + b).to(out);
        start(app, 1, 1, builder.build(), "at_least_once");
        until("told why", () -> failures.stream().anyMatch(failure -> String.valueOf(failure).contains("do not have the same number of partitions")));
        var found = describe(app);
        check(found.groupState() == GroupState.NOT_READY || found.groupState() == GroupState.EMPTY, found);
    }

    /** A tool of Kafka's in a process of its own: what it printed. */
    static String tool(String... arguments) throws Exception {
        var command = new ArrayList<>(List.of("java", "-cp", System.getProperty("java.class.path"), "org.apache.kafka.tools.streams.StreamsGroupCommand"));
        command.addAll(Access.options(arguments));
        var process = new ProcessBuilder(command).redirectErrorStream(true).start();
        var text = new String(process.getInputStream().readAllBytes());
        check(process.waitFor() == 0, text);
        return text;
    }

    static void tool() throws Exception {
        String in = "in-g-" + RUN, out = "out-g-" + RUN, app = "app-g-" + RUN;
        topic(in, 2);
        topic(out, 1);
        send(in, 10);
        start(app, 1, 1, counter(in, out), "at_least_once");
        until("settled", () -> settled(app, 1, 4));
        until("counted", () -> counted(out, 10));
        check(tool("--list").contains(app), "not listed");
        var state = tool("--describe", "--state", "--group", app);
        check(state.contains("Stable"), state);
        var members = tool("--describe", "--members", "--verbose", "--group", app);
        check(members.contains("ACTIVE:") && members.contains("1:[0,1]"), members);
        until("lag told", () -> tool("--describe", "--offsets", "--group", app).lines().anyMatch(line -> line.contains(in) && line.trim().endsWith("0")));
        close_all();
        until("empty", () -> describe(app).groupState() == GroupState.EMPTY);
        var reset = tool("--reset-offsets", "--group", app, "--all-input-topics", "--to-earliest", "--execute");
        check(reset.contains(in), reset);
        var deleted = tool("--delete", "--group", app);
        check(admin.listGroups().all().get().stream().noneMatch(group -> group.groupId().equals(app)), deleted);
    }
}
