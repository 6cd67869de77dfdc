import java.io.*;
import java.time.Duration;
import java.util.*;
import java.util.concurrent.*;
import java.util.concurrent.atomic.*;
import java.util.stream.*;
import org.apache.kafka.clients.admin.*;
import org.apache.kafka.clients.consumer.*;
import org.apache.kafka.clients.producer.*;
import org.apache.kafka.common.*;
import org.apache.kafka.common.config.ConfigResource;
import org.apache.kafka.common.serialization.*;

/** Share groups with Kafka's own share consumer: records shared by many, acknowledged one by one, released, rejected, renewed, taken over from the dead. */
public class Shares {
    static final String BROKER_CTL = System.getenv("BROKER_CTL");
    static final int BROKERS = System.getenv("BOOTSTRAP").split(",").length;
    static final String RUN = UUID.randomUUID().toString().substring(0, 8);
    static final Duration SHORT = Duration.ofMillis(200);
    static Admin admin;
    static Producer<String, String> producer;

    interface Test { void run() throws Exception; }

    public static void main(String[] args) throws Exception {
        System.out.println("CLIENT kafka-clients|4.4.0|Java|share groups of KIP-932: acknowledge, release, reject, renew, crashes, dead letters, kafka-share-groups|shares/");
        admin = Admin.create(Access.config());
        producer = new KafkaProducer<>(Access.config(), new StringSerializer(), new StringSerializer());
        test(args, "implicit", Shares::implicit);
        test(args, "explicit", Shares::explicit);
        test(args, "release-and-reject", Shares::release_and_reject);
        test(args, "delivered-too-often", Shares::delivered_too_often);
        test(args, "renew", Shares::renew);
        test(args, "record-limit", Shares::record_limit);
        test(args, "closed-member", Shares::closed_member);
        test(args, "many-members", Shares::many_members);
        test(args, "read-committed", Shares::read_committed);
        test(args, "tools", Shares::tools);
        test(args, "killed-broker", Shares::killed_broker);
        test(args, "dead-letters", DeadLetters::copied);
        if (BROKERS > 1) {
            test(args, "one-broker-after-the-other-killed", Failover::run);
            test(args, "dead-letters-while-brokers-are-killed", DeadLetters::run);
        }
        Runtime.getRuntime().halt(0);
    }

    static void test(String[] args, String name, Test test) {
        if (args.length > 0 && !List.of(args).contains(name)) return;
        long start = System.currentTimeMillis();
        try {
            test.run();
            System.out.println("PASS shares/" + name);
        } catch (Throwable failure) {
            failure.printStackTrace();
            String text = failure.toString().replaceAll("\\s+", " ");
            System.out.println("FAIL shares/" + name + ": " + text.substring(0, Math.min(500, text.length())));
        }
        System.err.println("shares/" + name + " took " + (System.currentTimeMillis() - start) + " ms");
    }

    static void check(boolean holds, Object what) { if (!holds) throw new AssertionError(String.valueOf(what)); }

    static String topic(String name, int partitions) throws Exception {
        String topic = name + "-" + RUN;
        admin.createTopics(List.of(new NewTopic(topic, partitions, (short) 1))).all().get();
        return topic;
    }

    /** A topic that goes on without any one of three brokers. */
    static void replicated(String topic, int partitions, Map<String, String> settings) throws Exception {
        Map<String, String> all = new HashMap<>(Map.of("min.insync.replicas", "2"));
        all.putAll(settings);
        admin.createTopics(List.of(new NewTopic(topic, partitions, (short) 3).configs(all))).all().get();
    }

    static int leader(String topic, int partition) throws Exception {
        return admin.describeTopics(List.of(topic)).allTopicNames().get().get(topic).partitions().get(partition).leader().id();
    }

    /** A share group that begins with the first record, and has these settings. */
    static String group(String name, Map<String, String> settings) throws Exception {
        String group = name + "-" + RUN;
        Map<String, String> all = new HashMap<>(Map.of("share.auto.offset.reset", "earliest"));
        all.putAll(settings);
        List<AlterConfigOp> ops = all.entrySet().stream().map(one -> new AlterConfigOp(new ConfigEntry(one.getKey(), one.getValue()), AlterConfigOp.OpType.SET)).toList();
        admin.incrementalAlterConfigs(Map.of(new ConfigResource(ConfigResource.Type.GROUP, group), ops)).all().get();
        return group;
    }

    static void produce(String topic, int partitions, int from, int to) throws Exception {
        List<Future<RecordMetadata>> sent = new ArrayList<>();
        for (int n = from; n < to; n++) sent.add(producer.send(new ProducerRecord<>(topic, n % partitions, null, "" + n)));
        producer.flush();
        for (Future<RecordMetadata> one : sent) one.get();
    }

    static KafkaShareConsumer<String, String> consumer(String group, String mode, Map<String, Object> more) {
        Map<String, Object> config = Access.config("group.id", group, "share.acknowledgement.mode", mode);
        config.putAll(more);
        return new KafkaShareConsumer<>(config, new StringDeserializer(), new StringDeserializer());
    }

    /** Polls until so many records came, or time is over. */
    static List<ConsumerRecord<String, String>> poll(KafkaShareConsumer<String, String> consumer, int count, long ms) {
        List<ConsumerRecord<String, String>> got = new ArrayList<>();
        long end = System.currentTimeMillis() + ms;
        while (got.size() < count && System.currentTimeMillis() < end) consumer.poll(SHORT).forEach(got::add);
        return got;
    }

    static Set<String> values(Collection<ConsumerRecord<String, String>> records) {
        return records.stream().map(ConsumerRecord::value).collect(Collectors.toCollection(TreeSet::new));
    }

    static Set<String> numbers(int from, int to) {
        return IntStream.range(from, to).mapToObj(n -> "" + n).collect(Collectors.toCollection(TreeSet::new));
    }

    static long done(String group, String topic, int partition) throws Exception {
        Map<TopicPartition, SharePartitionOffsetInfo> all = admin.listShareGroupOffsets(Map.of(group, new ListShareGroupOffsetsSpec())).partitionsToOffsetInfo(group).get();
        SharePartitionOffsetInfo info = all.get(new TopicPartition(topic, partition));
        return info == null ? -1 : info.startOffset();
    }

    /** Everything there is, is done. Where Kafka begins counting may lie behind that. */
    static void allDone(String group, String topic, int partition) throws Exception {
        await(() -> {
            Map<TopicPartition, SharePartitionOffsetInfo> all = admin.listShareGroupOffsets(Map.of(group, new ListShareGroupOffsetsSpec())).partitionsToOffsetInfo(group).get();
            SharePartitionOffsetInfo info = all.get(new TopicPartition(topic, partition));
            return info != null && info.lag().isPresent() && info.lag().get() == 0;
        }, "all of partition " + partition + " done");
    }

    static void await(Callable<Boolean> holds, String what) throws Exception {
        long end = System.currentTimeMillis() + 40_000;
        while (!holds.call()) {
            check(System.currentTimeMillis() < end, "not in time: " + what);
            Thread.sleep(50);
        }
    }

    static void implicit() throws Exception {
        String topic = topic("implicit", 3), group = group("implicit", Map.of());
        produce(topic, 3, 0, 3000);
        try (KafkaShareConsumer<String, String> consumer = consumer(group, "implicit", Map.of())) {
            consumer.subscribe(List.of(topic));
            List<ConsumerRecord<String, String>> got = poll(consumer, 3000, 20_000);
            check(got.size() == 3000 && values(got).equals(numbers(0, 3000)), got.size() + " records");
            check(got.stream().allMatch(record -> record.deliveryCount().get() == 1), "delivery counts");
            consumer.commitSync();
            produce(topic, 3, 3000, 3100);
            got = poll(consumer, 100, 10_000);
            check(values(got).equals(numbers(3000, 3100)), got.size() + " later records");
            consumer.commitSync();
        }
        for (int partition = 0; partition < 3; partition++) {
            allDone(group, topic, partition);
        }
        try (KafkaShareConsumer<String, String> consumer = consumer(group, "implicit", Map.of())) {
            consumer.subscribe(List.of(topic));
            check(poll(consumer, 1, 2000).isEmpty(), "nothing is left");
        }
    }

    static void explicit() throws Exception {
        String topic = topic("explicit", 1), group = group("explicit", Map.of());
        produce(topic, 1, 0, 500);
        try (KafkaShareConsumer<String, String> consumer = consumer(group, "explicit", Map.of())) {
            consumer.subscribe(List.of(topic));
            Set<String> all = new TreeSet<>();
            AtomicInteger acknowledged = new AtomicInteger();
            AtomicReference<Exception> failed = new AtomicReference<>();
            consumer.setAcknowledgementCommitCallback((offsets, error) -> {
                if (error != null) failed.set(error);
                offsets.values().forEach(some -> acknowledged.addAndGet(some.size()));
            });
            long end = System.currentTimeMillis() + 20_000;
            while (all.size() < 500 && System.currentTimeMillis() < end) {
                for (ConsumerRecord<String, String> record : consumer.poll(SHORT)) {
                    check(all.add(record.value()), record.value() + " twice");
                    consumer.acknowledge(record, AcknowledgeType.ACCEPT);
                }
                consumer.commitSync().values().forEach(error -> check(error.isEmpty(), error));
            }
            check(all.equals(numbers(0, 500)), all.size() + " records");
            check(failed.get() == null, failed.get());
            consumer.poll(SHORT);
            check(acknowledged.get() == 500, acknowledged + " acknowledged");
        }
        allDone(group, topic, 0);
    }

    static void release_and_reject() throws Exception {
        String topic = topic("release", 1), group = group("release", Map.of());
        produce(topic, 1, 0, 100);
        Map<String, Integer> counts = new TreeMap<>();
        Set<String> accepted = new TreeSet<>();
        try (KafkaShareConsumer<String, String> consumer = consumer(group, "explicit", Map.of())) {
            consumer.subscribe(List.of(topic));
            long end = System.currentTimeMillis() + 20_000;
            while (accepted.size() < 90 && System.currentTimeMillis() < end) {
                for (ConsumerRecord<String, String> record : consumer.poll(SHORT)) {
                    int n = Integer.parseInt(record.value()), count = record.deliveryCount().get();
                    int before = counts.getOrDefault(record.value(), 0);
                    check(count == before + 1, record.value() + " came as " + count + " after " + before);
                    counts.put(record.value(), count);
                    // Each tenth is never wanted, each third only the second time.
                    if (n % 10 == 0) consumer.acknowledge(record, AcknowledgeType.REJECT);
                    else if (n % 3 == 0 && count == 1) consumer.acknowledge(record, AcknowledgeType.RELEASE);
                    else {
                        consumer.acknowledge(record, AcknowledgeType.ACCEPT);
                        check(accepted.add(record.value()), "accepted twice");
                    }
                }
                consumer.commitSync().values().forEach(error -> check(error.isEmpty(), error));
            }
            check(accepted.size() == 90, accepted.size() + " accepted");
            check(poll(consumer, 1, 1000).isEmpty(), "nothing is left");
        }
        for (int n = 0; n < 100; n++) check(counts.get("" + n) == (n % 10 != 0 && n % 3 == 0 ? 2 : 1), n + ": " + counts.get("" + n));
        allDone(group, topic, 0);
    }

    static void delivered_too_often() throws Exception {
        String topic = topic("poison", 1), group = group("poison", Map.of("share.delivery.count.limit", "3"));
        produce(topic, 1, 0, 20);
        int poisoned = 0;
        Set<String> accepted = new TreeSet<>();
        try (KafkaShareConsumer<String, String> consumer = consumer(group, "explicit", Map.of())) {
            consumer.subscribe(List.of(topic));
            long end = System.currentTimeMillis() + 15_000;
            while (System.currentTimeMillis() < end && (accepted.size() < 19 || poisoned < 3)) {
                for (ConsumerRecord<String, String> record : consumer.poll(SHORT)) {
                    boolean poison = record.value().equals("7");
                    if (poison) check(record.deliveryCount().get() == ++poisoned, "count " + record.deliveryCount());
                    else accepted.add(record.value());
                    consumer.acknowledge(record, poison ? AcknowledgeType.RELEASE : AcknowledgeType.ACCEPT);
                }
                consumer.commitSync();
            }
            check(poisoned == 3 && accepted.size() == 19, poisoned + " times, " + accepted.size() + " accepted");
            check(poll(consumer, 1, 1500).isEmpty(), "it came again");
        }
        allDone(group, topic, 0);
    }

    static void renew() throws Exception {
        String topic = topic("renew", 1), group = group("renew", Map.of("share.record.lock.duration.ms", "15000"));
        produce(topic, 1, 0, 1);
        try (KafkaShareConsumer<String, String> consumer = consumer(group, "explicit", Map.of());
             KafkaShareConsumer<String, String> other = consumer(group, "implicit", Map.of())) {
            consumer.subscribe(List.of(topic));
            ConsumerRecord<String, String> record = poll(consumer, 1, 10_000).get(0);
            other.subscribe(List.of(topic));
            long began = System.currentTimeMillis();
            int others = 0;
            while (System.currentTimeMillis() - began < 22_000) {
                consumer.acknowledge(record, AcknowledgeType.RENEW);
                consumer.commitSync().values().forEach(error -> check(error.isEmpty(), error));
                for (ConsumerRecord<String, String> again : consumer.poll(SHORT)) record = again;
                others += other.poll(Duration.ofSeconds(4)).count();
            }
            check(others == 0, "another member got it");
            consumer.acknowledge(record, AcknowledgeType.ACCEPT);
            consumer.commitSync().values().forEach(error -> check(error.isEmpty(), error));
        }
        allDone(group, topic, 0);
    }

    static void record_limit() throws Exception {
        String topic = topic("limit", 1), group = group("limit", Map.of());
        produce(topic, 1, 0, 100);
        Map<String, Object> strict = Map.of("share.acquire.mode", "record_limit", "max.poll.records", 7);
        try (KafkaShareConsumer<String, String> consumer = consumer(group, "implicit", strict)) {
            consumer.subscribe(List.of(topic));
            Set<String> all = new TreeSet<>();
            long end = System.currentTimeMillis() + 20_000;
            while (all.size() < 100 && System.currentTimeMillis() < end) {
                ConsumerRecords<String, String> some = consumer.poll(SHORT);
                check(some.count() <= 7, some.count() + " at once");
                some.forEach(record -> check(all.add(record.value()), "twice"));
            }
            check(all.size() == 100, all.size() + " records");
        }
    }

    static void closed_member() throws Exception {
        String topic = topic("closed", 1), group = group("closed", Map.of());
        produce(topic, 1, 0, 50);
        KafkaShareConsumer<String, String> first = consumer(group, "explicit", Map.of());
        first.subscribe(List.of(topic));
        check(poll(first, 50, 10_000).size() == 50, "the first has them");
        try (KafkaShareConsumer<String, String> second = consumer(group, "implicit", Map.of())) {
            second.subscribe(List.of(topic));
            check(poll(second, 1, 1500).isEmpty(), "they are the first one's");
            first.close();
            long began = System.currentTimeMillis();
            List<ConsumerRecord<String, String>> got = poll(second, 50, 10_000);
            check(got.size() == 50, got.size() + " records");
            check(got.stream().allMatch(record -> record.deliveryCount().get() == 2), "delivery counts");
            System.err.println("taken over after " + (System.currentTimeMillis() - began) + " ms");
        }
    }

    /** Thirty-two members, some of which close in the middle of it. */
    static void many_members() throws Exception {
        String topic = topic("many", 4), group = group("many", Map.of());
        int total = 40_000;
        Map<String, AtomicInteger> accepted = new ConcurrentHashMap<>();
        AtomicBoolean stop = new AtomicBoolean();
        AtomicReference<Throwable> failure = new AtomicReference<>();
        List<Thread> threads = new ArrayList<>();
        for (int n = 0; n < 32; n++) {
            int own = n;
            Thread thread = new Thread(() -> {
                try (KafkaShareConsumer<String, String> consumer = consumer(group, own % 2 == 0 ? "implicit" : "explicit", Map.of("max.poll.records", 200))) {
                    consumer.subscribe(List.of(topic));
                    Map<TopicIdPartition, Map<Long, String>> open = new HashMap<>();
                    int polls = 0;
                    while (!stop.get()) {
                        ConsumerRecords<String, String> records = consumer.poll(SHORT);
                        if (own % 2 == 1) for (ConsumerRecord<String, String> record : records) consumer.acknowledge(record, AcknowledgeType.ACCEPT);
                        boolean good = consumer.commitSync().values().stream().allMatch(Optional::isEmpty);
                        check(good, "refused");
                        records.forEach(record -> accepted.computeIfAbsent(record.value(), key -> new AtomicInteger()).incrementAndGet());
                        // Each fourth goes early.
                        if (own % 4 == 3 && ++polls > 20) return;
                    }
                } catch (Throwable error) {
                    failure.compareAndSet(null, error);
                }
            });
            thread.start();
            threads.add(thread);
        }
        long began = System.currentTimeMillis();
        produce(topic, 4, 0, total);
        await(() -> accepted.size() == total || failure.get() != null, "only some came");
        System.err.println(total + " records in " + (System.currentTimeMillis() - began) + " ms");
        stop.set(true);
        for (Thread thread : threads) thread.join(20_000);
        if (failure.get() != null) throw new AssertionError(failure.get());
        check(accepted.size() == total, accepted.size() + " of " + total);
        long twice = accepted.values().stream().filter(count -> count.get() > 1).count();
        check(twice == 0, twice + " were accepted twice");
        for (int partition = 0; partition < 4; partition++) allDone(group, topic, partition);
    }

    static void read_committed() throws Exception {
        String topic = topic("committed", 1), group = group("committed", Map.of("share.isolation.level", "read_committed"));
        Map<String, Object> config = Access.config("transactional.id", "shares-" + RUN);
        try (KafkaProducer<String, String> transactional = new KafkaProducer<>(config, new StringSerializer(), new StringSerializer());
             KafkaShareConsumer<String, String> consumer = consumer(group, "implicit", Map.of())) {
            transactional.initTransactions();
            for (int n = 0; n < 10; n++) {
                transactional.beginTransaction();
                for (int i = 0; i < 5; i++) transactional.send(new ProducerRecord<>(topic, "" + n)).get();
                if (n % 2 == 0) transactional.commitTransaction(); else transactional.abortTransaction();
            }
            transactional.beginTransaction();
            transactional.send(new ProducerRecord<>(topic, "open")).get();
            consumer.subscribe(List.of(topic));
            List<ConsumerRecord<String, String>> got = poll(consumer, 25, 10_000);
            got.addAll(poll(consumer, 1, 1000));
            check(got.size() == 25 && values(got).equals(Set.of("0", "2", "4", "6", "8")), got.size() + " " + values(got));
            transactional.commitTransaction();
            check(values(poll(consumer, 1, 10_000)).equals(Set.of("open")), "what was open");
        }
    }

    static String tool(String... args) throws Exception {
        List<String> command = new ArrayList<>(List.of(ProcessHandle.current().info().command().orElse("java"), "-Xmx128m", "-cp",
            System.getProperty("java.class.path"), "org.apache.kafka.tools.consumer.group.ShareGroupCommand"));
        command.addAll(Access.options(args));
        Process process = new ProcessBuilder(command).redirectErrorStream(true).start();
        String out = new String(process.getInputStream().readAllBytes());
        process.waitFor();
        return out;
    }

    static void tools() throws Exception {
        String topic = topic("tools", 2), group = group("tools", Map.of());
        produce(topic, 2, 0, 100);
        try (KafkaShareConsumer<String, String> consumer = consumer(group, "implicit", Map.of("client.id", "shown"))) {
            consumer.subscribe(List.of(topic));
            check(poll(consumer, 100, 10_000).size() == 100, "records");
            consumer.commitSync();
            produce(topic, 2, 100, 110);
            String out = tool("--list");
            check(out.contains(group), out);
            out = tool("--describe", "--group", group, "--members", "--verbose");
            check(out.contains("shown") && out.contains(topic), out);
            out = tool("--describe", "--group", group, "--state");
            check(out.contains("Stable"), out);
            out = tool("--describe", "--group", group);
            check(out.lines().anyMatch(line -> line.contains(topic) && line.trim().endsWith(" 5")), out);
            out = tool("--delete", "--group", group);
            check(out.toLowerCase().contains("not empty"), out);
            ShareGroupDescription described = admin.describeShareGroups(List.of(group)).all().get().get(group);
            check(described.members().size() == 1, described);
            poll(consumer, 10, 10_000);
        }
        await(() -> admin.describeShareGroups(List.of(group)).all().get().get(group).groupState() == GroupState.EMPTY, "empty");
        String out = tool("--reset-offsets", "--to-earliest", "--topic", topic, "--group", group, "--execute");
        check(!out.contains("Error"), out);
        await(() -> done(group, topic, 0) == 0 && done(group, topic, 1) == 0, "reset: " + out);
        try (KafkaShareConsumer<String, String> consumer = consumer(group, "implicit", Map.of())) {
            consumer.subscribe(List.of(topic));
            check(poll(consumer, 110, 10_000).size() == 110, "all come again");
        }
        await(() -> admin.describeShareGroups(List.of(group)).all().get().get(group).groupState() == GroupState.EMPTY, "empty");
        out = tool("--delete-offsets", "--group", group, "--topic", topic);
        check(!out.contains("Error"), out);
        check(done(group, topic, 0) == -1, "offsets are gone");
        out = tool("--delete", "--group", group);
        check(out.contains("successful"), out);
        check(!tool("--list").contains(group), "the group is gone");
    }

    /** Does something to the broker, to all brokers of a cluster, or to those named. */
    static void ctl(String verb, int... brokers) throws Exception {
        List<String> command = new ArrayList<>(List.of(BROKER_CTL, verb));
        for (int broker : brokers) command.add("" + broker);
        Process process = new ProcessBuilder(command).inheritIO().start();
        check(process.waitFor() == 0, command);
    }

    /** What was told as accepted is never seen again, also after a kill. */
    static void killed_broker() throws Exception {
        if (BROKER_CTL == null || BROKER_CTL.isEmpty()) return;
        String topic = topic("killed", 1), group = group("killed", Map.of());
        produce(topic, 1, 0, 1000);
        Set<String> accepted = new TreeSet<>(), seen = new TreeSet<>();
        try (KafkaShareConsumer<String, String> consumer = consumer(group, "explicit", Map.of("max.poll.records", 50, "share.acquire.mode", "record_limit"))) {
            consumer.subscribe(List.of(topic));
            boolean killed = false;
            long end = System.currentTimeMillis() + 60_000;
            while (accepted.size() < 1000 && System.currentTimeMillis() < end) {
                List<String> some = new ArrayList<>();
                for (ConsumerRecord<String, String> record : consumer.poll(SHORT)) {
                    check(!accepted.contains(record.value()), record.value() + " came after it was accepted");
                    some.add(record.value());
                    consumer.acknowledge(record, AcknowledgeType.ACCEPT);
                }
                if (!killed && accepted.size() >= 300) {
                    ctl("kill9");
                    ctl("start");
                    killed = true;
                }
                if (consumer.commitSync().values().stream().allMatch(Optional::isEmpty)) accepted.addAll(some);
            }
            check(accepted.size() == 1000, accepted.size() + " accepted");
        }
    }
}
