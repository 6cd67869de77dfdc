import java.io.*;
import java.time.Duration;
import java.util.*;
import org.apache.kafka.clients.consumer.*;
import org.apache.kafka.common.serialization.StringDeserializer;

/** Reads a topic, or what a pattern that begins with ^ matches in the broker, as a member of a group, and prints the values: GROUP TOPIC
 * KEY=VALUE… of its configuration. */
public class Reader {
    public static void main(String[] args) throws IOException {
        Map<String, Object> config = Access.config("group.id", args[0],
            "auto.offset.reset", "earliest", "auto.commit.interval.ms", "300");
        for (String setting : Arrays.copyOfRange(args, 2, args.length)) config.put(setting.split("=", 2)[0], setting.split("=", 2)[1]);
        BufferedWriter out = new BufferedWriter(new OutputStreamWriter(System.out));
        try (KafkaConsumer<String, String> consumer = new KafkaConsumer<>(config, new StringDeserializer(), new StringDeserializer())) {
            if (args[1].startsWith("^")) consumer.subscribe(new SubscriptionPattern(args[1]));
            else consumer.subscribe(List.of(args[1]));
            while (true) {
                for (ConsumerRecord<String, String> record : consumer.poll(Duration.ofMillis(200))) out.write(record.value() + "\n");
                out.flush();
            }
        }
    }
}
