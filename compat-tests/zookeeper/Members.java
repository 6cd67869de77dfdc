import java.time.Duration;
import java.util.*;
import org.apache.kafka.clients.consumer.*;
import org.apache.kafka.common.errors.RebalanceInProgressException;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;

/** Three members of a group, which read a topic and commit what they read until standard input ends. */
public class Members {
    static volatile boolean stop;

    public static void main(String[] args) throws Exception {
        List<Thread> members = new ArrayList<>();
        for (int n = 0; n < 3; n++) members.add(new Thread(() -> read(args[0], args[1])));
        members.forEach(Thread::start);
        System.in.readAllBytes();
        stop = true;
        for (Thread member : members) member.join();
    }

    static void read(String topic, String group) {
        Map<String, Object> config = Access.config("group.id", group, "auto.offset.reset", "earliest",
            "enable.auto.commit", false, "session.timeout.ms", 10_000, "heartbeat.interval.ms", 500, "metadata.max.age.ms", 2000);
        try (KafkaConsumer<byte[], byte[]> consumer = new KafkaConsumer<>(config, new ByteArrayDeserializer(), new ByteArrayDeserializer())) {
            consumer.subscribe(List.of(topic));
            while (!stop) {
                if (consumer.poll(Duration.ofMillis(100)).isEmpty()) continue;
                try {
                    consumer.commitSync();
                } catch (CommitFailedException | RebalanceInProgressException rebalanced) {
                    System.err.println("not committed: " + rebalanced);
                }
            }
        } catch (Throwable failure) {
            failure.printStackTrace();
            System.exit(1);
        }
    }
}
