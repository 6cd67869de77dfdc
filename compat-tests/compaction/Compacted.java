import java.nio.charset.StandardCharsets;
import java.nio.file.*;
import java.time.Duration;
import java.util.*;
import org.apache.kafka.clients.admin.*;
import org.apache.kafka.clients.consumer.*;
import org.apache.kafka.clients.producer.*;
import org.apache.kafka.common.*;
import org.apache.kafka.common.serialization.*;

/**
 * Writes the same keyed records, tombstones and transactions into a compacted topic and into a twin that is not, and tells
 * what a reader of committed records from the start ends up with.
 */
public class Compacted {
    /** Compacted with tombstones that stay, compacted with ones that go, not compacted. */
    static final String KEPT = "compacted", SHORT = "compacted-short", TWIN = "twin";
    static final List<String> ALL = List.of(KEPT, SHORT, TWIN);
    static final int KEYS = 200, COUNT = 6000, SHORT_MS = 2000;

    public static void main(String[] args) throws Exception {
        switch (args[0]) {
            case "create" -> create();
            case "write" -> write();
            case "roll" -> roll();
            case "last" -> last(args[1]);
            case "goes-on" -> goesOn(Path.of(args[1]), args[2]);
            default -> throw new IllegalArgumentException(args[0]);
        }
        System.exit(0);
    }

    static void create() throws Exception {
        Map<String, String> compacted = Map.of("segment.bytes", "1048576", "cleanup.policy", "compact", "min.cleanable.dirty.ratio", "0.01");
        Map<String, String> quick = new HashMap<>(compacted);
        quick.put("delete.retention.ms", "" + SHORT_MS);
        try (Admin admin = Admin.create(Access.config())) {
            admin.createTopics(List.of(
                new NewTopic(KEPT, 1, (short) 1).configs(compacted),
                new NewTopic(SHORT, 1, (short) 1).configs(quick),
                new NewTopic(TWIN, 1, (short) 1).configs(Map.of("segment.bytes", "1048576", "retention.ms", "-1")))).all().get();
        }
    }

    static KafkaProducer<String, String> producer(String transactionalId, String codec) {
        Map<String, Object> config = Access.config("enable.idempotence", true, "linger.ms", 2, "batch.size", 20000, "compression.type", codec);
        if (transactionalId != null) config.put("transactional.id", transactionalId);
        KafkaProducer<String, String> producer = new KafkaProducer<>(config, new StringSerializer(), new StringSerializer());
        if (transactionalId != null) producer.initTransactions();
        return producer;
    }

    static String value(String what, int n) {
        return what + " " + n + " " + "v".repeat(300 + n % 900);
    }

    static void send(KafkaProducer<String, String> producer, String key, String value) {
        for (String topic : ALL) producer.send(new ProducerRecord<>(topic, key, value), (metadata, error) -> {
            if (error != null && !(error instanceof org.apache.kafka.common.errors.TransactionAbortedException)) {
                error.printStackTrace();
                System.exit(1);
            }
        });
    }

    /** In each turn records of all three kinds are interleaved: outside of transactions, committed, aborted. */
    static void write() throws Exception {
        Random random = new Random(11);
        try (var plain = producer(null, "none"); var commits = producer("commits", "lz4"); var aborts = producer("aborts", "zstd")) {
            for (int n = 0; n < COUNT; ) {
                commits.beginTransaction();
                aborts.beginTransaction();
                for (int m = 0; m < 40; m++, n++) {
                    String key = "key " + random.nextInt(KEYS);
                    switch (m % 4) {
                        case 0 -> send(commits, key, random.nextInt(6) == 0 ? null : value("committed", n));
                        case 1 -> send(aborts, key, random.nextInt(6) == 0 ? null : value("aborted", n));
                        default -> send(plain, key, random.nextInt(8) == 0 ? null : value("plain", n));
                    }
                }
                plain.flush();
                commits.commitTransaction();
                aborts.flush();
                aborts.abortTransaction();
            }
            // Of these a tombstone is the last word.
            for (int key = 0; key < 20; key++) send(plain, "key " + key, null);
        }
    }

    /** What was written before is in sealed segments after this. */
    static void roll() throws Exception {
        try (var plain = producer(null, "none")) {
            for (int n = 0; n < 1400; n++) send(plain, "roll", value("roll", n) + "w".repeat(600));
        }
    }

    /** The last value of every key by its hash, and how much there was. */
    static void last(String topic) throws Exception {
        Map<String, Object> config = Access.config("isolation.level", "read_committed", "check.crcs", true);
        TreeMap<String, String> values = new TreeMap<>();
        int records = 0, tombstones = 0;
        try (KafkaConsumer<String, String> consumer = new KafkaConsumer<>(config, new StringDeserializer(), new StringDeserializer())) {
            TopicPartition partition = new TopicPartition(topic, 0);
            consumer.assign(List.of(partition));
            consumer.seekToBeginning(List.of(partition));
            long end = consumer.endOffsets(List.of(partition)).get(partition), before = -1;
            while (consumer.position(partition) < end) {
                for (ConsumerRecord<String, String> record : consumer.poll(Duration.ofMillis(200))) {
                    if (record.offset() <= before) throw new AssertionError(record.offset() + " after " + before);
                    before = record.offset();
                    if (record.value() != null && record.value().startsWith("aborted")) throw new AssertionError("aborted: " + record.offset());
                    records++;
                    if (record.value() == null) {
                        tombstones++;
                        values.remove(record.key());
                    } else values.put(record.key(), record.value());
                }
            }
        }
        System.err.println(records + " " + tombstones);
        values.forEach((key, value) -> System.out.println(key + " " + value.hashCode() + " " + value.length()));
    }

    /** A producer that lives while its log is compacted and the broker restarted: all of its records once, in order. */
    static void goesOn(Path checkpoint, String ctl) throws Exception {
        Map<String, Object> config = Access.config("enable.idempotence", true, "batch.size", 4000);
        List<Long> offsets = new ArrayList<>();
        try (KafkaProducer<String, String> producer = new KafkaProducer<>(config, new StringSerializer(), new StringSerializer())) {
            for (int n = 0; n < 30; n++) offsets.add(producer.send(new ProducerRecord<>(KEPT, "goes on", "first " + n)).get().offset());
            roll();
            long deadline = System.currentTimeMillis() + 20_000;
            while (cleaned(checkpoint) <= offsets.get(29)) {
                if (System.currentTimeMillis() > deadline) throw new AssertionError("it is not compacted");
                Thread.sleep(50);
            }
            if (new ProcessBuilder(ctl, "kill9").inheritIO().start().waitFor() != 0 || new ProcessBuilder(ctl, "start").inheritIO().start().waitFor() != 0) throw new AssertionError("no restart");
            for (int n = 0; n < 30; n++) offsets.add(producer.send(new ProducerRecord<>(KEPT, "goes on", "second " + n)).get().offset());
        }
        for (int n = 1; n < offsets.size(); n++) if (offsets.get(n) <= offsets.get(n - 1)) throw new AssertionError("offsets: " + offsets);
    }

    static long cleaned(Path checkpoint) throws Exception {
        if (!Files.exists(checkpoint)) return 0;
        for (String line : Files.readString(checkpoint).split("\n")) if (line.startsWith(KEPT + " 0 ")) return Long.parseLong(line.split(" ")[2]);
        return 0;
    }
}
