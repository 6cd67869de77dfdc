import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.*;
import org.apache.kafka.clients.admin.*;
import org.apache.kafka.clients.consumer.*;
import org.apache.kafka.clients.producer.*;
import org.apache.kafka.common.*;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.serialization.*;

/** Writes topics with all there is in a log, creates them empty, or prints every record of them. */
public class Records {
    static final String BOOTSTRAP = System.getenv("BOOTSTRAP");
    static final List<String> CODECS = List.of("none", "gzip", "snappy", "lz4", "zstd");
    static final int PARTITIONS = 2, COUNT = 12000;

    public static void main(String[] args) throws Exception {
        try (Admin admin = Admin.create(Map.of("bootstrap.servers", BOOTSTRAP))) {
            if (args[0].equals("create") || args[0].equals("write")) {
                List<NewTopic> topics = new ArrayList<>();
                for (String codec : CODECS) topics.add(new NewTopic("files-" + codec, PARTITIONS, (short) 1).configs(Map.of("segment.bytes", "1048576", "retention.ms", "-1")));
                admin.createTopics(topics).all().get();
            }
        }
        if (args[0].equals("write")) write();
        if (args[0].equals("print")) print();
        System.exit(0);
    }

    static void write() throws Exception {
        long base = System.currentTimeMillis() - 1_000_000;
        Random random = new Random(7);
        for (String codec : CODECS) {
            Map<String, Object> config = Map.of("bootstrap.servers", BOOTSTRAP, "compression.type", codec, "linger.ms", 5, "batch.size", 16000, "enable.idempotence", !codec.equals("gzip"));
            try (KafkaProducer<byte[], byte[]> producer = new KafkaProducer<>(config, new ByteArraySerializer(), new ByteArraySerializer())) {
                for (int n = 0; n < COUNT; n++) {
                    byte[] value = new byte[random.nextInt(800)];
                    random.nextBytes(value);
                    byte[] key = n % 5 == 0 ? null : ("key" + n % 17).getBytes(StandardCharsets.UTF_8);
                    ProducerRecord<byte[], byte[]> record = new ProducerRecord<>("files-" + codec, n % PARTITIONS, base + n, key, n % 11 == 0 ? null : value);
                    record.headers().add("n", Integer.toString(n).getBytes()).add("n", null);
                    producer.send(record);
                }
            }
        }
    }

    static void print() throws Exception {
        Map<String, Object> config = Map.of("bootstrap.servers", BOOTSTRAP, "check.crcs", true);
        List<String> lines = new ArrayList<>();
        try (KafkaConsumer<byte[], byte[]> consumer = new KafkaConsumer<>(config, new ByteArrayDeserializer(), new ByteArrayDeserializer())) {
            List<TopicPartition> all = new ArrayList<>();
            for (String codec : CODECS) for (int p = 0; p < PARTITIONS; p++) all.add(new TopicPartition("files-" + codec, p));
            consumer.assign(all);
            consumer.seekToBeginning(all);
            long deadline = System.currentTimeMillis() + 60_000;
            while (lines.size() < COUNT * CODECS.size()) {
                if (System.currentTimeMillis() > deadline) throw new AssertionError("only " + lines.size() + " records");
                for (ConsumerRecord<byte[], byte[]> r : consumer.poll(Duration.ofMillis(200))) {
                    StringBuilder headers = new StringBuilder();
                    for (Header h : r.headers()) headers.append(h.key()).append(Arrays.toString(h.value()));
                    lines.add(r.topic() + " " + r.partition() + " " + r.offset() + " " + r.timestamp() + " " + r.timestampType() + " " + Arrays.toString(r.key()) + " " + Arrays.hashCode(r.value()) + " " + headers);
                }
            }
        }
        Collections.sort(lines);
        lines.forEach(System.out::println);
    }
}
