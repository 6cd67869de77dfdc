"""confluent-kafka, which is librdkafka from Python, in consumer groups of KIP-848."""

import re
import subprocess
import sys
import threading

import confluent_kafka
from confluent_kafka import Consumer, ConsumerGroupState, ConsumerGroupTopicPartitions, ConsumerGroupType, KafkaException, TopicPartition

from grouped import admin, create, group_with, produce
from harness import SETTINGS, broker, equal, run, unique, wait_for

PARTITIONS = 4


def consumer(group, **more):
    settings = {**SETTINGS, "group.id": group, "group.protocol": "consumer", "auto.offset.reset": "earliest", "auto.commit.interval.ms": 300, "topic.metadata.refresh.interval.ms": 1000}
    settings.update({name.replace("_", "."): value for name, value in more.items()})
    return Consumer(settings)


class Member:
    """A consumer in a thread that notes what it has and what it got."""

    def __init__(self, group, *topics, **settings):
        self.client = consumer(group, **settings)
        self.owned, self.values, self.assigned, self.lost = set(), [], 0, 0
        self.stop, self.failure = threading.Event(), None
        self.client.subscribe(list(topics), on_assign=self.on_assign, on_revoke=self.on_revoke, on_lost=self.on_lost)
        self.thread = threading.Thread(target=self.loop, daemon=True)
        self.thread.start()

    def on_assign(self, client, partitions):
        self.assigned += len(partitions)
        self.owned |= {(p.topic, p.partition) for p in partitions}
        client.incremental_assign(partitions)

    def on_revoke(self, client, partitions):
        self.owned -= {(p.topic, p.partition) for p in partitions}
        client.incremental_unassign(partitions)

    def on_lost(self, client, partitions):
        self.lost += len(partitions)
        self.on_revoke(client, partitions)

    def loop(self):
        try:
            while not self.stop.is_set():
                message = self.client.poll(0.1)
                if message is not None and not message.error():
                    self.values.append(int(message.value()))
        except BaseException as error:  # whatever ends it
            self.failure = error

    def leave(self):
        self.stop.set()
        self.thread.join(20)
        self.client.close()
        if self.failure:
            raise self.failure


def shared(*members, partitions=PARTITIONS):
    """Each partition is one member's, and each member has as many."""
    sizes = [len(member.owned) for member in members]
    return sum(sizes) == partitions == len(set().union(*(member.owned for member in members))) and max(sizes) - min(sizes) <= 1


def committed(group):
    told = admin.list_consumer_group_offsets([ConsumerGroupTopicPartitions(group)])[group].result(20)
    return {(p.topic, p.partition): p.offset for p in told.topic_partitions}


def described(group):
    return admin.describe_consumer_groups([group])[group].result(20)


def a_second_member_joins_and_leaves():
    topic, group = unique("joins"), group_with(consumer_heartbeat_interval_ms=1000)
    create(topic, PARTITIONS)
    first = Member(group, topic)
    wait_for("all partitions", lambda: shared(first))
    produce(topic, range(1000), PARTITIONS)
    second = Member(group, topic)
    wait_for("a shared topic", lambda: shared(first, second))
    equal((described(group).type, described(group).partition_assignor), (ConsumerGroupType.CONSUMER, "uniform"))
    wait_for("a stable group", lambda: described(group).state == ConsumerGroupState.STABLE)
    produce(topic, range(1000, 2000), PARTITIONS)
    wait_for("all records", lambda: len(first.values) + len(second.values) >= 2000)
    second.leave()
    wait_for("the rest to be taken over", lambda: shared(first))
    produce(topic, range(2000, 3000), PARTITIONS)
    wait_for("the rest of them", lambda: len(first.values) + len(second.values) >= 3000)
    first.leave()
    equal(sorted(first.values + second.values), list(range(3000)), "each record once")
    equal((first.lost, second.lost), (0, 0), "lost partitions")
    equal(committed(group), {(topic, partition): 750 for partition in range(PARTITIONS)}, "committed")


def range_for_two_topics():
    topics, group = [unique("range-a"), unique("range-b")], unique("range")
    for topic in topics:
        create(topic, PARTITIONS)
    members = [Member(group, *topics, group_remote_assignor="range") for _ in range(2)]
    wait_for("both topics shared", lambda: shared(*members, partitions=2 * PARTITIONS))
    for member in members:
        equal({p for t, p in member.owned if t == topics[0]}, {p for t, p in member.owned if t == topics[1]}, "the same of both")
    for member in members:
        member.leave()


def a_regular_expression():
    mark = unique("regex")
    first, later, other = f"{mark}-a", f"{mark}-b", f"other-{mark}"
    create(first, PARTITIONS)
    create(other, PARTITIONS)
    member = Member(unique("regex"), f"^{re.escape(mark)}.*")
    wait_for("what matches", lambda: member.owned == {(first, p) for p in range(PARTITIONS)})
    create(later, PARTITIONS)
    wait_for("what came later", lambda: member.owned == {(topic, p) for topic in (first, later) for p in range(PARTITIONS)})
    produce(later, range(100), PARTITIONS)
    wait_for("its records", lambda: sorted(member.values) == list(range(100)))
    member.leave()


def a_static_member_comes_back():
    topic, group = unique("static"), unique("static")
    create(topic, PARTITIONS)
    first, other = Member(group, topic, group_instance_id="one"), Member(group, topic, group_instance_id="two")
    wait_for("a shared topic", lambda: shared(first, other))
    had, assigned = set(first.owned), other.assigned
    first.leave()
    produce(topic, range(400), PARTITIONS)
    again = Member(group, topic, group_instance_id="one")
    wait_for("what it had", lambda: again.owned == had)
    wait_for("all records", lambda: sorted(other.values + again.values) == list(range(400)))
    equal((other.assigned, other.lost), (assigned, 0), "what the other was given")
    again.leave()
    other.leave()


def commits_by_hand():
    topic, group = unique("commits"), unique("commits")
    create(topic, 1)
    produce(topic, range(100), 1)
    client = consumer(group, enable_auto_commit=False)
    client.subscribe([topic])
    read = []
    wait_for("some records", lambda: read.extend(m for m in client.consume(10, 0.5) if not m.error()) or len(read) >= 10)
    answered = client.commit(message=read[4], asynchronous=False)
    equal([(p.offset, p.error) for p in answered], [(5, None)])
    equal(client.committed([TopicPartition(topic, 0)], 10)[0].offset, 5)
    client.close()
    equal(committed(group), {(topic, 0): 5})
    # A member of a group is needed to commit for it, or none at all.
    again = Member(group, topic)
    wait_for("the rest", lambda: again.values == list(range(5, 100)))
    stranger = consumer(group, group_protocol="classic")
    try:
        stranger.commit(offsets=[TopicPartition(topic, 0, 1)], asynchronous=False)
        raise AssertionError("a stranger's commit was taken")
    except KafkaException as refused:
        equal(refused.args[0].name(), "UNKNOWN_MEMBER_ID")
    stranger.close()
    again.leave()
    equal(committed(group), {(topic, 0): 100})


def a_killed_member_is_replaced():
    topic, group = unique("killed"), group_with(consumer_session_timeout_ms=6000, consumer_heartbeat_interval_ms=1000)
    create(topic, PARTITIONS)
    survivor = Member(group, topic)
    wait_for("all partitions", lambda: shared(survivor))
    victim = subprocess.Popen([sys.executable, __file__, "member", group, topic], stdout=subprocess.PIPE, text=True)
    try:
        wait_for("a shared topic", lambda: len(survivor.owned) == PARTITIONS // 2)
        produce(topic, range(1000), PARTITIONS)
        wait_for("its own records", lambda: len(survivor.values) >= 500)
        got = [int(victim.stdout.readline()) for _ in range(500)]
    finally:
        victim.kill()
        victim.wait()
    wait_for("the rest to be taken over", lambda: shared(survivor))
    produce(topic, range(1000, 2000), PARTITIONS)
    # What the killed one had not committed comes again.
    wait_for("all records", lambda: set(range(2000)) <= set(got) | set(survivor.values))
    own = [value for value in survivor.values if value < 1000 and value not in set(got) or value >= 1000]
    equal(len(own), len(set(own)), "each of its own once")
    survivor.leave()


def a_killed_broker():
    topic, group = unique("broker"), unique("broker")
    create(topic, PARTITIONS)
    members = [Member(group, topic) for _ in range(2)]
    wait_for("a shared topic", lambda: shared(*members))
    produce(topic, range(1000), PARTITIONS)
    wait_for("the first records", lambda: sum(len(member.values) for member in members) >= 1000)
    before = [(set(member.owned), member.assigned) for member in members]
    broker("kill9")
    broker("start")
    produce(topic, range(1000, 2000), PARTITIONS)
    wait_for("the later ones", lambda: sum(len(member.values) for member in members) >= 2000)
    equal(sorted(value for member in members for value in member.values), list(range(2000)), "each record once")
    equal([(set(member.owned), member.assigned) for member in members], before, "partitions")
    for member in members:
        member.leave()


if sys.argv[1:2] == ["member"]:
    # Reads, and tells what, until it is killed.
    group, topic = sys.argv[2:]
    client = consumer(group, auto_commit_interval_ms=60000)
    client.subscribe([topic])
    while True:
        message = client.poll(1)
        if message is not None and not message.error():
            print(int(message.value()), flush=True)

print(f"CLIENT confluent-kafka (librdkafka {confluent_kafka.libversion()[0]})|{confluent_kafka.version()}|Python, C|consumer groups of KIP-848: joins, range, regular expressions, static members, commits, killed member and broker|groups-confluent-kafka/", flush=True)
run("groups-confluent-kafka", {
    "second-member": a_second_member_joins_and_leaves,
    "range": range_for_two_topics,
    "regular-expression": a_regular_expression,
    "static-member": a_static_member_comes_back,
    "commits": commits_by_hand,
    "killed-member": a_killed_member_is_replaced,
    "killed-broker": a_killed_broker,
})
