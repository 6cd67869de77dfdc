"""confluent-kafka's share consumer, which is librdkafka's: records acknowledged one by one, released, rejected, taken over from the dead."""

import subprocess
import sys
import time

import confluent_kafka
from confluent_kafka import AcknowledgeType, ShareConsumer

from grouped import create, group_with, produce
from harness import SETTINGS, broker, equal, run, unique, wait_for

EARLIEST = {"share_auto_offset_reset": "earliest"}


def consumer(group, mode, topic, **more):
    settings = {**SETTINGS, "group.id": group, "share.acknowledgement.mode": mode}
    settings.update({name.replace("_", "."): value for name, value in more.items()})
    client = ShareConsumer(settings)
    client.subscribe([topic])
    return client


def poll(client):
    """What comes within a moment: numbers and messages."""
    messages = list(client.poll(0.2))
    equal([message.error() for message in messages if message.error()], [])
    return [(int(message.value()), message) for message in messages]


def committed(client):
    failed = {where: error for where, error in client.commit_sync(30).items() if error}
    equal(failed, {}, "refused")


def nothing_is_left(group, topic):
    with consumer(group, "implicit", topic) as client:
        until = time.monotonic() + 2
        while time.monotonic() < until:
            equal([number for number, _ in poll(client)], [], "left")


def implicit():
    topic, group = unique("implicit"), group_with(**EARLIEST)
    create(topic, 3)
    produce(topic, range(2000), 3)
    clients = [consumer(group, "implicit", topic) for _ in range(2)]
    got = []

    def all_came():
        for client in clients:
            got.extend((number, message.delivery_count()) for number, message in poll(client))
        return len(got) >= 2000

    wait_for("all records", all_came)
    for client in clients:
        committed(client)
        client.close()
    equal(sorted(got), [(number, 1) for number in range(2000)], "each once")
    nothing_is_left(group, topic)


def one_by_one():
    topic, group = unique("each"), group_with(**EARLIEST)
    create(topic, 1)
    produce(topic, range(60), 1)
    told, got = [], []
    client = consumer(group, "explicit", topic)
    client.set_acknowledgement_commit_callback(lambda offsets, error: told.extend(offset for some in offsets.values() for offset in some) if error is None else told.append(error))

    def all_came():
        for number, message in poll(client):
            client.acknowledge(message)
            committed(client)
            got.append(number)
        return len(got) >= 60

    wait_for("all records", all_came)
    client.close()
    equal(got, list(range(60)), "each once")
    equal(sorted(told), list(range(60)), "what the callback was told")
    nothing_is_left(group, topic)


def release_and_reject():
    topic, group = unique("release"), group_with(**EARLIEST, share_delivery_count_limit=3)
    create(topic, 1)
    produce(topic, range(60), 1)
    counts = {}
    # One that is always given back, some that nobody wants, some that are wanted the second time.
    expected = {number: 3 if number == 7 else 2 if number % 3 == 0 and number % 10 else 1 for number in range(60)}
    client = consumer(group, "explicit", topic)

    def all_came():
        for number, message in poll(client):
            equal(message.delivery_count(), counts.get(number, 0) + 1, f"delivery of {number}")
            counts[number] = message.delivery_count()
            if number % 10 == 0:
                client.acknowledge(message, AcknowledgeType.REJECT)
            elif counts[number] < expected[number] or number == 7:
                client.acknowledge_offset(topic, message.partition(), message.offset(), AcknowledgeType.RELEASE)
            else:
                client.acknowledge(message)
        committed(client)
        return counts == expected

    wait_for("all records as often as they should", all_came)
    client.close()
    nothing_is_left(group, topic)


def a_killed_member():
    topic, group = unique("killed"), group_with(**EARLIEST)
    create(topic, 1)
    produce(topic, range(90), 1)
    victim = subprocess.Popen([sys.executable, __file__, "member", group, topic], stdout=subprocess.PIPE, text=True)
    try:
        accepted = {int(number) for number in victim.stdout.readline().split()}
    finally:
        victim.kill()
        victim.wait()
    equal(accepted, set(range(0, 90, 3)), "accepted before its death")
    client, got = consumer(group, "explicit", topic), []

    def all_came():
        for number, message in poll(client):
            got.append((number, message.delivery_count()))
            client.acknowledge(message)
        committed(client)
        return len(got) >= 60

    wait_for("the rest", all_came)
    client.close()
    equal(sorted(got), [(number, 2) for number in range(90) if number % 3], "what it had, once more")
    nothing_is_left(group, topic)


def a_killed_broker():
    topic, group = unique("broker"), group_with(**EARLIEST)
    create(topic, 2)
    produce(topic, range(2000), 2)
    client = consumer(group, "explicit", topic, max_poll_records=100)
    accepted, killed = set(), []

    def all_accepted():
        some = {}
        for number, message in poll(client):
            equal(number in accepted, False, f"{number} after it was accepted")
            some.setdefault(message.partition(), set()).add(number)
            client.acknowledge(message)
        if accepted and some and not killed:
            # What the member has now it cannot say in time.
            killed.append(True)
            broker("kill9")
            broker("start")
        for where, error in client.commit_sync(30).items():
            if not error:
                accepted.update(some.get(where.partition, set()))
        return len(accepted) == 2000

    wait_for("all to be accepted", all_accepted, 60)
    equal(killed, [True], "a broker that was killed in between")
    client.close()
    nothing_is_left(group, topic)


if sys.argv[1:2] == ["member"]:
    # Takes all, accepts each third, says which, and waits for its end.
    group, topic = sys.argv[2:]
    client, got = consumer(group, "explicit", topic), []
    while len(got) < 90:
        got.extend(poll(client))
        thirds = [message for number, message in got if number % 3 == 0]
        if len(got) == 90:
            for message in thirds:
                client.acknowledge(message)
            committed(client)
            print(*[int(message.value()) for message in thirds], flush=True)
    while True:
        time.sleep(1)

print(f"CLIENT confluent-kafka (librdkafka {confluent_kafka.libversion()[0]})|{confluent_kafka.version()}|Python, C|share groups: implicit, one by one, release, reject, killed member and broker|shares-confluent-kafka/", flush=True)
run("shares-confluent-kafka", {
    "implicit": implicit,
    "one-by-one": one_by_one,
    "release-and-reject": release_and_reject,
    "killed-member": a_killed_member,
    "killed-broker": a_killed_broker,
})
