import java.time.Duration;
import java.util.*;
import org.apache.kafka.clients.consumer.*;
import org.apache.kafka.clients.producer.*;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.serialization.*;

/**
 * Copies records from one topic to another in transactions, with the offsets that it read, until it is killed. Every third
 * transaction is aborted and done again. After any error it begins anew, as a program without a memory would.
 */
public class Transfer {
    public static void main(String[] args) throws Exception {
        while (true) {
            try {
                transfer(args[0], args[1], args[2], args[3]);
            } catch (Exception error) {
                System.err.println("begins anew: " + error);
                Thread.sleep(200);
            }
        }
    }

    static void transfer(String from, String to, String group, String id) {
        Map<String, Object> producing = Access.config("transactional.id", id,
            "request.timeout.ms", 5_000, "delivery.timeout.ms", 20_000, "max.block.ms", 20_000, "transaction.timeout.ms", 20_000);
        Map<String, Object> reading = Access.config("group.id", group, "auto.offset.reset", "earliest",
            "enable.auto.commit", false, "isolation.level", "read_committed", "max.poll.records", 50, "session.timeout.ms", 6_000,
            "request.timeout.ms", 5_000, "default.api.timeout.ms", 20_000);
        try (KafkaProducer<String, String> producer = new KafkaProducer<>(producing, new StringSerializer(), new StringSerializer());
             KafkaConsumer<String, String> consumer = new KafkaConsumer<>(reading, new StringDeserializer(), new StringDeserializer())) {
            producer.initTransactions();
            consumer.subscribe(List.of(from));
            for (int turn = 1; ; ) {
                ConsumerRecords<String, String> records = consumer.poll(Duration.ofMillis(200));
                if (records.isEmpty()) continue;
                producer.beginTransaction();
                Map<TopicPartition, OffsetAndMetadata> read = new HashMap<>();
                for (ConsumerRecord<String, String> record : records) {
                    producer.send(new ProducerRecord<>(to, record.partition(), null, record.value()));
                    read.put(new TopicPartition(from, record.partition()), new OffsetAndMetadata(record.offset() + 1));
                }
                producer.sendOffsetsToTransaction(read, consumer.groupMetadata());
                if (turn++ % 3 == 0) {
                    producer.abortTransaction();
                    Map<TopicPartition, OffsetAndMetadata> stored = consumer.committed(consumer.assignment());
                    for (TopicPartition partition : consumer.assignment()) {
                        OffsetAndMetadata offset = stored.get(partition);
                        if (offset == null) consumer.seekToBeginning(List.of(partition));
                        else consumer.seek(partition, offset);
                    }
                    System.out.println("ABORTED");
                } else {
                    producer.commitTransaction();
                    System.out.println("COMMITTED " + records.count());
                }
            }
        }
    }
}
