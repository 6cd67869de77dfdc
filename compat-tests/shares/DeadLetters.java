import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.*;
import java.util.concurrent.*;
import java.util.stream.*;
import org.apache.kafka.clients.admin.*;
import org.apache.kafka.clients.consumer.*;
import org.apache.kafka.clients.producer.*;
import org.apache.kafka.common.*;
import org.apache.kafka.common.header.*;
import org.apache.kafka.common.header.internals.RecordHeader;
import org.apache.kafka.common.serialization.*;

/** What a share group rejects, or is given too often, is copied to the topic that the group names (KIP-1191). */
class DeadLetters extends Failover {
    static final Map<String, String> ENABLED = Map.of("errors.deadletterqueue.group.enable", "true");
    static final int LIMIT = 3;
    final String letters;

    DeadLetters(String name, String letters) throws Exception {
        super(name, settings(letters, true));
        this.letters = letters;
        Shares.replicated(letters, 3, ENABLED);
    }

    static Map<String, String> settings(String letters, boolean copies) {
        return Map.of("errors.deadletterqueue.topic.name", letters, "errors.deadletterqueue.copy.record.enable", "" + copies, "share.delivery.count.limit", "" + LIMIT);
    }

    static List<ConsumerRecord<String, String>> read(String topic) {
        try (KafkaConsumer<String, String> consumer = new KafkaConsumer<>(Access.config(), new StringDeserializer(), new StringDeserializer())) {
            List<TopicPartition> all = consumer.partitionsFor(topic).stream().map(one -> new TopicPartition(topic, one.partition())).toList();
            consumer.assign(all);
            consumer.seekToBeginning(all);
            Map<TopicPartition, Long> ends = consumer.endOffsets(all);
            List<ConsumerRecord<String, String>> found = new ArrayList<>();
            while (all.stream().anyMatch(one -> consumer.position(one) < ends.get(one))) consumer.poll(Duration.ofMillis(100)).forEach(found::add);
            return found;
        }
    }

    static Map<String, String> headers(ConsumerRecord<?, ?> letter) {
        Map<String, String> all = new TreeMap<>();
        for (Header header : letter.headers()) all.put(header.key(), new String(header.value(), StandardCharsets.UTF_8));
        return all;
    }

    static Map<String, String> expected(String group, String topic, long offset, int count, String why) {
        return new TreeMap<>(Map.of("__dlq.errors.topic", topic, "__dlq.errors.partition", "0", "__dlq.errors.offset", "" + offset, "__dlq.errors.group", group,
            "__dlq.errors.delivery.count", "" + count, "__dlq.errors.message", why));
    }

    /** One group has whole records copied, another one only where they are. */
    static void copied() throws Exception {
        String topic = Shares.topic("dead", 1), whole = "dlq.whole-" + Shares.RUN, places = "dlq.places-" + Shares.RUN;
        for (String letters : List.of(whole, places)) Shares.admin.createTopics(List.of(new NewTopic(letters, 1, (short) 1).configs(ENABLED))).all().get();
        for (int n = 0; n < 20; n++) {
            List<Header> own = List.of(new RecordHeader("own", ("header " + n).getBytes()));
            Shares.producer.send(new ProducerRecord<>(topic, 0, "key " + n, "" + n, own)).get();
        }
        String copying = Shares.group("dead-whole", settings(whole, true)), telling = Shares.group("dead-places", settings(places, false));
        for (String group : List.of(copying, telling)) {
            Map<String, Integer> seen = new TreeMap<>();
            try (KafkaShareConsumer<String, String> consumer = Shares.consumer(group, "explicit", Map.of())) {
                consumer.subscribe(List.of(topic));
                long end = System.currentTimeMillis() + 30_000;
                while (System.currentTimeMillis() < end && (seen.size() < 20 || seen.get("7") < LIMIT)) {
                    for (ConsumerRecord<String, String> record : consumer.poll(Shares.SHORT)) {
                        seen.put(record.value(), record.deliveryCount().get().intValue());
                        consumer.acknowledge(record, switch (record.value()) { case "3", "13" -> AcknowledgeType.REJECT; case "7" -> AcknowledgeType.RELEASE; default -> AcknowledgeType.ACCEPT; });
                    }
                    consumer.commitSync().values().forEach(error -> Shares.check(error.isEmpty(), error));
                }
                Shares.check(seen.size() == 20 && seen.get("7") == LIMIT, seen);
                Shares.allDone(group, topic, 0);
                List<ConsumerRecord<String, String>> again = Shares.poll(consumer, 1, 1000);
                Shares.check(again.isEmpty(), again);
            }
            String letters = group.equals(copying) ? whole : places;
            Shares.await(() -> read(letters).size() == 3, "three letters");
            for (ConsumerRecord<String, String> letter : read(letters)) {
                Map<String, String> found = headers(letter);
                int n = Integer.parseInt(found.get("__dlq.errors.offset"));
                String why = n == 7 ? "Offset delivery count exceeded the threshold." : "Offset rejected by client.";
                Map<String, String> expected = expected(group, topic, n, n == 7 ? LIMIT : 1, why);
                boolean isWhole = letters.equals(whole);
                if (isWhole && !"kafka".equals(System.getenv("AGAINST"))) expected.put("own", "header " + n);
                Shares.check(found.equals(expected), found + " for " + expected);
                Shares.check(Objects.equals(letter.key(), isWhole ? "key " + n : null) && Objects.equals(letter.value(), isWhole ? "" + n : null), letter);
            }
        }
    }

    static void run() throws Exception { new DeadLetters("dead-killed", "dlq.killed-" + Shares.RUN).check(); }

    @Override AcknowledgeType answer(ConsumerRecord<String, String> record) {
        int n = Integer.parseInt(record.value());
        return n % 50 == 0 ? AcknowledgeType.REJECT : n % 101 == 0 ? AcknowledgeType.RELEASE : AcknowledgeType.ACCEPT;
    }

    @Override boolean isDead(String value) {
        int n = Integer.parseInt(value);
        return n % 50 == 0 || n % 101 == 0;
    }

    @Override List<Callable<Integer>> victims() { return List.of(() -> Shares.leader(letters, 0), () -> Shares.leader(topic, 0)); }

    /** Each dead record has a letter that says where it is; only what a kill interrupts has two. */
    void check() throws Exception {
        test();
        Map<String, Integer> copies = new TreeMap<>();
        for (ConsumerRecord<String, String> letter : read(letters)) {
            RecordMetadata where = produced.get(letter.value());
            Map<String, String> found = headers(letter);
            Shares.check(found.get("__dlq.errors.topic").equals(topic) && found.get("__dlq.errors.partition").equals("" + where.partition())
                && found.get("__dlq.errors.offset").equals("" + where.offset()) && found.get("__dlq.errors.group").equals(group), found + " for " + where);
            copies.merge(letter.value(), 1, Integer::sum);
        }
        Set<String> dead = produced.keySet().stream().filter(this::isDead).collect(Collectors.toCollection(TreeSet::new));
        Shares.check(copies.keySet().equals(dead), "letters of " + copies.keySet() + " for " + dead);
        Shares.check(copies.values().stream().allMatch(count -> count <= 1 + victims().size()), copies);
        System.err.println(dead.size() + " dead, " + copies.values().stream().filter(count -> count > 1).count() + " of them more than once");
    }
}
