"""confluent-kafka: librdkafka from Python."""

import threading
import time

import confluent_kafka
from confluent_kafka import Consumer, ConsumerGroupTopicPartitions, KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, ConfigEntry, ConfigResource, AlterConfigOpType, NewPartitions, NewTopic, OffsetSpec, ResourceType

from harness import BOOTSTRAP, CODECS, RECORDS, SETTINGS, broker, equal, run, unique, wait_for

print(f"CLIENT confluent-kafka|{confluent_kafka.version()[0] if isinstance(confluent_kafka.version(), tuple) else confluent_kafka.version()}|Python|codecs, acks, groups (eager, cooperative, static), admin, idempotence across kill -9, topic recreated|confluent-kafka/")
admin = AdminClient(SETTINGS)


def create(topic, partitions=1, **config):
    for future in admin.create_topics([NewTopic(topic, partitions, 1, config=config)]).values():
        future.result(30)


def producer(**config):
    return Producer({**SETTINGS, "linger.ms": 5, **{k.replace("_", "."): v for k, v in config.items()}})


def produce(topic, records, partition=0, **config):
    errors = []
    client = producer(**config)
    for key, value, headers in records:
        client.produce(topic, value, key, partition, headers=headers, on_delivery=lambda error, _: error and errors.append(error))
    client.flush(30)
    if errors:
        raise KafkaException(errors[0])


def consumer(group=None, **config):
    settings = {**SETTINGS, "group.id": group or unique("g"), "auto.offset.reset": "earliest", "enable.auto.commit": False, "session.timeout.ms": 6000, "heartbeat.interval.ms": 500}
    settings.update({k.replace("_", "."): v for k, v in config.items()})
    return Consumer(settings)


def read(topic, count, offset=confluent_kafka.OFFSET_BEGINNING, partition=0):
    client = consumer()
    client.assign([TopicPartition(topic, partition, offset)])
    messages = []
    wait_for(f"{count} records", lambda: messages.extend(m for m in client.consume(count, 0.5) if not m.error()) or len(messages) >= count)
    client.close()
    return messages


def round_trips():
    for codec in CODECS:
        topic = unique(codec)
        create(topic)
        for acks in ("all", "1", "0"):
            produce(topic, RECORDS, acks=acks, compression_type=codec)
        got = [(m.key(), m.value(), m.headers() or []) for m in read(topic, 3 * len(RECORDS))]
        equal(got, RECORDS * 3, codec)


def large_messages():
    topic = unique("large")
    create(topic)
    produce(topic, [(None, b"x" * 1_000_000, [])], message_max_bytes=5_000_000)
    equal(len(read(topic, 1)[0].value()), 1_000_000)
    try:
        produce(topic, [(None, b"x" * 1_100_000, [])], message_max_bytes=5_000_000)
        raise AssertionError("a message above the limit was taken")
    except KafkaException as error:
        equal(error.args[0].code(), KafkaError.MSG_SIZE_TOO_LARGE)


def offsets_and_times():
    topic, base = unique("offsets"), int(time.time() * 1000) - 200_000
    create(topic)
    client = producer()
    for n in range(100):
        client.produce(topic, str(n), partition=0, timestamp=base + n * 1000)
    client.flush(30)
    equal([m.value() for m in read(topic, 10, 42)][0], b"42")
    reader = consumer()
    found = reader.offsets_for_times([TopicPartition(topic, 0, base + 49_500)], 10)
    equal(found[0].offset, 50)
    equal(reader.get_watermark_offsets(TopicPartition(topic, 0), 10), (0, 100))
    reader.close()
    listed = {spec: list(admin.list_offsets({TopicPartition(topic, 0): make}).values())[0].result(10).offset
              for spec, make in {"earliest": OffsetSpec.earliest(), "latest": OffsetSpec.latest(), "max": OffsetSpec.max_timestamp()}.items()}
    equal(listed, {"earliest": 0, "latest": 100, "max": 99})


class Member:
    """A consumer in a thread that notes what it got and what it owns."""

    def __init__(self, topic, group, **config):
        self.client = consumer(group, **config)
        self.values, self.owned, self.stop = [], set(), threading.Event()
        self.rebalances = 0
        self.incremental = config.get("partition_assignment_strategy") == "cooperative-sticky"
        self.client.subscribe([topic], on_assign=self.assigned, on_revoke=self.revoked, on_lost=self.revoked)
        self.thread = threading.Thread(target=self.loop, daemon=True)
        self.thread.start()

    def assigned(self, client, partitions):
        self.rebalances += 1
        self.owned |= {p.partition for p in partitions}
        (client.incremental_assign if self.incremental else client.assign)(partitions)

    def revoked(self, client, partitions):
        self.owned -= {p.partition for p in partitions}
        if self.incremental:
            client.incremental_unassign(partitions)
        else:
            client.unassign()

    def loop(self):
        while not self.stop.is_set():
            message = self.client.poll(0.1)
            if message is not None and not message.error():
                self.values.append(int(message.value()))
                self.client.commit(message, asynchronous=True)

    def leave(self):
        self.stop.set()
        self.thread.join(20)
        self.client.close()


def shared(*members):
    return lambda: set().union(*(m.owned for m in members)) == set(range(4)) and sum(len(m.owned) for m in members) == 4 and all(m.owned for m in members)


def group_of(strategy):
    topic, group = unique("group"), unique("group")
    create(topic, 4)
    config = {"partition_assignment_strategy": strategy}
    first = Member(topic, group, **config)
    wait_for("all partitions", shared(first))
    second = Member(topic, group, **config)
    wait_for("a shared topic", shared(first, second))
    for partition in range(4):
        produce(topic, [(None, str(partition * 100 + n).encode(), []) for n in range(100)], partition)
    wait_for("all records", lambda: len(set(first.values + second.values)) == 400)
    second.leave()
    wait_for("the rest to be taken over", shared(first))
    first.leave()
    described = admin.list_consumer_group_offsets([ConsumerGroupTopicPartitions(group)])[group].result(10)
    equal(sum(p.offset for p in described.topic_partitions), 400, "committed offsets")


def static_member_restarts_without_a_rebalance():
    topic, group = unique("static"), unique("static")
    create(topic, 4)
    stay, restarted = (Member(topic, group, group_instance_id=name) for name in ("stay", "restart"))
    wait_for("a shared topic", shared(stay, restarted))
    before, owned = stay.rebalances, set(restarted.owned)
    restarted.leave()
    again = Member(topic, group, group_instance_id="restart")
    wait_for("the old partitions", lambda: again.owned == owned)
    equal(stay.rebalances, before, "rebalances of the other member")
    for member in (stay, again):
        member.leave()


def commit_and_resume():
    topic, group = unique("resume"), unique("resume")
    create(topic)
    produce(topic, [(None, str(n).encode(), []) for n in range(20)])
    got = []
    for _ in range(2):
        client = consumer(group)
        client.subscribe([topic])
        batch = []
        wait_for("ten records", lambda: batch.extend(m for m in [client.poll(0.5)] if m and not m.error()) or len(batch) == 10)
        client.commit(offsets=[TopicPartition(topic, 0, batch[-1].offset() + 1, metadata="note")], asynchronous=False)
        equal(client.committed([TopicPartition(topic, 0)], 10)[0].offset, batch[-1].offset() + 1)
        client.close()
        got += [int(m.value()) for m in batch]
    equal(got, list(range(20)))


def known(question):
    """Brokers hear of a new topic a moment after its creation was answered."""
    def asked():
        try:
            return question()
        except KafkaException as error:
            if error.args[0].code() != KafkaError.UNKNOWN_TOPIC_OR_PART:
                raise
            return None

    return wait_for("the topic to be known", asked)


def administration():
    topic = unique("admin")
    create(topic, 2, **{"retention.ms": "1234567"})
    resource = ConfigResource(ResourceType.TOPIC, topic)
    describe = lambda: known(lambda: list(admin.describe_configs([resource]).values())[0].result(10))
    equal(describe()["retention.ms"].value, "1234567")
    change = ConfigResource(ResourceType.TOPIC, topic, incremental_configs=[ConfigEntry("retention.ms", "7654321", incremental_operation=AlterConfigOpType.SET)])
    list(admin.incremental_alter_configs([change]).values())[0].result(10)
    wait_for("the new setting", lambda: describe()["retention.ms"].value == "7654321")
    list(admin.create_partitions([NewPartitions(topic, 5)]).values())[0].result(10)
    wait_for("five partitions", lambda: len(admin.list_topics(topic, 10).topics[topic].partitions) == 5)
    produce(topic, [(None, b"x", [])] * 10)
    deleted = list(admin.delete_records([TopicPartition(topic, 0, 4)]).values())[0].result(10)
    equal(deleted.low_watermark, 4)
    equal(read(topic, 6)[0].offset(), 4)
    group = unique("admin")
    client = consumer(group)
    client.commit(offsets=[TopicPartition(topic, 0, 7)], asynchronous=False)
    client.close()
    wait_for("the group", lambda: group in [g.group_id for g in admin.list_consumer_groups().result(10).valid])
    admin.alter_consumer_group_offsets([ConsumerGroupTopicPartitions(group, [TopicPartition(topic, 0, 5)])])[group].result(10)
    equal(admin.list_consumer_group_offsets([ConsumerGroupTopicPartitions(group)])[group].result(10).topic_partitions[0].offset, 5)
    equal(admin.describe_consumer_groups([group])[group].result(10).members, [])
    admin.delete_consumer_groups([group])[group].result(10)
    wait_for("the group to be gone", lambda: group not in [g.group_id for g in admin.list_consumer_groups().result(10).valid])
    cluster = admin.describe_cluster().result(10)
    equal(len(cluster.nodes), len(BOOTSTRAP.split(",")))
    equal(cluster.controller.id in [node.id for node in cluster.nodes], True)
    list(admin.delete_topics([topic]).values())[0].result(10)
    wait_for("the topic to be gone", lambda: topic not in admin.list_topics(timeout=10).topics)


def idempotent_across_kill_9():
    topic = unique("idempotent")
    create(topic)
    errors = []
    client = producer(enable_idempotence=True, linger_ms=1, batch_num_messages=20, message_timeout_ms=60000)
    for n in range(20_000):
        client.produce(topic, str(n), partition=0, on_delivery=lambda error, _: error and errors.append(error))
        if n == 10_000:
            wait_for("some deliveries", lambda: client.poll(0.05) is not None and len(client) < 9_900)
            broker("kill9")
            broker("start")
        client.poll(0)
    equal(client.flush(60), 0, "undelivered")
    equal(errors, [])
    equal([int(m.value()) for m in read(topic, 20_000)], list(range(20_000)))


def topic_deleted_and_recreated():
    topic = unique("again")
    create(topic)
    client = producer(topic_metadata_refresh_interval_ms=500)
    client.produce(topic, b"old", partition=0)
    client.flush(30)
    list(admin.delete_topics([topic]).values())[0].result(30)
    wait_for("the topic to be gone", lambda: topic not in admin.list_topics(timeout=10).topics)
    create(topic)

    def first_record():
        """Records go on coming: for a moment the leader may still take them for the old topic."""
        client.produce(topic, b"new", partition=0)
        client.flush(10)
        reader = consumer()
        reader.assign([TopicPartition(topic, 0, confluent_kafka.OFFSET_BEGINNING)])
        message = reader.poll(1)
        reader.close()
        return message is not None and not message.error() and message.value()

    wait_for("a record in the new topic", lambda: first_record() == b"new")


def missing_topic_is_created():
    """With as many partitions as the broker likes."""
    topic, delivered = unique("auto"), []
    client = producer()
    client.produce(topic, b"x", on_delivery=lambda error, message: delivered.append((error, message.partition())))
    client.flush(30)
    [(error, partition)] = delivered
    equal(error, None)
    equal(read(topic, 1, partition=partition)[0].value(), b"x")


run("confluent-kafka", {
    "round-trips": round_trips,
    "large-messages": large_messages,
    "offsets-and-times": offsets_and_times,
    "group-range": lambda: group_of("range"),
    "group-cooperative": lambda: group_of("cooperative-sticky"),
    "static-member": static_member_restarts_without_a_rebalance,
    "commit-and-resume": commit_and_resume,
    "administration": administration,
    "missing-topic": missing_topic_is_created,
    "topic-recreated": topic_deleted_and_recreated,
    "idempotent-kill-9": idempotent_across_kill_9,
})
