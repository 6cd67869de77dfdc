import java.util.*;
import java.util.concurrent.*;
import java.util.concurrent.atomic.*;
import org.apache.kafka.clients.admin.*;
import org.apache.kafka.clients.consumer.*;
import org.apache.kafka.clients.producer.*;
import org.apache.kafka.common.*;

/** Brokers of a cluster are killed, one at a time, while members of a share group work and records come. */
class Failover {
    static final int PARTITIONS = 6, MEMBERS = 4;
    final String topic, group;
    /** Where each record is. */
    final Map<String, RecordMetadata> produced = new ConcurrentHashMap<>();
    /** Those of which the group said so, and was told that it counts. */
    final Set<String> accepted = ConcurrentHashMap.newKeySet();
    /** Those of which somebody said so and had no answer: it may count. */
    final Set<String> unanswered = ConcurrentHashMap.newKeySet();
    final Map<String, Integer> counts = new ConcurrentHashMap<>();
    final AtomicIntegerArray acceptedOf = new AtomicIntegerArray(PARTITIONS);
    final AtomicReference<Throwable> failure = new AtomicReference<>();
    final AtomicBoolean stop = new AtomicBoolean(), produce = new AtomicBoolean(true);

    Failover(String name, Map<String, String> settings) throws Exception {
        topic = name + "-" + Shares.RUN;
        Shares.replicated(topic, PARTITIONS, Map.of());
        group = Shares.group(name, settings);
    }

    static void run() throws Exception { new Failover("failover", Map.of()).test(); }

    /** What a member says of a record. */
    AcknowledgeType answer(ConsumerRecord<String, String> record) {
        // Each fifth is somebody else's the first time.
        return record.deliveryCount().get() > 1 || record.offset() % 5 != 0 ? AcknowledgeType.ACCEPT : AcknowledgeType.RELEASE;
    }

    /** Whether nobody ever accepts it. */
    boolean isDead(String value) { return false; }

    /** Each is killed when the one before it is back. */
    List<Callable<Integer>> victims() {
        return List.of(() -> Shares.admin.describeShareGroups(List.of(group)).all().get().get(group).coordinator().id(), () -> Shares.leader(topic, 0));
    }

    void test() throws Exception {
        List<Thread> members = new ArrayList<>();
        for (int n = 0; n < MEMBERS; n++) members.add(start(this::member));
        Thread load = start(this::load);
        goesOn();
        for (Callable<Integer> victim : victims()) without(victim.call());
        produce.set(false);
        load.join();
        for (int partition = 0; partition < PARTITIONS; partition++) Shares.allDone(group, topic, partition);
        stop.set(true);
        for (Thread member : members) member.join();
        if (failure.get() != null) throw new AssertionError(failure.get());
        Set<String> lost = new TreeSet<>(produced.keySet());
        lost.removeIf(this::isDead);
        lost.removeAll(accepted);
        lost.removeAll(unanswered);
        Shares.check(lost.isEmpty(), "nobody accepted " + lost);
        try (KafkaShareConsumer<String, String> consumer = Shares.consumer(group, "implicit", Map.of())) {
            consumer.subscribe(List.of(topic));
            List<ConsumerRecord<String, String>> left = Shares.poll(consumer, 1, 2000);
            Shares.check(left.isEmpty(), left + " came after all was done");
        }
        unanswered.removeAll(accepted);
        System.err.println(produced.size() + " records, " + unanswered.size() + " accepted without an answer, given out at most " + Collections.max(counts.values()) + " times");
    }

    /** Kills a broker, sees that the others do without, and starts it again. */
    void without(int broker) throws Exception {
        Shares.ctl("kill9", broker);
        long began = System.currentTimeMillis();
        goesOn();
        System.err.println("without broker " + broker + " after " + (System.currentTimeMillis() - began) + " ms");
        Shares.ctl("start", broker);
        goesOn();
    }

    /** Of each partition more is accepted. */
    void goesOn() throws Exception {
        int[] before = new int[PARTITIONS];
        for (int n = 0; n < PARTITIONS; n++) before[n] = acceptedOf.get(n);
        for (int n = 0; n < PARTITIONS; n++) {
            int partition = n;
            await(() -> acceptedOf.get(partition) > before[partition] + 20, "more of partition " + partition + " than " + before[partition]);
        }
    }

    void await(Callable<Boolean> holds, String what) throws Exception {
        Shares.await(() -> failure.get() != null || holds.call(), what);
        if (failure.get() != null) throw new AssertionError(failure.get());
    }

    Thread start(Shares.Test work) {
        Thread thread = new Thread(() -> {
            try { work.run(); } catch (Throwable thrown) { failure.compareAndSet(null, thrown); }
        });
        thread.start();
        return thread;
    }

    void load() throws Exception {
        for (int n = 0; produce.get(); n++) {
            String value = "" + n;
            Shares.producer.send(new ProducerRecord<>(topic, n % PARTITIONS, null, value), (where, error) -> {
                if (error == null) produced.put(value, where);
                else failure.compareAndSet(null, error);
            });
            Thread.sleep(2);
        }
        Shares.producer.flush();
    }

    void member() {
        Map<String, Object> few = Map.of("max.poll.records", 50, "share.acquire.mode", "record_limit");
        try (KafkaShareConsumer<String, String> consumer = Shares.consumer(group, "explicit", few)) {
            consumer.subscribe(List.of(topic));
            while (!stop.get()) {
                Map<Integer, List<String>> said = new HashMap<>();
                for (ConsumerRecord<String, String> record : consumer.poll(Shares.SHORT)) {
                    Shares.check(!accepted.contains(record.value()), record + " came after it was accepted");
                    int count = record.deliveryCount().get();
                    int highest = counts.merge(record.value(), count, Math::max);
                    Shares.check(count == highest, record + " came after delivery " + highest);
                    AcknowledgeType answer = answer(record);
                    consumer.acknowledge(record, answer);
                    if (answer == AcknowledgeType.ACCEPT) said.computeIfAbsent(record.partition(), key -> new ArrayList<>()).add(record.value());
                }
                consumer.commitSync().forEach((where, error) -> {
                    List<String> counted = said.getOrDefault(where.partition(), List.of());
                    if (error.isPresent()) {
                        unanswered.addAll(counted);
                        return;
                    }
                    for (String value : counted) Shares.check(accepted.add(value), value + " was accepted twice");
                    acceptedOf.addAndGet(where.partition(), counted.size());
                });
            }
        }
    }
}
