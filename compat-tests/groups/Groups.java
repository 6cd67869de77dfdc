import java.time.Duration;
import java.util.*;
import java.util.concurrent.*;
import java.util.concurrent.atomic.*;
import java.util.stream.*;
import org.apache.kafka.clients.admin.*;
import org.apache.kafka.clients.consumer.*;
import org.apache.kafka.clients.producer.*;
import org.apache.kafka.common.*;
import org.apache.kafka.common.config.ConfigResource;
import org.apache.kafka.common.serialization.*;

/** Consumer groups of KIP-848 with Kafka's own consumer: assignment, rebalances without a pause, fencing, static members, regular expressions, migration. */
public class Groups {
    static final String BROKER_CTL = System.getenv("BROKER_CTL");
    static final int BROKERS = System.getenv("BOOTSTRAP").split(",").length;
    static final String RUN = UUID.randomUUID().toString().substring(0, 8);
    static final Duration SHORT = Duration.ofMillis(100);
    static Admin admin;
    static Producer<String, String> producer;

    interface Test { void run() throws Exception; }

    public static void main(String[] args) throws Exception {
        System.out.println("CLIENT kafka-clients|4.4.0|Java|consumer groups of KIP-848: assignment, rebalances, static members, regular expressions, migration of a running group|groups/");
        admin = Admin.create(Access.config());
        producer = new KafkaProducer<>(Access.config(), new StringSerializer(), new StringSerializer());
        test(args, "members-share-partitions", Groups::members_share_partitions);
        test(args, "a-member-that-joins-disturbs-nobody", Groups::joining_disturbs_nobody);
        test(args, "a-member-that-dies-is-replaced", Groups::death);
        test(args, "static-member-comes-back", Groups::static_member);
        test(args, "regular-expression", Groups::regular_expression);
        test(args, "range-assignor", Groups::range_assignor);
        test(args, "transactional-offsets", Groups::transactional_offsets);
        test(args, "described-by-admin", Groups::described);
        test(args, "migration-of-a-running-group", Groups::migration);
        if (BROKERS > 1) test(args, "one-broker-after-the-other-killed", Groups::killed_brokers);
        Runtime.getRuntime().halt(0);
    }

    static void test(String[] args, String name, Test test) {
        if (args.length > 0 && !List.of(args).contains(name)) return;
        long start = System.currentTimeMillis();
        try {
            test.run();
            System.out.println("PASS groups/" + name);
        } catch (Throwable failure) {
            failure.printStackTrace();
            String text = failure.toString().replaceAll("\\s+", " ");
            System.out.println("FAIL groups/" + name + ": " + text.substring(0, Math.min(500, text.length())));
        }
        System.err.println("groups/" + name + " took " + (System.currentTimeMillis() - start) + " ms");
    }

    static void check(boolean holds, Object what) { if (!holds) throw new AssertionError(String.valueOf(what)); }

    static String topic(String name, int partitions) throws Exception {
        String topic = name + "-" + RUN;
        admin.createTopics(List.of(new NewTopic(topic, partitions, (short) 1))).all().get();
        return topic;
    }

    static void produce(String topic, int partition, int from, int to) throws Exception {
        List<Future<RecordMetadata>> sent = new ArrayList<>();
        for (int n = from; n < to; n++) sent.add(producer.send(new ProducerRecord<>(topic, partition, null, "" + n)));
        for (Future<RecordMetadata> one : sent) one.get();
    }

    static final AtomicInteger NUMBER = new AtomicInteger();

    record Read(int partition, long offset, long atMs, String by) {}

    /** A consumer in a thread of its own. */
    static class Member implements AutoCloseable, Runnable, ConsumerRebalanceListener {
        final KafkaConsumer<String, String> consumer;
        final Thread thread;
        final AtomicBoolean stop = new AtomicBoolean();
        final Set<TopicPartition> assigned = ConcurrentHashMap.newKeySet();
        final Queue<ConsumerRecord<String, String>> records = new ConcurrentLinkedQueue<>();
        final Queue<Read> reads = new ConcurrentLinkedQueue<>();
        final AtomicInteger revocations = new AtomicInteger(), losses = new AtomicInteger();
        final boolean leave, isClassic;
        final String name;
        volatile Throwable failure;
        volatile long longestPauseMs;

        Member(String group, boolean leave, Map<String, Object> more) {
            Map<String, Object> config = Access.config("group.id", group, "group.protocol", "consumer",
                "auto.offset.reset", "earliest", "auto.commit.interval.ms", "200");
            config.putAll(more);
            this.leave = leave;
            isClassic = "classic".equals(config.get("group.protocol"));
            name = config.get("group.protocol") + " member " + NUMBER.incrementAndGet();
            consumer = new KafkaConsumer<>(config, new StringDeserializer(), new StringDeserializer());
            thread = new Thread(this);
        }

        Member on(String... topics) { consumer.subscribe(List.of(topics), this); thread.start(); return this; }

        public void onPartitionsAssigned(Collection<TopicPartition> added) { assigned.addAll(added); }
        public void onPartitionsRevoked(Collection<TopicPartition> gone) {
            // A cooperative member of the classic protocol reads on in what it gives up, and commits that by itself only before.
            if (isClassic && !gone.isEmpty()) consumer.commitSync();
            revocations.addAndGet(gone.size());
            assigned.removeAll(gone);
        }
        public void onPartitionsLost(Collection<TopicPartition> gone) { losses.addAndGet(gone.size()); assigned.removeAll(gone); }

        public void run() {
            try {
                long last = 0;
                while (!stop.get()) {
                    for (ConsumerRecord<String, String> record : consumer.poll(SHORT)) {
                        long now = System.currentTimeMillis();
                        if (last > 0) longestPauseMs = Math.max(longestPauseMs, now - last);
                        last = now;
                        records.add(record);
                        reads.add(new Read(record.partition(), record.offset(), now, name));
                    }
                }
                if (leave) consumer.close();
            } catch (Throwable thrown) {
                failure = thrown;
            }
        }

        public void close() throws Exception {
            stop.set(true);
            thread.join(30_000);
            check(!thread.isAlive(), "a consumer does not stop");
            if (failure != null) throw new AssertionError(failure);
        }
    }

    static Member member(String group, String... topics) { return new Member(group, true, Map.of()).on(topics); }

    static void await(String what, int seconds, Callable<Boolean> holds) throws Exception {
        long end = System.currentTimeMillis() + seconds * 1000L;
        while (!holds.call()) {
            check(System.currentTimeMillis() < end, "not within " + seconds + " s: " + what);
            Thread.sleep(20);
        }
    }

    /** Every partition of a topic is one member's. */
    static boolean shared(int partitions, Member... members) {
        List<TopicPartition> all = Arrays.stream(members).flatMap(one -> one.assigned.stream()).collect(Collectors.toList());
        return all.size() == partitions && new HashSet<>(all).size() == partitions;
    }

    static void members_share_partitions() throws Exception {
        String topic = topic("shared", 6), group = "share-" + RUN;
        for (int p = 0; p < 6; p++) produce(topic, p, 0, 50);
        try (Member a = member(group, topic); Member b = member(group, topic); Member c = member(group, topic)) {
            await("each has two", 30, () -> shared(6, a, b, c) && a.assigned.size() == 2 && b.assigned.size() == 2);
            for (int p = 0; p < 6; p++) produce(topic, p, 50, 100);
            await("all is read", 30, () -> read(a, b, c).size() == 600);
        }
        Map<TopicPartition, OffsetAndMetadata> offsets = admin.listConsumerGroupOffsets(group).partitionsToOffsetAndMetadata().get();
        check(offsets.size() == 6 && offsets.values().stream().allMatch(offset -> offset.offset() == 100), offsets);
        admin.deleteConsumerGroups(List.of(group)).all().get();
    }

    /** What members read, each record once. */
    static Set<String> read(Member... members) {
        return Arrays.stream(members).flatMap(one -> one.records.stream()).map(record -> record.topic() + record.partition() + ":" + record.offset())
            .collect(Collectors.toCollection(TreeSet::new));
    }

    static void joining_disturbs_nobody() throws Exception {
        String topic = topic("calm", 4), group = "calm-" + RUN;
        try (Member a = member(group, topic)) {
            await("it has all", 30, () -> shared(4, a));
            AtomicBoolean stop = new AtomicBoolean();
            Thread load = new Thread(() -> { for (int n = 0; !stop.get(); n++) try { for (int p = 0; p < 4; p++) produce(topic, p, n, n + 1); Thread.sleep(5); } catch (Exception e) { return; } });
            load.start();
            Thread.sleep(500);
            a.longestPauseMs = 0;
            try (Member b = member(group, topic)) {
                await("both have two", 30, () -> shared(4, a, b) && a.assigned.size() == 2);
                Thread.sleep(500);
            }
            await("it has all again", 30, () -> shared(4, a));
            check(a.revocations.get() == 2, "it gave up " + a.revocations);
            check(a.longestPauseMs < 2000, "it paused for " + a.longestPauseMs + " ms");
            stop.set(true);
            load.join();
        }
    }

    static void death() throws Exception {
        String topic = topic("death", 4), group = "death-" + RUN;
        ConfigResource resource = new ConfigResource(ConfigResource.Type.GROUP, group);
        admin.incrementalAlterConfigs(Map.of(resource, List.of(new AlterConfigOp(new ConfigEntry("consumer.heartbeat.interval.ms", "5000"), AlterConfigOp.OpType.SET)))).all().get();
        Member a = new Member(group, false, Map.of("max.poll.interval.ms", "3000")).on(topic);
        try (Member b = member(group, topic)) {
            await("both have two", 30, () -> shared(4, a, b) && a.assigned.size() == 2);
            // It polls no more: its own client leaves the group for it.
            a.close();
            await("the other has all", 30, () -> b.assigned.size() == 4);
        }
    }

    static void static_member() throws Exception {
        String topic = topic("static", 4), group = "static-" + RUN;
        Map<String, Object> instance = Map.of("group.instance.id", "one");
        Member first = new Member(group, true, instance).on(topic);
        try (Member other = member(group, topic)) {
            await("both have two", 30, () -> shared(4, first, other) && first.assigned.size() == 2);
            Set<TopicPartition> had = Set.copyOf(first.assigned);
            first.close();
            Thread.sleep(2000);
            check(other.assigned.size() == 2, "it was given " + other.assigned);
            try (Member again = new Member(group, true, instance).on(topic)) {
                await("it has what it had", 30, () -> again.assigned.equals(had));
                check(other.revocations.get() <= 2, "the other gave up " + other.revocations);
            }
        }
    }

    static void regular_expression() throws Exception {
        String group = "regex-" + RUN, first = topic("regex-a", 2);
        topic("other-regex", 2);
        Member a = new Member(group, true, Map.of("metadata.max.age.ms", "1000"));
        a.consumer.subscribe(new SubscriptionPattern("regex-.*-" + RUN), a);
        a.thread.start();
        try (a) {
            await("it has what matches", 30, () -> a.assigned.size() == 2);
            check(a.assigned.stream().allMatch(one -> one.topic().equals(first)), a.assigned);
            topic("regex-b", 3);
            await("it has what came", 40, () -> a.assigned.size() == 5);
        }
        Member bad = new Member(group + "-bad", false, Map.of());
        bad.consumer.subscribe(new SubscriptionPattern("(["), bad);
        bad.thread.start();
        await("it is refused", 30, () -> bad.failure != null);
        check(bad.failure.getClass().getSimpleName().equals("InvalidRegularExpression"), bad.failure);
    }

    static void range_assignor() throws Exception {
        String one = topic("range-a", 4), two = topic("range-b", 4), group = "range-" + RUN;
        Map<String, Object> range = Map.of("group.remote.assignor", "range");
        try (Member a = new Member(group, true, range).on(one, two); Member b = new Member(group, true, range).on(one, two)) {
            await("both have four", 30, () -> shared(8, a, b) && a.assigned.size() == 4);
            for (String topic : List.of(one, two)) {
                Set<Integer> numbers = a.assigned.stream().filter(p -> p.topic().equals(topic)).map(TopicPartition::partition).collect(Collectors.toSet());
                check(numbers.equals(Set.of(0, 1)) || numbers.equals(Set.of(2, 3)), a.assigned);
            }
        }
        Member wrong = new Member(group + "-wrong", false, Map.of("group.remote.assignor", "mine")).on(one);
        await("it is refused", 30, () -> wrong.failure != null);
        check(wrong.failure.getClass().getSimpleName().equals("UnsupportedAssignorException"), wrong.failure);
    }

    static void transactional_offsets() throws Exception {
        String topic = topic("txn", 1), group = "txn-" + RUN;
        produce(topic, 0, 0, 10);
        Map<String, Object> config = Access.config("transactional.id", "txn-" + RUN);
        try (KafkaConsumer<String, String> consumer = new Member(group, true, Map.of("enable.auto.commit", "false")).consumer;
             Producer<String, String> transactional = new KafkaProducer<>(config, new StringSerializer(), new StringSerializer())) {
            transactional.initTransactions();
            consumer.subscribe(List.of(topic));
            int read = 0;
            while (read < 10) read += consumer.poll(SHORT).count();
            transactional.beginTransaction();
            transactional.sendOffsetsToTransaction(Map.of(new TopicPartition(topic, 0), new OffsetAndMetadata(7)), consumer.groupMetadata());
            transactional.commitTransaction();
            Map<TopicPartition, OffsetAndMetadata> committed = consumer.committed(Set.of(new TopicPartition(topic, 0)));
            check(committed.get(new TopicPartition(topic, 0)).offset() == 7, committed);
        }
    }

    static void described() throws Exception {
        String topic = topic("described", 4), group = "described-" + RUN;
        produce(topic, 0, 0, 10);
        try (Member a = member(group, topic); Member b = member(group, topic)) {
            await("both have two", 30, () -> shared(4, a, b) && a.assigned.size() == 2);
            await("it is stable", 10, () -> admin.describeConsumerGroups(List.of(group)).all().get().get(group).groupState() == GroupState.STABLE);
            ConsumerGroupDescription found = admin.describeConsumerGroups(List.of(group)).all().get().get(group);
            check(found.type() == GroupType.CONSUMER && found.partitionAssignor().equals("uniform"), found);
            check(found.members().size() == 2, found.members());
            for (MemberDescription member : found.members()) {
                check(member.assignment().topicPartitions().size() == 2, member);
                check(member.targetAssignment().get().topicPartitions().equals(member.assignment().topicPartitions()), member);
                check(member.memberEpoch().get().equals(found.groupEpoch().get()) && !member.upgraded().map(is -> !is).orElse(false), member);
            }
            Collection<GroupListing> listed = admin.listGroups(ListGroupsOptions.forConsumerGroups()).all().get();
            GroupListing own = listed.stream().filter(one -> one.groupId().equals(group)).findFirst().get();
            check(own.type().get() == GroupType.CONSUMER && own.groupState().get() == GroupState.STABLE, own);
            try {
                admin.deleteConsumerGroups(List.of(group)).all().get();
                throw new AssertionError("a group with members was deleted");
            } catch (ExecutionException refused) {
                check(refused.getCause().getClass().getSimpleName().equals("GroupNotEmptyException"), refused);
            }
        }
        ConsumerGroupDescription empty = admin.describeConsumerGroups(List.of(group)).all().get().get(group);
        check(empty.groupState() == GroupState.EMPTY && empty.type() == GroupType.CONSUMER, empty);
        admin.deleteConsumerGroupOffsets(group, Set.of(new TopicPartition(topic, 0))).all().get();
        admin.deleteConsumerGroups(List.of(group)).all().get();
    }

    /** A running classic group becomes a consumer group member by member, and a classic one again; no record is read out of turn, and no partition waits long. */
    static void migration() throws Exception {
        String topic = topic("migrated", 4), group = "migrated-" + RUN;
        // A classic member hears only with its next heartbeat that another one left.
        Map<String, Object> classic = Map.of("group.protocol", "classic", "heartbeat.interval.ms", "1000",
            "partition.assignment.strategy", "org.apache.kafka.clients.consumer.CooperativeStickyAssignor");
        AtomicBoolean stop = new AtomicBoolean();
        AtomicInteger sent = new AtomicInteger();
        Thread load = new Thread(() -> { for (int n = 0; !stop.get(); n++) try { for (int p = 0; p < 4; p++) produce(topic, p, n, n + 1); sent.set(n + 1); Thread.sleep(5); } catch (Exception e) { return; } });
        load.start();
        Member one = new Member(group, true, classic).on(topic), two = new Member(group, true, classic).on(topic);
        List<Member> all = new ArrayList<>(List.of(one, two));
        await("both have two", 60, () -> shared(4, one, two) && one.assigned.size() == 2);
        check(type(group) == GroupType.CLASSIC, type(group));
        // Up: one after the other is replaced.
        one.close();
        Member three = member(group, topic);
        all.add(three);
        await("beside a classic one", 60, () -> shared(4, two, three) && three.assigned.size() == 2);
        check(type(group) == GroupType.CONSUMER, type(group));
        two.close();
        Member four = member(group, topic);
        all.add(four);
        await("both are new", 60, () -> shared(4, three, four) && four.assigned.size() == 2);
        // And down.
        three.close();
        Member five = new Member(group, true, classic).on(topic);
        all.add(five);
        await("a classic one again", 60, () -> shared(4, four, five) && five.assigned.size() == 2);
        four.close();
        Member six = new Member(group, true, classic).on(topic);
        all.add(six);
        await("both are classic", 60, () -> shared(4, five, six) && six.assigned.size() == 2);
        check(type(group) == GroupType.CLASSIC, type(group));
        stop.set(true);
        load.join();
        await("all is read", 60, () -> read(all.toArray(new Member[0])).size() == sent.get() * 4);
        five.close();
        six.close();
        // Who reads a partition goes on where the one before it ended, and soon.
        List<Read> reads = all.stream().flatMap(member -> member.reads.stream()).sorted(Comparator.comparing(Read::atMs)).toList();
        Map<Integer, Read> last = new HashMap<>();
        long longestPauseMs = 0;
        for (Read read : reads) {
            Read before = last.put(read.partition, read);
            if (before == null) continue;
            check(read.offset == before.offset + 1, read + " after " + before);
            longestPauseMs = Math.max(longestPauseMs, read.atMs - before.atMs);
        }
        System.err.println("longest pause of a partition " + longestPauseMs + " ms");
        // Kafka's members of the new protocol hear every five seconds only what they are to have.
        check(longestPauseMs < 3000 || "kafka".equals(System.getenv("AGAINST")), "a partition paused for " + longestPauseMs + " ms");
    }

    static GroupType type(String group) throws Exception {
        return admin.listGroups().all().get().stream().filter(one -> one.groupId().equals(group)).findFirst().get().type().get();
    }

    static void ctl(String verb, int broker) throws Exception {
        Process process = new ProcessBuilder(BROKER_CTL, verb, "" + broker).inheritIO().start();
        check(process.waitFor() == 0, verb + " " + broker);
    }

    /** Without any one broker every record is read once and in order, and no member gives up a partition. */
    static void killed_brokers() throws Exception {
        String topic = "killed-" + RUN, group = "killed-" + RUN;
        int partitions = 6;
        admin.createTopics(List.of(new NewTopic(topic, partitions, (short) 3).configs(Map.of("min.insync.replicas", "2")))).all().get();
        AtomicBoolean stop = new AtomicBoolean();
        AtomicReference<Throwable> failure = new AtomicReference<>();
        long[] sent = new long[partitions];
        try (Member a = member(group, topic); Member b = member(group, topic); Member c = member(group, topic)) {
            await("each has two", 30, () -> shared(partitions, a, b, c) && a.assigned.size() == 2 && b.assigned.size() == 2);
            int epoch = described(group).groupEpoch().get(), given = a.revocations.get() + b.revocations.get() + c.revocations.get();
            Thread load = new Thread(() -> {
                try {
                    while (!stop.get()) {
                        for (int p = 0; p < partitions; p++) {
                            producer.send(new ProducerRecord<>(topic, p, null, ""), (where, error) -> { if (error != null) failure.compareAndSet(null, error); });
                            sent[p]++;
                        }
                        Thread.sleep(5);
                    }
                    producer.flush();
                } catch (Throwable thrown) {
                    failure.compareAndSet(null, thrown);
                }
            });
            load.start();
            goesOn(partitions, a, b, c);
            int coordinator = described(group).coordinator().id();
            int other = admin.describeTopics(List.of(topic)).allTopicNames().get().get(topic).partitions().stream().map(one -> one.leader().id())
                .filter(id -> id != coordinator).findFirst().get();
            for (int broker : List.of(coordinator, other)) {
                ctl("kill9", broker);
                long began = System.currentTimeMillis();
                goesOn(partitions, a, b, c);
                System.err.println("without broker " + broker + " after " + (System.currentTimeMillis() - began) + " ms");
                ctl("start", broker);
                goesOn(partitions, a, b, c);
            }
            stop.set(true);
            load.join();
            check(failure.get() == null, failure.get());
            long all = Arrays.stream(sent).sum();
            await("all is read", 40, () -> read(a, b, c).size() == all);
            check(a.revocations.get() + b.revocations.get() + c.revocations.get() == given, "a partition was given up");
            for (Member member : List.of(a, b, c)) {
                check(member.losses.get() == 0, "it lost " + member.losses);
                Map<Integer, Long> last = new HashMap<>();
                for (ConsumerRecord<String, String> record : member.records) {
                    long next = last.getOrDefault(record.partition(), -1L) + 1;
                    check(record.offset() == next, "offset " + record.offset() + " for " + next);
                    last.put(record.partition(), record.offset());
                }
            }
            check(described(group).groupEpoch().get() == epoch, "the group changed: " + described(group));
        }
        Map<TopicPartition, OffsetAndMetadata> offsets = admin.listConsumerGroupOffsets(group).partitionsToOffsetAndMetadata().get();
        for (int p = 0; p < partitions; p++) check(offsets.get(new TopicPartition(topic, p)).offset() == sent[p], offsets + " for " + sent[p] + " of " + p);
    }

    static ConsumerGroupDescription described(String group) throws Exception {
        return admin.describeConsumerGroups(List.of(group)).all().get().get(group);
    }

    /** Of each partition more is read. */
    static void goesOn(int partitions, Member... members) throws Exception {
        int[] before = counts(partitions, members);
        await("more of each partition", 40, () -> {
            int[] now = counts(partitions, members);
            return IntStream.range(0, partitions).allMatch(p -> now[p] > before[p] + 20);
        });
    }

    static int[] counts(int partitions, Member... members) {
        int[] counts = new int[partitions];
        for (Member member : members) member.records.forEach(record -> counts[record.partition()]++);
        return counts;
    }
}
