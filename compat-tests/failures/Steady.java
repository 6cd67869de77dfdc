import java.nio.ByteBuffer;
import java.time.Duration;
import java.util.*;
import java.util.stream.Collectors;
import org.apache.kafka.clients.consumer.*;
import org.apache.kafka.clients.producer.*;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.errors.RebalanceInProgressException;
import org.apache.kafka.common.errors.RetriableException;
import org.apache.kafka.common.serialization.*;

/** One producer and two members of a group until standard input ends; says what it was told, a line each (suite.py). */
public class Steady {
    static volatile boolean producing = true, reading = true;

    static synchronized void say(String what, Object... words) {
        System.out.println(what + " " + System.nanoTime() / 1_000_000 + " " + Arrays.stream(words).map(String::valueOf).collect(Collectors.joining(" ")));
    }

    public static void main(String[] args) throws Exception {
        Thread producer = new Thread(() -> produce(args[0]));
        List<Thread> members = new ArrayList<>();
        for (int n = 0; n < 2; n++) { String name = "m" + n; members.add(new Thread(() -> read(args[0], args[1], name))); }
        producer.start();
        members.forEach(Thread::start);
        Scanner lines = new Scanner(System.in);
        if (lines.hasNextLine()) lines.nextLine();
        producing = false;
        producer.join();
        say("PRODUCED");
        if (lines.hasNextLine()) lines.nextLine();
        reading = false;
        for (Thread member : members) member.join();
    }

    static void produce(String topic) {
        Map<String, Object> config = Access.config("acks", "all", "enable.idempotence", true,
            "delivery.timeout.ms", 120_000, "request.timeout.ms", 5_000, "linger.ms", 5);
        try (KafkaProducer<String, String> producer = new KafkaProducer<>(config, new StringSerializer(), new StringSerializer())) {
            for (int n = 0; producing; n++) {
                String value = "j" + n;
                producer.send(new ProducerRecord<>(topic, n % 6, null, value), (metadata, error) -> {
                    if (error == null) say("ACK", value, metadata.partition(), metadata.offset());
                    else say("FAILED", value, error.getClass().getSimpleName());
                });
                Thread.sleep(5);
            }
        } catch (Exception failure) {
            failure.printStackTrace();
            System.exit(1);
        }
    }

    static String list(Collection<TopicPartition> partitions) {
        return partitions.isEmpty() ? "-" : partitions.stream().map(p -> "" + p.partition()).collect(Collectors.joining(","));
    }

    static void read(String topic, String group, String name) {
        Map<String, Object> config = Access.config("group.id", group, "auto.offset.reset", "earliest",
            "enable.auto.commit", false, "request.timeout.ms", 5_000, "default.api.timeout.ms", 60_000);
        try (KafkaConsumer<String, String> consumer = new KafkaConsumer<>(config, new StringDeserializer(), new StringDeserializer())) {
            consumer.subscribe(List.of(topic), new ConsumerRebalanceListener() {
                public void onPartitionsAssigned(Collection<TopicPartition> partitions) { say("ASSIGNED", name, list(partitions)); }
                public void onPartitionsRevoked(Collection<TopicPartition> partitions) { say("REVOKED", name, list(partitions)); }
                public void onPartitionsLost(Collection<TopicPartition> partitions) { say("LOST", name, list(partitions)); }
            });
            while (reading) {
                ConsumerRecords<String, String> records = consumer.poll(Duration.ofMillis(100));
                if (records.isEmpty()) continue;
                for (ConsumerRecord<String, String> record : records) say("READ", name, record.partition(), record.offset(), record.value());
                try {
                    consumer.commitSync();
                    for (TopicPartition p : records.partitions()) say("COMMITTED", name, p.partition(), consumer.position(p));
                } catch (CommitFailedException | RebalanceInProgressException | org.apache.kafka.common.errors.TimeoutException again) {
                    System.err.println("not committed: " + again);
                }
            }
        } catch (Exception failure) {
            failure.printStackTrace();
            System.exit(1);
        }
    }
}
