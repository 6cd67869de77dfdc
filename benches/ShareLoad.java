import java.nio.file.*;
import java.time.Duration;
import java.util.*;
import java.util.concurrent.*;
import java.util.concurrent.atomic.*;
import org.apache.kafka.clients.admin.*;
import org.apache.kafka.clients.consumer.*;
import org.apache.kafka.clients.producer.*;
import org.apache.kafka.common.config.ConfigResource;
import org.apache.kafka.common.serialization.*;

/** Share consumers that acknowledge every record by itself, and one that waits for single records: BOOTSTRAP PID RECORDS CONSUMERS. Prints JSON.
 *  With a fifth argument, SECONDS, RECORDS are produced and acknowledged each second for so long. */
public class ShareLoad {
    static String bootstrap;

    public static void main(String[] args) throws Exception {
        bootstrap = args[0];
        long pid = Long.parseLong(args[1]);
        int records = Integer.parseInt(args[2]), consumers = Integer.parseInt(args[3]);
        if (args.length > 4) {
            try (Admin admin = Admin.create(Map.of("bootstrap.servers", bootstrap))) { paced(admin, records, consumers, Integer.parseInt(args[4])); }
            System.exit(0);
        }
        try (Admin admin = Admin.create(Map.of("bootstrap.servers", bootstrap))) {
            // Both brokers' code and the clients' own is run once before anything is counted.
            acknowledge(admin, "warm", pid, records / 5, consumers);
            var rate = acknowledge(admin, "counted", pid, records, consumers);
            var waits = waits(admin, "idle");
            System.out.printf(Locale.ROOT, "{\"records_per_s\": %.0f, \"cpu_us_a_record\": %.2f, \"wait_ms_p50\": %.2f, \"wait_ms_p99\": %.2f}%n", rate[0], rate[1], waits[0], waits[1]);
        }
        System.exit(0);
    }

    /** Seconds of CPU of a process. */
    static double cpu(long pid) throws Exception {
        String stat = Files.readString(Path.of("/proc/" + pid + "/stat"));
        String[] fields = stat.substring(stat.lastIndexOf(')') + 2).split(" ");
        return (Long.parseLong(fields[11]) + Long.parseLong(fields[12])) / 100.0;
    }

    static void prepare(Admin admin, String name, int partitions) throws Exception {
        admin.createTopics(List.of(new NewTopic(name, partitions, (short) 1))).all().get();
        var op = new AlterConfigOp(new ConfigEntry("share.auto.offset.reset", "earliest"), AlterConfigOp.OpType.SET);
        admin.incrementalAlterConfigs(Map.of(new ConfigResource(ConfigResource.Type.GROUP, name), List.of(op))).all().get();
    }

    static KafkaShareConsumer<byte[], byte[]> consumer(String name, int max) {
        var consumer = new KafkaShareConsumer<>(Map.of("bootstrap.servers", bootstrap, "group.id", name, "share.acknowledgement.mode", "explicit", "max.poll.records", max),
            new ByteArrayDeserializer(), new ByteArrayDeserializer());
        consumer.subscribe(List.of(name));
        return consumer;
    }

    static Producer<byte[], byte[]> producer(int lingerMs) {
        return new KafkaProducer<>(Map.of("bootstrap.servers", bootstrap, "linger.ms", lingerMs), new ByteArraySerializer(), new ByteArraySerializer());
    }

    /** Records a second, and CPU of the broker a record, us. */
    static double[] acknowledge(Admin admin, String name, long pid, int records, int consumers) throws Exception {
        prepare(admin, name, 8);
        try (var producer = producer(5)) {
            for (int n = 0; n < records; n++) producer.send(new ProducerRecord<>(name, n % 8, null, new byte[100]));
        }
        var seen = ConcurrentHashMap.<Long>newKeySet();
        var done = new AtomicBoolean();
        var joined = new CountDownLatch(consumers);
        var threads = new ArrayList<Thread>();
        var first = new AtomicLong();
        double before = cpu(pid);
        for (int n = 0; n < consumers; n++) {
            var thread = new Thread(() -> {
                try (var consumer = consumer(name, 500)) {
                    joined.countDown();
                    while (!done.get()) {
                        for (var record : consumer.poll(Duration.ofMillis(100))) {
                            first.compareAndSet(0, System.nanoTime());
                            consumer.acknowledge(record, AcknowledgeType.ACCEPT);
                            seen.add(record.partition() * 1_000_000_000L + record.offset());
                        }
                        consumer.commitAsync();
                        if (seen.size() >= records) done.set(true);
                    }
                }
            });
            thread.start();
            threads.add(thread);
        }
        joined.await();
        long end = System.nanoTime() + 120_000_000_000L;
        while (!done.get() && System.nanoTime() < end) Thread.sleep(5);
        double seconds = (System.nanoTime() - first.get()) / 1e9;
        if (!done.getAndSet(true)) throw new IllegalStateException(seen.size() + " of " + records + " records");
        double cpu = cpu(pid) - before;
        for (var thread : threads) thread.join();
        return new double[] {records / seconds, cpu * 1e6 / records};
    }

    /** So many records a second are produced and acknowledged one by one; prints how many a second were, once all are joined and warm. */
    static void paced(Admin admin, int rate, int consumers, int seconds) throws Exception {
        prepare(admin, "paced", 4);
        var done = new AtomicBoolean();
        var acknowledged = new AtomicLong();
        var threads = new ArrayList<Thread>();
        for (int n = 0; n < consumers; n++) {
            var thread = new Thread(() -> {
                try (var consumer = consumer("paced", 500)) {
                    while (!done.get()) {
                        for (var record : consumer.poll(Duration.ofMillis(100))) {
                            consumer.acknowledge(record, AcknowledgeType.ACCEPT);
                            acknowledged.incrementAndGet();
                        }
                        consumer.commitAsync();
                    }
                }
            });
            thread.start();
            threads.add(thread);
        }
        try (var producer = producer(5)) {
            long began = System.nanoTime(), sent = 0, counted = 0, from = 0;
            int warm = 10;
            while (System.nanoTime() - began < (warm + seconds) * 1_000_000_000L) {
                long due = (System.nanoTime() - began) * rate / 1_000_000_000L;
                for (; sent < due; sent++) producer.send(new ProducerRecord<>("paced", (int) (sent % 4), null, new byte[100]));
                if (from == 0 && System.nanoTime() - began > warm * 1_000_000_000L) {
                    from = System.nanoTime();
                    counted = acknowledged.get();
                    System.out.println("warm");
                }
                Thread.sleep(1);
            }
            System.out.printf(Locale.ROOT, "%.0f%n", (acknowledged.get() - counted) * 1e9 / (System.nanoTime() - from));
        }
        done.set(true);
        for (var thread : threads) thread.join();
    }

    /** From the call of send to the record's arrival at the one consumer of an idle system, ms: median and 99th percentile. */
    static double[] waits(Admin admin, String name) throws Exception {
        prepare(admin, name, 1);
        var waits = new ArrayList<Double>();
        // By default the producer itself waits 5 ms, on either broker.
        try (var producer = producer(0); var consumer = consumer(name, 500)) {
            var arrived = new SynchronousQueue<Long>();
            var done = new AtomicBoolean();
            var reader = new Thread(() -> {
                while (!done.get()) {
                    for (var record : consumer.poll(Duration.ofMillis(1000))) {
                        consumer.acknowledge(record, AcknowledgeType.ACCEPT);
                        try { arrived.offer(System.nanoTime(), 5, TimeUnit.SECONDS); } catch (InterruptedException ended) { return; }
                    }
                }
            });
            reader.start();
            for (int n = 0; n < 600; n++) {
                long sent = System.nanoTime();
                producer.send(new ProducerRecord<>(name, 0, null, new byte[100]));
                Long came = arrived.poll(30, TimeUnit.SECONDS);
                // The first ones wait for the group.
                if (n >= 100) waits.add((came - sent) / 1e6);
                Thread.sleep(5);
            }
            done.set(true);
            reader.join();
        }
        Collections.sort(waits);
        return new double[] {waits.get(waits.size() / 2), waits.get(waits.size() * 99 / 100)};
    }
}
