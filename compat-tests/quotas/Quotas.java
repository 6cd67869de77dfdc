// What clients get with quotas: bytes produced and read, partitions created and connections made in ten seconds.
//   java Quotas.java BOOTSTRAP produce TOPIC CLIENT SECONDS     acknowledged bytes of the first ten seconds, and the most in any
//   java Quotas.java BOOTSTRAP consume TOPIC CLIENT SECONDS     the same of what was read
//   java Quotas.java BOOTSTRAP create PREFIX SECONDS            partitions, after what may be created at once
//   java Quotas.java BOOTSTRAP connect SECONDS                  connections that were served
//   java Quotas.java BOOTSTRAP ask CLIENT SECONDS               answers, with as many questions under way as the broker takes
import java.io.DataInputStream;
import java.io.DataOutputStream;
import java.net.InetSocketAddress;
import java.net.Socket;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Collections;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.Properties;
import java.util.concurrent.ExecutionException;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.CreateTopicsOptions;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.Metric;
import org.apache.kafka.common.MetricName;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.errors.ThrottlingQuotaExceededException;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.ByteArraySerializer;

public class Quotas {
    static final long WINDOW_MS = 10_000;

    /** When how many bytes were done. */
    record Done(long atMs, long bytes) {}

    static String bootstrap;

    public static void main(String[] arguments) throws Exception {
        bootstrap = arguments[0];
        switch (arguments[1]) {
            case "produce" -> produce(arguments[2], arguments[3], Long.parseLong(arguments[4]) * 1000);
            case "consume" -> consume(arguments[2], arguments[3], Long.parseLong(arguments[4]) * 1000);
            case "create" -> create(arguments[2], Long.parseLong(arguments[3]) * 1000);
            case "connect" -> connect(Long.parseLong(arguments[2]) * 1000);
            case "ask" -> ask(arguments[2], Long.parseLong(arguments[3]) * 1000);
            default -> throw new IllegalArgumentException(arguments[1]);
        }
        System.exit(0);
    }

    static long now() {
        return System.nanoTime() / 1_000_000;
    }

    static Properties settings(String client) {
        Properties settings = new Properties();
        settings.put("bootstrap.servers", bootstrap);
        settings.put("client.id", client);
        return settings;
    }

    static void produce(String topic, String client, long ms) throws Exception {
        Properties settings = settings(client);
        settings.put("enable.idempotence", "false");
        settings.put("acks", "1");
        settings.put("linger.ms", "5");
        settings.put("delivery.timeout.ms", "600000");
        settings.put("max.block.ms", "600000");
        settings.put("buffer.memory", "1048576");
        List<Done> done = Collections.synchronizedList(new ArrayList<>());
        var producer = new KafkaProducer<>(settings, new ByteArraySerializer(), new ByteArraySerializer());
        producer.partitionsFor(topic);
        long began = now();
        Thread sender = new Thread(() -> {
            byte[] value = new byte[1000];
            while (now() - began < ms) {
                producer.send(new ProducerRecord<>(topic, 0, null, value), (metadata, error) -> {
                    if (error == null) done.add(new Done(now() - began, value.length));
                });
            }
        });
        sender.setDaemon(true);
        sender.start();
        Thread.sleep(ms);
        tell(new ArrayList<>(done), ms, producer.metrics(), "produce-throttle-time");
    }

    static void consume(String topic, String client, long ms) {
        Properties settings = settings(client);
        // What was fetched and is not read yet would be counted late.
        settings.put("max.partition.fetch.bytes", "65536");
        var consumer = new KafkaConsumer<>(settings, new ByteArrayDeserializer(), new ByteArrayDeserializer());
        TopicPartition partition = new TopicPartition(topic, 0);
        consumer.assign(List.of(partition));
        consumer.seekToBeginning(List.of(partition));
        consumer.position(partition);
        List<Done> done = new ArrayList<>();
        long began = now();
        while (now() - began < ms) {
            for (var record : consumer.poll(Duration.ofMillis(100))) {
                done.add(new Done(now() - began, record.serializedValueSize()));
                // What is there is read once more.
                if (record.offset() % 1000 == 999 && record.offset() > 8000) consumer.seekToBeginning(List.of(partition));
            }
        }
        tell(done, ms, consumer.metrics(), "fetch-throttle-time");
    }

    /** first, most and average in a second, and how long clients were told to wait. */
    static void tell(List<Done> done, long ms, Map<MetricName, ? extends Metric> metrics, String throttle) {
        long first = 0, most = 0, all = 0, inWindow = 0;
        int from = 0;
        for (Done one : done) {
            if (one.atMs >= ms) break;
            all += one.bytes;
            inWindow += one.bytes;
            if (one.atMs < WINDOW_MS) first += one.bytes;
            while (done.get(from).atMs <= one.atMs - WINDOW_MS) inWindow -= done.get(from++).bytes;
            most = Math.max(most, inWindow);
        }
        double average = 0, longest = 0;
        for (var metric : metrics.entrySet()) {
            Object value = metric.getValue().metricValue();
            if (metric.getKey().name().equals(throttle + "-avg")) average = (Double) value;
            if (metric.getKey().name().equals(throttle + "-max")) longest = (Double) value;
        }
        System.out.printf(Locale.ROOT, "%d %d %d throttle-avg=%.0f throttle-max=%.0f%n",
            first * 1000 / WINDOW_MS, most * 1000 / WINDOW_MS, all * 1000 / ms, average, longest);
    }

    static void create(String prefix, long ms) throws Exception {
        CreateTopicsOptions once = new CreateTopicsOptions().retryOnQuotaViolation(false);
        try (Admin admin = Admin.create(settings("creator"))) {
            // What may be created at once, and a little more.
            while (true) {
                try {
                    admin.createTopics(List.of(new NewTopic(prefix + "-" + now(), 30, (short) 1)), once).all().get();
                } catch (ExecutionException refused) {
                    if (!(refused.getCause() instanceof ThrottlingQuotaExceededException exceeded)) throw refused;
                    Thread.sleep(exceeded.throttleTimeMs());
                    break;
                }
            }
            long began = now();
            int created = 0;
            while (now() - began < ms) {
                try {
                    admin.createTopics(List.of(new NewTopic(prefix + "-one-" + created, 1, (short) 1)), once).all().get();
                    created++;
                } catch (ExecutionException refused) {
                    if (!(refused.getCause() instanceof ThrottlingQuotaExceededException exceeded)) throw refused;
                    Thread.sleep(Math.max(1, exceeded.throttleTimeMs()));
                }
            }
            System.out.println(created);
        }
    }

    static void connect(long ms) throws Exception {
        String[] at = bootstrap.split(":");
        // ApiVersions v0, correlation id 1, no client id.
        byte[] asked = {0, 0, 0, 10, 0, 18, 0, 0, 0, 0, 0, 1, -1, -1};
        long began = now();
        int served = 0;
        while (now() - began < ms) {
            try (Socket socket = new Socket()) {
                socket.connect(new InetSocketAddress(at[0], Integer.parseInt(at[1])));
                socket.setSoTimeout(5000);
                new DataOutputStream(socket.getOutputStream()).write(asked);
                new DataInputStream(socket.getInputStream()).readInt();
                served++;
            } catch (java.io.IOException closed) {
                continue;
            }
        }
        System.out.println(served);
    }

    static void ask(String client, long ms) throws Exception {
        String[] at = bootstrap.split(":");
        byte[] name = client.getBytes(java.nio.charset.StandardCharsets.UTF_8);
        // Metadata v1 of all topics, correlation id 1.
        var asked = java.nio.ByteBuffer.allocate(4 + 10 + name.length + 4);
        asked.putInt(10 + name.length + 4).putShort((short) 3).putShort((short) 1).putInt(1).putShort((short) name.length).put(name).putInt(-1);
        long began = now();
        try (Socket socket = new Socket(at[0], Integer.parseInt(at[1]))) {
            Thread asking = new Thread(() -> {
                try {
                    while (true) socket.getOutputStream().write(asked.array());
                } catch (java.io.IOException closed) {
                    return;
                }
            });
            asking.setDaemon(true);
            asking.start();
            var answers = new DataInputStream(new java.io.BufferedInputStream(socket.getInputStream(), 1 << 16));
            int answered = 0;
            while (now() - began < ms) {
                answers.skipNBytes(answers.readInt());
                answered++;
            }
            System.out.println(answered);
        }
    }
}
