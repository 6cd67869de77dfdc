import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.*;
import java.util.concurrent.*;
import java.util.concurrent.atomic.*;
import java.util.function.*;
import java.util.stream.*;
import org.apache.kafka.clients.admin.*;
import org.apache.kafka.clients.consumer.*;
import org.apache.kafka.clients.producer.*;
import org.apache.kafka.common.*;
import org.apache.kafka.common.config.*;
import org.apache.kafka.common.errors.*;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.serialization.*;


/** The Java client, compiled against each version: records, groups, administration, idempotence. */
public class Compat {
    static final int BROKERS = System.getenv("BOOTSTRAP").split(",").length;
    static final String CTL = System.getenv("BROKER_CTL");
    static final String CLIENT = "java-" + System.getProperty("client.version");
    static Admin admin;

    interface Test { void run() throws Exception; }
    static class Skip extends RuntimeException { Skip(String why) { super(why); } }

    public static void main(String[] args) throws Exception {
        System.out.println("CLIENT kafka-clients|" + System.getProperty("client.version") + "|Java|codecs, acks, groups (range, cooperative, static, dying member, default rebalance delay), admin, idempotence across kill -9, topic recreated|" + CLIENT + "/");
        admin = Admin.create(Access.config());
        test("round-trips", Compat::roundTrips);
        test("large-messages", Compat::largeMessages);
        test("offsets-and-times", Compat::offsetsAndTimes);
        test("group-range", () -> group(RangeAssignor.class.getName()));
        test("group-cooperative", () -> group(CooperativeStickyAssignor.class.getName()));
        test("static-member", Compat::staticMember);
        test("dying-member", Compat::dyingMember);
        test("commit-and-resume", Compat::commitAndResume);
        test("administration", Compat::administration);
        test("configurations that change while brokers run", Compat::dynamicConfigurations);
        // One metaq, and a client that pushes (3.7 and later).
        boolean pushes = ConfigResource.Type.forId((byte) 16) != ConfigResource.Type.UNKNOWN;
        if (pushes && System.getenv("DASHBOARD") != null && BROKERS == 1) test("telemetry-is-shown", Compat::telemetry);
        test("auto-creation", Compat::autoCreation);
        test("topic-recreated", Compat::topicRecreated);
        test("idempotent-kill-9", Compat::idempotent);
        test("group-outlives-restart", Compat::groupOutlivesRestart);
        admin.close();
        System.exit(0);
    }

    static void test(String name, Test test) {
        long start = System.currentTimeMillis();
        String full = CLIENT + "/" + name;
        try {
            test.run();
            System.out.println("PASS " + full);
        } catch (Skip skip) {
            System.out.println("SKIP " + full + ": " + skip.getMessage());
        } catch (Throwable failure) {
            failure.printStackTrace();
            System.out.println("FAIL " + full + ": " + failure.toString().replaceAll("\\s+", " "));
        }
        System.err.println(full + " took " + (System.currentTimeMillis() - start) + " ms");
    }

    static String unique(String name) { return name + "-" + UUID.randomUUID().toString().substring(0, 8); }

    static void equal(Object actual, Object expected) {
        if (!Objects.equals(actual, expected)) {
            String text = "expected " + expected + ", got " + actual;
            throw new AssertionError(text.substring(0, Math.min(400, text.length())));
        }
    }

    static void waitFor(String what, Callable<Boolean> condition) throws Exception {
        long deadline = System.currentTimeMillis() + 40_000;
        while (!condition.call()) {
            if (System.currentTimeMillis() > deadline) throw new AssertionError("waited 40 s for " + what);
            Thread.sleep(20);
        }
    }

    static void broker(String verb) throws Exception {
        if (CTL == null || CTL.isEmpty()) throw new Skip("no control of the broker");
        Process process = new ProcessBuilder("sh", "-c", "\"$0\" \"$1\" >/dev/null 2>&1", CTL, verb).start();
        equal(process.waitFor(), 0);
    }

    static void create(String topic, int partitions) throws Exception {
        admin.createTopics(List.of(new NewTopic(topic, partitions, (short) 1))).all().get();
    }

    static KafkaProducer<byte[], byte[]> producer(Object... settings) {
        Map<String, Object> config = Access.config("linger.ms", 2);
        for (int n = 0; n < settings.length; n += 2) config.put((String) settings[n], settings[n + 1]);
        return new KafkaProducer<>(config, new ByteArraySerializer(), new ByteArraySerializer());
    }

    static KafkaConsumer<byte[], byte[]> consumer(Object... settings) {
        Map<String, Object> config = Access.config("auto.offset.reset", "earliest",
            "enable.auto.commit", false, "session.timeout.ms", 6000, "heartbeat.interval.ms", 300, "metadata.max.age.ms", 2000);
        for (int n = 0; n < settings.length; n += 2) config.put((String) settings[n], settings[n + 1]);
        return new KafkaConsumer<>(config, new ByteArrayDeserializer(), new ByteArrayDeserializer());
    }

    static byte[] bytes(String text) { return text == null ? null : text.getBytes(StandardCharsets.UTF_8); }

    static List<ConsumerRecord<byte[], byte[]>> read(String topic, int count, long offset) throws Exception {
        return read(new TopicPartition(topic, 0), count, offset);
    }

    static List<ConsumerRecord<byte[], byte[]>> read(TopicPartition partition, int count, long offset) throws Exception {
        try (KafkaConsumer<byte[], byte[]> consumer = consumer()) {
            consumer.assign(List.of(partition));
            consumer.seek(partition, offset);
            List<ConsumerRecord<byte[], byte[]>> all = new ArrayList<>();
            waitFor(count + " records", () -> {
                consumer.poll(Duration.ofMillis(100)).forEach(all::add);
                return all.size() >= count;
            });
            return all;
        }
    }

    static String describe(byte[] key, byte[] value, Iterable<Header> headers) {
        StringBuilder out = new StringBuilder(Arrays.toString(key) + "=" + Arrays.toString(value));
        for (Header header : headers) out.append(' ').append(header.key()).append(':').append(Arrays.toString(header.value()));
        return out.toString();
    }

    static List<ProducerRecord<byte[], byte[]>> records(String topic) {
        ProducerRecord<byte[], byte[]> full = new ProducerRecord<>(topic, 0, bytes("k"), bytes("v"));
        full.headers().add("h", bytes("1")).add("h", bytes("2")).add("null", null).add("empty", new byte[0]);
        byte[] binary = new byte[256];
        for (int n = 0; n < 256; n++) binary[n] = (byte) n;
        return List.of(full, new ProducerRecord<>(topic, 0, null, bytes("no key")), new ProducerRecord<>(topic, 0, bytes("no value"), null),
            new ProducerRecord<>(topic, 0, new byte[0], new byte[0]), new ProducerRecord<>(topic, 0, binary, binary));
    }

    static void roundTrips() throws Exception {
        for (String codec : List.of("none", "gzip", "snappy", "lz4", "zstd")) {
            String topic = unique(codec);
            create(topic, 1);
            List<String> expected = new ArrayList<>();
            for (String acks : List.of("all", "1", "0")) {
                try (KafkaProducer<byte[], byte[]> producer = producer("compression.type", codec, "acks", acks, "enable.idempotence", false)) {
                    for (ProducerRecord<byte[], byte[]> record : records(topic)) {
                        producer.send(record).get();
                        expected.add(describe(record.key(), record.value(), record.headers()));
                    }
                }
            }
            List<String> got = new ArrayList<>();
            for (ConsumerRecord<byte[], byte[]> record : read(topic, expected.size(), 0)) got.add(describe(record.key(), record.value(), record.headers()));
            equal(got, expected);
        }
    }

    static void largeMessages() throws Exception {
        String topic = unique("large");
        create(topic, 1);
        try (KafkaProducer<byte[], byte[]> producer = producer("max.request.size", 5_000_000)) {
            producer.send(new ProducerRecord<>(topic, 0, null, new byte[1_000_000])).get();
            try {
                producer.send(new ProducerRecord<>(topic, 0, null, new byte[1_100_000])).get();
                throw new AssertionError("a message above the limit was taken");
            } catch (ExecutionException error) {
                equal(error.getCause().getClass(), RecordTooLargeException.class);
            }
        }
    }

    static void offsetsAndTimes() throws Exception {
        String topic = unique("offsets");
        create(topic, 1);
        long base = System.currentTimeMillis() - 200_000;
        try (KafkaProducer<byte[], byte[]> producer = producer("compression.type", "lz4", "linger.ms", 50)) {
            for (int n = 0; n < 100; n++) producer.send(new ProducerRecord<>(topic, 0, base + n * 1000L, null, bytes("" + n)));
        }
        TopicPartition partition = new TopicPartition(topic, 0);
        equal(new String(read(topic, 1, 42).get(0).value()), "42");
        try (KafkaConsumer<byte[], byte[]> consumer = consumer()) {
            equal(consumer.beginningOffsets(List.of(partition)).get(partition), 0L);
            equal(consumer.endOffsets(List.of(partition)).get(partition), 100L);
            equal(consumer.offsetsForTimes(Map.of(partition, base + 49_500)).get(partition).offset(), 50L);
            equal(consumer.offsetsForTimes(Map.of(partition, base + 900_000)).get(partition), null);
        }
        equal(admin.listOffsets(Map.of(partition, OffsetSpec.earliest())).all().get().get(partition).offset(), 0L);
        equal(admin.listOffsets(Map.of(partition, OffsetSpec.latest())).all().get().get(partition).offset(), 100L);
    }

    /** A consumer in a thread that notes what it got and owns. */
    static class Member implements ConsumerRebalanceListener, Runnable {
        final KafkaConsumer<byte[], byte[]> consumer;
        final Set<Integer> owned = ConcurrentHashMap.newKeySet();
        final Set<Integer> values = ConcurrentHashMap.newKeySet();
        final AtomicInteger rebalances = new AtomicInteger();
        final AtomicReference<Throwable> failure = new AtomicReference<>();
        final Thread thread = new Thread(this);
        volatile boolean stop, freeze;

        Member(String topic, String group, Object... settings) {
            Object[] all = Stream.concat(Stream.of("group.id", group), Stream.of(settings)).toArray();
            consumer = consumer(all);
            consumer.subscribe(List.of(topic), this);
            thread.setDaemon(true);
            thread.start();
        }
        public void onPartitionsAssigned(Collection<TopicPartition> partitions) {
            rebalances.incrementAndGet();
            partitions.forEach(p -> owned.add(p.partition()));
        }
        public void onPartitionsRevoked(Collection<TopicPartition> partitions) { partitions.forEach(p -> owned.remove(p.partition())); }
        public void run() {
            try {
                while (!stop) {
                    ConsumerRecords<byte[], byte[]> records = consumer.poll(Duration.ofMillis(100));
                    records.forEach(r -> values.add(Integer.parseInt(new String(r.value()))));
                    if (!records.isEmpty()) consumer.commitAsync();
                }
                consumer.close();
            } catch (Throwable error) {
                failure.set(error);
            }
        }
        void leave() throws Exception { stop = true; thread.join(20_000); equal(failure.get(), null); }
    }

    static boolean shared(int partitions, Member... members) {
        int sum = 0;
        Set<Integer> all = new HashSet<>();
        for (Member member : members) { sum += member.owned.size(); all.addAll(member.owned); if (member.owned.isEmpty()) return false; }
        return sum == partitions && all.size() == partitions;
    }

    static void group(String assignor) throws Exception {
        String topic = unique("group"), group = unique("group");
        create(topic, 6);
        Object[] settings = {"partition.assignment.strategy", assignor};
        Member first = new Member(topic, group, settings);
        waitFor("all partitions", () -> shared(6, first));
        Member second = new Member(topic, group, settings), third = new Member(topic, group, settings);
        waitFor("a shared topic", () -> shared(6, first, second, third));
        try (KafkaProducer<byte[], byte[]> producer = producer()) {
            for (int n = 0; n < 600; n++) producer.send(new ProducerRecord<>(topic, n % 6, null, bytes("" + n)));
        }
        waitFor("all records", () -> {
            Set<Integer> all = new HashSet<>(first.values);
            all.addAll(second.values);
            all.addAll(third.values);
            return all.size() == 600;
        });
        third.leave();
        second.leave();
        waitFor("the rest to be taken over", () -> shared(6, first));
        ConsumerGroupDescription described = admin.describeConsumerGroups(List.of(group)).all().get().get(group);
        equal(described.members().size(), 1);
        waitFor("all offsets to be committed", () -> admin.listConsumerGroupOffsets(group).partitionsToOffsetAndMetadata().get()
            .values().stream().mapToLong(OffsetAndMetadata::offset).sum() == 600);
        first.leave();
    }

    static void staticMember() throws Exception {
        String topic = unique("static"), group = unique("static");
        create(topic, 4);
        Member stay = new Member(topic, group, "group.instance.id", "stay");
        Member restarted = new Member(topic, group, "group.instance.id", "restart");
        waitFor("a shared topic", () -> shared(4, stay, restarted));
        int before = stay.rebalances.get();
        Set<Integer> owned = new HashSet<>(restarted.owned);
        restarted.leave();
        Member again = new Member(topic, group, "group.instance.id", "restart");
        waitFor("the old partitions", () -> again.owned.equals(owned));
        equal(stay.rebalances.get(), before);
        stay.leave();
        again.leave();
    }

    /** A member that stops polling without leaving loses its partitions after max.poll.interval.ms. */
    static void dyingMember() throws Exception {
        String topic = unique("dying"), group = unique("dying");
        create(topic, 2);
        Member survivor = new Member(topic, group);
        KafkaConsumer<byte[], byte[]> silent = consumer("group.id", group, "max.poll.interval.ms", 7000);
        silent.subscribe(List.of(topic));
        waitFor("a shared topic", () -> { silent.poll(Duration.ofMillis(50)); return silent.assignment().size() == 1 && survivor.owned.size() == 1; });
        waitFor("the partitions of the silent member", () -> survivor.owned.size() == 2);
        survivor.leave();
        silent.close();
    }

    static void commitAndResume() throws Exception {
        String topic = unique("resume"), group = unique("resume");
        create(topic, 1);
        try (KafkaProducer<byte[], byte[]> producer = producer()) {
            for (int n = 0; n < 20; n++) producer.send(new ProducerRecord<>(topic, 0, null, bytes("" + n)));
        }
        TopicPartition partition = new TopicPartition(topic, 0);
        List<String> seen = new ArrayList<>();
        for (int turn = 0; turn < 2; turn++) {
            // The broker's default delay of the first rebalance applies where the broker was not told otherwise.
            try (KafkaConsumer<byte[], byte[]> consumer = consumer("group.id", group, "max.poll.records", 10)) {
                consumer.subscribe(List.of(topic));
                List<String> batch = new ArrayList<>();
                waitFor("ten records", () -> {
                    if (batch.size() < 10) consumer.poll(Duration.ofMillis(100)).forEach(r -> batch.add(new String(r.value())));
                    return batch.size() == 10;
                });
                consumer.commitSync(Map.of(partition, new OffsetAndMetadata(seen.size() + 10, "note")));
                equal(consumer.committed(Set.of(partition)).get(partition).metadata(), "note");
                seen.addAll(batch);
            }
        }
        List<String> expected = new ArrayList<>();
        for (int n = 0; n < 20; n++) expected.add("" + n);
        equal(seen, expected);
    }

    /** Brokers hear of a new topic a moment after its creation was answered. */
    static <T> T known(Callable<T> question) throws Exception {
        AtomicReference<T> answer = new AtomicReference<>();
        waitFor("the topic to be known", () -> {
            try {
                answer.set(question.call());
                return true;
            } catch (ExecutionException error) {
                if (!(error.getCause() instanceof UnknownTopicOrPartitionException)) throw error;
                return false;
            }
        });
        return answer.get();
    }

    static void administration() throws Exception {
        String topic = unique("admin"), group = unique("admin");
        admin.createTopics(List.of(new NewTopic(topic, Optional.of(2), Optional.empty()).configs(Map.of("retention.ms", "7200000")))).all().get();
        try {
            create(topic, 1);
            throw new AssertionError("created twice");
        } catch (ExecutionException error) {
            equal(error.getCause().getClass(), TopicExistsException.class);
        }
        try {
            create("bad name!", 1);
            throw new AssertionError("a bad name was taken");
        } catch (ExecutionException error) {
            equal(error.getCause().getClass(), InvalidTopicException.class);
        }
        ConfigResource resource = new ConfigResource(ConfigResource.Type.TOPIC, topic);
        Callable<org.apache.kafka.clients.admin.Config> config = () -> known(() -> admin.describeConfigs(List.of(resource)).all().get().get(resource));
        equal(config.call().get("retention.ms").value(), "7200000");
        equal(config.call().get("retention.ms").source(), ConfigEntry.ConfigSource.DYNAMIC_TOPIC_CONFIG);
        equal(config.call().get("segment.bytes").isDefault(), true);
        admin.incrementalAlterConfigs(Map.of(resource, List.of(
            new AlterConfigOp(new ConfigEntry("cleanup.policy", "compact"), AlterConfigOp.OpType.APPEND),
            new AlterConfigOp(new ConfigEntry("retention.ms", ""), AlterConfigOp.OpType.DELETE)))).all().get();
        waitFor("the new settings", () -> config.call().get("cleanup.policy").value().equals("delete,compact") && config.call().get("retention.ms").value().equals("604800000"));
        try {
            admin.incrementalAlterConfigs(Map.of(resource, List.of(new AlterConfigOp(new ConfigEntry("retention.ms", "x"), AlterConfigOp.OpType.SET)))).all().get();
            throw new AssertionError("a bad value was taken");
        } catch (ExecutionException error) {
            equal(error.getCause() instanceof InvalidConfigurationException || error.getCause() instanceof InvalidRequestException, true);
        }
        admin.createPartitions(Map.of(topic, NewPartitions.increaseTo(4))).all().get();
        waitFor("four partitions", () -> partitions(topic) == 4);
        try (KafkaProducer<byte[], byte[]> producer = producer()) {
            for (int n = 0; n < 10; n++) producer.send(new ProducerRecord<>(topic, 0, bytes("k"), bytes("" + n)));
        }
        TopicPartition partition = new TopicPartition(topic, 0);
        equal(admin.deleteRecords(Map.of(partition, RecordsToDelete.beforeOffset(4))).all() == null, false);
        waitFor("the log start", () -> admin.listOffsets(Map.of(partition, OffsetSpec.earliest())).all().get().get(partition).offset() == 4);
        equal(read(topic, 6, 4).get(0).offset(), 4L);
        admin.alterConsumerGroupOffsets(group, Map.of(partition, new OffsetAndMetadata(6))).all().get();
        equal(admin.listConsumerGroupOffsets(group).partitionsToOffsetAndMetadata().get().get(partition).offset(), 6L);
        equal(admin.listConsumerGroups().all().get().stream().anyMatch(g -> g.groupId().equals(group)), true);
        admin.deleteConsumerGroupOffsets(group, Set.of(partition)).all().get();
        admin.alterConsumerGroupOffsets(group, Map.of(partition, new OffsetAndMetadata(7))).all().get();
        admin.deleteConsumerGroups(List.of(group)).all().get();
        try {
            admin.deleteConsumerGroups(List.of(unique("none"))).all().get();
            throw new AssertionError("a missing group was deleted");
        } catch (ExecutionException error) {
            equal(error.getCause().getClass(), GroupIdNotFoundException.class);
        }
        Set<Integer> nodes = admin.describeCluster().nodes().get().stream().map(Node::id).collect(Collectors.toSet());
        equal(nodes.size(), BROKERS);
        equal(nodes.contains(admin.describeCluster().controller().get().id()), true);
        int node = leader(partition);
        equal(admin.describeLogDirs(List.of(node)).descriptions().get(node).get().values().stream().anyMatch(d -> d.replicaInfos().containsKey(partition)), true);
        admin.deleteTopics(List.of(topic)).all().get();
        waitFor("the topic to be gone", () -> !admin.listTopics().names().get().contains(topic));
    }

    /** What is set for brokers, groups, client metrics and loggers while they run, with where it is from. */
    static void dynamicConfigurations() throws Exception {
        String topic = unique("dynamic");
        create(topic, 1);
        int node = admin.describeCluster().nodes().get().iterator().next().id();
        ConfigResource broker = new ConfigResource(ConfigResource.Type.BROKER, "" + node);
        ConfigResource all = new ConfigResource(ConfigResource.Type.BROKER, "");
        ConfigResource of = new ConfigResource(ConfigResource.Type.TOPIC, topic);
        set(all, "log.retention.ms", "7300000");
        awaited(broker, "log.retention.ms", "7300000", ConfigEntry.ConfigSource.DYNAMIC_DEFAULT_BROKER_CONFIG);
        set(broker, "log.retention.ms", "7400000");
        awaited(broker, "log.retention.ms", "7400000", ConfigEntry.ConfigSource.DYNAMIC_BROKER_CONFIG);
        unset(broker, "log.retention.ms");
        awaited(broker, "log.retention.ms", "7300000", ConfigEntry.ConfigSource.DYNAMIC_DEFAULT_BROKER_CONFIG);
        awaited(of, "retention.ms", "7300000", ConfigEntry.ConfigSource.DYNAMIC_DEFAULT_BROKER_CONFIG);
        unset(all, "log.retention.ms");
        waitFor("the former value", () -> entry(of, "retention.ms").source() != ConfigEntry.ConfigSource.DYNAMIC_DEFAULT_BROKER_CONFIG);
        refused(broker, "broker.id", "77", InvalidRequestException.class);
        refused(broker, "max.connections", "many", InvalidRequestException.class);

        ConfigResource loggers = new ConfigResource(ConfigResource.Type.BROKER_LOGGER, "" + node);
        String before = entry(loggers, "root").value();
        set(loggers, "root", "WARN");
        equal(entry(loggers, "root").value(), "WARN");
        refused(loggers, "no.such.logger", "WARN", InvalidConfigurationException.class);
        set(loggers, "root", before);

        // Not known to older clients.
        ConfigResource.Type metrics = ConfigResource.Type.forId((byte) 16), groups = ConfigResource.Type.forId((byte) 32);
        if (metrics != ConfigResource.Type.UNKNOWN) {
            ConfigResource subscription = new ConfigResource(metrics, unique("subscription"));
            set(subscription, "metrics", "org.apache.kafka.producer.");
            set(subscription, "interval.ms", "10000");
            waitFor("the subscription", () -> "10000".equals(entry(subscription, "interval.ms").value()));
            refused(subscription, "interval.ms", "1", InvalidRequestException.class);
            unset(subscription, "metrics", "interval.ms");
        }
        if (groups != ConfigResource.Type.UNKNOWN) {
            ConfigResource group = new ConfigResource(groups, unique("configured"));
            set(group, "consumer.session.timeout.ms", "50000");
            waitFor("the group's setting", () -> "50000".equals(entry(group, "consumer.session.timeout.ms").value()));
            refused(group, "consumer.session.timeout.ms", "1", InvalidConfigurationException.class);
            unset(group, "consumer.session.timeout.ms");
        }
        admin.deleteTopics(List.of(topic)).all().get();
    }

    static void set(ConfigResource resource, String key, String value) throws Exception {
        admin.incrementalAlterConfigs(Map.of(resource, List.of(new AlterConfigOp(new ConfigEntry(key, value), AlterConfigOp.OpType.SET)))).all().get();
    }

    static void unset(ConfigResource resource, String... keys) throws Exception {
        List<AlterConfigOp> ops = Arrays.stream(keys).map(key -> new AlterConfigOp(new ConfigEntry(key, ""), AlterConfigOp.OpType.DELETE)).collect(Collectors.toList());
        admin.incrementalAlterConfigs(Map.of(resource, ops)).all().get();
    }

    static ConfigEntry entry(ConfigResource resource, String key) throws Exception {
        ConfigEntry found = known(() -> admin.describeConfigs(List.of(resource)).all().get().get(resource)).get(key);
        return found == null ? new ConfigEntry(key, null) : found;
    }

    static void awaited(ConfigResource resource, String key, String value, ConfigEntry.ConfigSource source) throws Exception {
        waitFor(key + "=" + value + " from " + source, () -> { ConfigEntry found = entry(resource, key); return value.equals(found.value()) && found.source() == source; });
    }

    static void refused(ConfigResource resource, String key, String value, Class<? extends Exception> with) throws Exception {
        try {
            set(resource, key, value);
            throw new AssertionError(key + "=" + value + " was taken");
        } catch (ExecutionException error) {
            equal(error.getCause().getClass(), with);
        }
    }

    /** By way of a consumer, whose API is the same in all versions. */
    static int partitions(String topic) {
        try (KafkaConsumer<byte[], byte[]> consumer = consumer()) {
            return consumer.partitionsFor(topic).size();
        }
    }

    static int leader(TopicPartition partition) {
        try (KafkaConsumer<byte[], byte[]> consumer = consumer()) {
            return consumer.partitionsFor(partition.topic()).stream().filter(p -> p.partition() == partition.partition()).findAny().get().leader().id();
        }
    }

    /** With as many partitions as the broker likes. */
    /** KIP-714: what a client-metrics resource asks for is pushed, and shown beside the client. */
    static void telemetry() throws Exception {
        String name = "pushes-" + UUID.randomUUID();
        ConfigResource resource = new ConfigResource(ConfigResource.Type.forId((byte) 16), name);
        set(resource, "interval.ms", "500");
        set(resource, "metrics", "org.apache.kafka.producer.");
        set(resource, "match", "client_id=" + name + ",client_software_name=apache-kafka-java");
        Map<String, Object> config = Access.config("client.id", name,
            "key.serializer", StringSerializer.class, "value.serializer", StringSerializer.class);
        try (Producer<String, String> producer = new KafkaProducer<>(config)) {
            waitFor("pushed metrics", () -> {
                producer.send(new ProducerRecord<>("telemetry", "v")).get();
                String list = page("/api/clients?filter=" + name);
                java.util.regex.Matcher number = java.util.regex.Pattern.compile("\"number\":(\\d+)").matcher(list);
                while (number.find()) {
                    String client = page("/api/clients/" + number.group(1));
                    if (client.contains("\"name\":\"org.apache.kafka.producer.") && client.contains("\"interval_ms\":500")) return true;
                }
                return false;
            });
        }
        unset(resource, "interval.ms", "metrics", "match");
    }

    static final java.net.http.HttpClient browser = java.net.http.HttpClient.newHttpClient();

    static String page(String path) throws Exception {
        java.net.http.HttpRequest.Builder request = java.net.http.HttpRequest.newBuilder(java.net.URI.create("http://" + System.getenv("DASHBOARD") + path));
        Access.basic().ifPresent(known -> request.header("Authorization", known));
        return browser.send(request.build(), java.net.http.HttpResponse.BodyHandlers.ofString()).body();
    }

    static void autoCreation() throws Exception {
        String topic = unique("auto");
        int partition;
        try (KafkaProducer<byte[], byte[]> producer = producer()) {
            partition = producer.send(new ProducerRecord<>(topic, null, bytes("x"))).get().partition();
        }
        equal(new String(read(new TopicPartition(topic, partition), 1, 0).get(0).value()), "x");
    }

    static void topicRecreated() throws Exception {
        String topic = unique("again");
        create(topic, 1);
        try (KafkaProducer<byte[], byte[]> producer = producer("metadata.max.age.ms", 500);
             KafkaConsumer<byte[], byte[]> consumer = consumer("group.id", unique("again"))) {
            consumer.subscribe(List.of(topic));
            producer.send(new ProducerRecord<>(topic, 0, null, bytes("old"))).get();
            waitFor("the old record", () -> !consumer.poll(Duration.ofMillis(100)).isEmpty());
            admin.deleteTopics(List.of(topic)).all().get();
            waitFor("the name to be free", () -> { try { create(topic, 1); return true; } catch (ExecutionException taken) { return false; } });
            waitFor("a delivery", () -> { try { producer.send(new ProducerRecord<>(topic, 0, null, bytes("new"))).get(); return true; } catch (ExecutionException early) { return false; } });
            // The consumer goes on at its old position: records go on coming until one lies there.
            waitFor("a new record", () -> {
                producer.send(new ProducerRecord<>(topic, 0, null, bytes("new"))).get();
                for (ConsumerRecord<byte[], byte[]> record : consumer.poll(Duration.ofMillis(200))) if (new String(record.value()).equals("new")) return true;
                return false;
            });
        }
    }

    static void idempotent() throws Exception {
        String topic = unique("idempotent");
        create(topic, 2);
        AtomicReference<Throwable> failure = new AtomicReference<>();
        AtomicInteger delivered = new AtomicInteger();
        try (KafkaProducer<byte[], byte[]> producer = producer("enable.idempotence", true, "acks", "all", "batch.size", 2000, "linger.ms", 1, "retries", Integer.MAX_VALUE)) {
            for (int n = 0; n < 20_000; n++) {
                producer.send(new ProducerRecord<>(topic, n % 2, null, bytes("" + n / 2)), (metadata, error) -> {
                    if (error != null) failure.set(error);
                    delivered.incrementAndGet();
                });
                if (n == 10_000) {
                    waitFor("some deliveries", () -> delivered.get() > 500);
                    broker("kill9");
                    broker("start");
                }
            }
        }
        equal(failure.get(), null);
        equal(delivered.get(), 20_000);
        List<ConsumerRecord<byte[], byte[]>> all = read(topic, 10_000, 0);
        for (int n = 0; n < 10_000; n++) equal(new String(all.get(n).value()), "" + n);
        TopicPartition other = new TopicPartition(topic, 1);
        equal(admin.listOffsets(Map.of(other, OffsetSpec.latest())).all().get().get(other).offset(), 10_000L);
    }

    static void groupOutlivesRestart() throws Exception {
        String topic = unique("outlives"), group = unique("outlives");
        create(topic, 2);
        Member first = new Member(topic, group, "session.timeout.ms", 20_000), second = new Member(topic, group, "session.timeout.ms", 20_000);
        waitFor("a shared topic", () -> shared(2, first, second));
        broker("restart");
        try (KafkaProducer<byte[], byte[]> producer = producer()) {
            for (int n = 0; n < 100; n++) producer.send(new ProducerRecord<>(topic, n % 2, null, bytes("" + n)));
        }
        waitFor("all records", () -> first.values.size() + second.values.size() == 100);
        first.leave();
        second.leave();
    }
}
