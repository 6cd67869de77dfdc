import java.nio.file.*;
import java.util.*;
import java.util.concurrent.*;
import org.apache.kafka.clients.admin.*;
import org.apache.kafka.clients.producer.*;
import org.apache.kafka.common.serialization.*;

/** Producers of transactions of ten records of 100 bytes, one after the other each, to a partition of their own: BOOTSTRAP PID PRODUCERS SECONDS. Prints JSON. */
public class TransactionLoad {
    static final int RECORDS = 10;

    public static void main(String[] args) throws Exception {
        long pid = Long.parseLong(args[1]);
        int producers = Integer.parseInt(args[2]), seconds = Integer.parseInt(args[3]);
        String topic = "java-" + producers;
        try (Admin admin = Admin.create(Map.of("bootstrap.servers", args[0]))) {
            admin.createTopics(List.of(new NewTopic(topic, producers, (short) 1))).all().get();
        }
        // Both brokers' code and the clients' own is run once before anything is counted.
        run(args[0], topic, producers, Math.max(2, seconds / 2));
        double before = cpu(pid);
        List<Double> commits = run(args[0], topic, producers, seconds);
        double took = cpu(pid) - before;
        Collections.sort(commits);
        System.out.printf(Locale.ROOT, "{\"client\": \"Java\", \"connections\": %d, \"records_per_s\": %.0f, \"p50_ms\": %.2f, \"p99_ms\": %.2f, \"cpu_us_each\": %.0f}%n",
            producers, commits.size() / (double) seconds, at(commits, 0.5), at(commits, 0.99), took * 1e6 / commits.size());
        System.exit(0);
    }

    static double at(List<Double> sorted, double share) {
        return sorted.get(Math.min(sorted.size() - 1, (int) (sorted.size() * share)));
    }

    /** Seconds of CPU of a process. */
    static double cpu(long pid) throws Exception {
        String stat = Files.readString(Path.of("/proc/" + pid + "/stat"));
        String[] fields = stat.substring(stat.lastIndexOf(')') + 2).split(" ");
        return (Long.parseLong(fields[11]) + Long.parseLong(fields[12])) / 100.0;
    }

    /** How long each commit took, ms. */
    static List<Double> run(String bootstrap, String topic, int producers, int seconds) throws Exception {
        var all = new ConcurrentLinkedQueue<Double>();
        var ready = new CyclicBarrier(producers);
        var failed = new ConcurrentLinkedQueue<Throwable>();
        var threads = new ArrayList<Thread>();
        for (int n = 0; n < producers; n++) {
            int partition = n;
            var thread = new Thread(() -> {
                var config = new HashMap<String, Object>(Map.of("bootstrap.servers", bootstrap, "transactional.id", topic + "-" + partition, "linger.ms", 0));
                try (var producer = new KafkaProducer<>(config, new ByteArraySerializer(), new ByteArraySerializer())) {
                    producer.initTransactions();
                    ready.await();
                    long end = System.nanoTime() + seconds * 1_000_000_000L;
                    while (System.nanoTime() < end) {
                        producer.beginTransaction();
                        for (int i = 0; i < RECORDS; i++) producer.send(new ProducerRecord<>(topic, partition, null, new byte[100]));
                        // The records are there before the commit is timed.
                        producer.flush();
                        long asked = System.nanoTime();
                        producer.commitTransaction();
                        all.add((System.nanoTime() - asked) / 1e6);
                    }
                } catch (Throwable error) {
                    failed.add(error);
                }
            });
            thread.start();
            threads.add(thread);
        }
        for (var thread : threads) thread.join();
        if (!failed.isEmpty()) throw new Exception(failed.peek());
        return new ArrayList<>(all);
    }
}
