"""Java, librdkafka and franz-go produce and read in groups all the time, while what they work with fails.

Each client program prints a line for all that it was told: `ACK ms value partition offset`, `FAILED ms value why`,
`READ ms member partition offset value`, `COMMITTED ms member partition next-offset`, `ASSIGNED|REVOKED|LOST ms member
partitions`. After each failure everybody must get on by himself; at the end nothing acknowledged is missing or doubled,
everything was read, no committed offset ever went back, and no two members owned a partition at a time.
"""

import collections
import json
import os
import subprocess
import sys
import threading
import time

from confluent_kafka import Consumer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic
from harness import BOOTSTRAP, BROKER_CTL, SETTINGS, equal, run, unique, wait_for

ZOOKEEPER_CTL = os.environ["ZOOKEEPER_CTL"]
METAQ = os.environ["METAQ"]
SESSION = int(os.environ["SESSION_TIMEOUT_MS"]) / 1000
BROKERS = range(3)
PARTITIONS = range(6)
# Of each partition.
SUITE = os.environ["SUITE"]
REPLICAS = 3 if SUITE == "failures-replicas" else 1

print(f"CLIENT kafka-clients, confluent-kafka, franz-go|4.4.0, 2.16.1, 1.22.3|Java, Python, Go|producers and groups that go on while brokers and ZooKeeper are killed, stopped and cut off: nothing lost or doubled, no offset back, one owner a partition{', each of three replicas' if REPLICAS > 1 else ''}|{SUITE}/")


class Steady:
    """A client program and what it said."""

    def __init__(self, name, *program):
        self.name, self.topic, self.group = name, unique(name), unique(f"{name}-group")
        self.said = collections.defaultdict(list)
        self.program, self.process = program, None

    def start(self):
        log = open(f"{os.environ['WORK']}/{self.name}.err", "w")
        self.process = subprocess.Popen([*self.program, self.topic, self.group], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True)
        threading.Thread(target=self.listen, daemon=True).start()

    def listen(self):
        for line in self.process.stdout:
            what, ms, *words = line.split()
            self.said[what].append((int(ms), *words))

    def next_step(self):
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def progress(self):
        """How many records of each partition were acknowledged, and how many read and committed."""
        acknowledged = collections.Counter(int(words[2]) for words in self.said["ACK"])
        committed = collections.Counter(int(words[2]) for words in self.said["COMMITTED"])
        return [(acknowledged[partition], committed[partition]) for partition in PARTITIONS]


clients = [
    Steady("java", "java", "-Xmx160m", "-XX:TieredStopAtLevel=1", "-cp", os.environ["STEADY_JAVA"], "Steady"),
    Steady("librdkafka", "../.work/venv/bin/python", "steady.py"),
    Steady("franz-go", "../.work/go/compat", "steady"),
]
# Committed offsets as the coordinator told them, by group and partition, in order.
history = collections.defaultdict(list)
watching = True


def watch_offsets():
    """Asks for the groups' offsets all the time; when nobody answers, it asks again."""
    while watching:
        for client in clients:
            asked = subprocess.run([METAQ, "group", "describe", client.group, "--json", "-b", BOOTSTRAP], capture_output=True, text=True, timeout=90)
            if asked.returncode == 0:
                for row in json.loads(asked.stdout)["partitions"]:
                    if row["offset"] is not None:
                        history[client.group, row["partition"]].append(row["offset"])
        time.sleep(0.2)


def control(ctl, verb, *numbers):
    subprocess.run([ctl, verb, *map(str, numbers)], check=True)


def all_go_on():
    """Every partition of every client takes records and gets read, from now on."""
    before = [client.progress() for client in clients]

    def everybody():
        now = [client.progress() for client in clients]
        return all(a > b and c > d for after, then in zip(now, before) for (a, c), (b, d) in zip(after, then))

    try:
        wait_for("all clients to go on", everybody, 60)
    except AssertionError as error:
        raise AssertionError(f"{error}: {[client.progress() for client in clients]} after {before}") from None


def everybody_starts():
    admin = AdminClient(SETTINGS)
    config = {"min.insync.replicas": str((REPLICAS + 1) // 2)}
    topics = [NewTopic(client.topic, len(PARTITIONS), REPLICAS, config=config) for client in clients]
    for future in admin.create_topics(topics).values():
        future.result(20)
    for client in clients:
        client.start()
    threading.Thread(target=watch_offsets, daemon=True).start()
    all_go_on()


def described():
    answer = subprocess.run([METAQ, "cluster", "status", "--json", "-d", os.environ["DASHBOARD"]], capture_output=True, text=True)
    return json.loads(answer.stdout)


def zookeeper_is_killed():
    control(ZOOKEEPER_CTL, "kill9")
    time.sleep(1)
    control(ZOOKEEPER_CTL, "start")
    all_go_on()


def zookeeper_is_silent_for_less_than_a_session():
    control(ZOOKEEPER_CTL, "pause")
    time.sleep(SESSION / 2)
    control(ZOOKEEPER_CTL, "resume")
    all_go_on()


def zookeeper_is_silent_for_more_than_a_session():
    control(ZOOKEEPER_CTL, "pause")
    time.sleep(SESSION * 2)
    control(ZOOKEEPER_CTL, "resume")
    all_go_on()


def each_server_of_the_ensemble_is_killed():
    """One of them leads the others."""
    for server in range(3):
        control(ZOOKEEPER_CTL, "kill9", server)
        all_go_on()
        control(ZOOKEEPER_CTL, "start", server)


def wrong_with_the_way(what):
    with open(f"{os.environ['WORK']}/proxy/faults", "w") as faults:
        faults.write(what)


def zookeeper_is_slow():
    wrong_with_the_way("slow 200")
    all_go_on()
    time.sleep(SESSION)
    all_go_on()
    wrong_with_the_way("")
    all_go_on()


def brokers_are_cut_off_from_zookeeper_for_less_than_a_session():
    wrong_with_the_way("closed")
    time.sleep(SESSION / 2)
    wrong_with_the_way("")
    all_go_on()


def brokers_are_cut_off_from_zookeeper_for_more_than_a_session():
    wrong_with_the_way("closed")
    time.sleep(SESSION * 2)
    wrong_with_the_way("")
    all_go_on()


def a_coordinator_is_killed():
    control(BROKER_CTL, "kill9", 1)
    time.sleep(SESSION + 1)
    control(BROKER_CTL, "start", 1)
    all_go_on()


def the_controller_is_killed_and_back_within_its_session():
    controller = described()["controller_id"]
    control(BROKER_CTL, "kill9", controller)
    control(BROKER_CTL, "start", controller)
    all_go_on()


def a_broker_is_stopped_past_its_session():
    control(BROKER_CTL, "pause", 2)
    time.sleep(SESSION * 2)
    control(BROKER_CTL, "resume", 2)
    all_go_on()


def all_brokers_are_killed():
    control(BROKER_CTL, "kill9")
    control(BROKER_CTL, "start")
    all_go_on()


def everything_is_killed():
    control(BROKER_CTL, "kill9")
    control(ZOOKEEPER_CTL, "kill9")
    control(ZOOKEEPER_CTL, "start")
    control(BROKER_CTL, "start")
    all_go_on()


def brokers_stop_in_order_one_by_one():
    for broker in BROKERS:
        control(BROKER_CTL, "restart", broker)
    all_go_on()


def stored(topic):
    """All that is in a topic, by partition: (offset, value)."""
    consumer = Consumer({**SETTINGS, "group.id": "unused", "enable.auto.commit": False})
    ends = {partition: consumer.get_watermark_offsets(TopicPartition(topic, partition), 20)[1] for partition in PARTITIONS}
    consumer.assign([TopicPartition(topic, partition, 0) for partition in PARTITIONS])
    found = collections.defaultdict(list)

    def all_there():
        for message in consumer.consume(1000, 0.2):
            if not message.error():
                found[message.partition()].append((message.offset(), message.value().decode()))
        return all(found[partition] and found[partition][-1][0] + 1 >= end for partition, end in ends.items() if end)

    wait_for("everything in the topic", all_there)
    consumer.close()
    return found


def nothing_is_lost_or_doubled():
    for client in clients:
        client.next_step()
    wait_for("producers to end", lambda: all(client.said["PRODUCED"] for client in clients), 150)
    for client in clients:
        equal([words[1:] for words in client.said["FAILED"]], [], f"{client.name}: not acknowledged")
        found = stored(client.topic)
        there = {(str(partition), str(offset)): value for partition, records in found.items() for offset, value in records}
        missing = [words for words in client.said["ACK"] if there.get((words[2], words[3])) != words[1]]
        equal(missing, [], f"{client.name}: acknowledged and not there")
        twice = [value for value, count in collections.Counter(there.values()).items() if count > 1]
        equal(twice, [], f"{client.name}: there twice")
        for partition, records in found.items():
            numbers = [int(value[1:]) for _, value in records]
            equal(numbers, sorted(numbers), f"{client.name}: order in partition {partition}")
        values = set(there.values())
        wait_for(f"{client.name} to read everything", lambda: values <= {words[4] for words in client.said["READ"]}, 60)


def no_offset_goes_back_and_all_is_committed():
    global watching
    time.sleep(1)
    watching = False
    for client in clients:
        client.next_step()
    for client in clients:
        equal(client.process.wait(60), 0, f"{client.name}: exit code")
    for (group, partition), offsets in history.items():
        equal(offsets, sorted(offsets), f"{group}: committed offsets of partition {partition}")
    for client in clients:
        asked = subprocess.run([METAQ, "group", "describe", client.group, "--json", "-b", BOOTSTRAP], capture_output=True, text=True, check=True)
        rows = json.loads(asked.stdout)["partitions"]
        equal([(row["partition"], row["lag"]) for row in rows], [(partition, 0) for partition in PARTITIONS], f"{client.name}: lag")
        told = collections.defaultdict(int)
        for _, _, partition, offset in client.said["COMMITTED"]:
            told[int(partition)] = max(told[int(partition)], int(offset))
        for row in rows:
            equal(row["offset"] >= told[row["partition"]], True, f"{client.name}: what was told of partition {row['partition']} holds")


def no_partition_has_two_owners():
    for client in clients:
        counts = ", ".join(f"{len(lines)} {what}" for what, lines in client.said.items())
        print(f"{client.name}: {counts}, {sum(map(len, history.values()))} offsets asked for", file=sys.stderr)
        changes = sorted((ms, what != "ASSIGNED", what, member, partitions) for what in ("ASSIGNED", "REVOKED", "LOST") for ms, member, partitions in client.said[what])
        # A revocation in the same millisecond came first, for the assignment follows from it.
        changes.sort(key=lambda change: (change[0], not change[1]))
        owner = {}
        for ms, _, what, member, partitions in changes:
            for partition in [] if partitions == "-" else partitions.split(","):
                if what == "ASSIGNED":
                    equal(owner.get(partition, member), member, f"{client.name}: partition {partition} at {ms} is assigned to {member} and owned by")
                    owner[partition] = member
                elif owner.get(partition) == member:
                    del owner[partition]


tests = [
    everybody_starts,
    zookeeper_is_killed,
    zookeeper_is_silent_for_less_than_a_session,
    each_server_of_the_ensemble_is_killed,
    zookeeper_is_slow,
    brokers_are_cut_off_from_zookeeper_for_less_than_a_session,
    brokers_are_cut_off_from_zookeeper_for_more_than_a_session,
    a_coordinator_is_killed,
    the_controller_is_killed_and_back_within_its_session,
    a_broker_is_stopped_past_its_session,
    zookeeper_is_silent_for_more_than_a_session,
    brokers_stop_in_order_one_by_one,
    all_brokers_are_killed,
    everything_is_killed,
    nothing_is_lost_or_doubled,
    no_offset_goes_back_and_all_is_committed,
    no_partition_has_two_owners,
]
try:
    run(SUITE, {test.__name__.replace("_", "-"): test for test in tests})
finally:
    watching = False
    for client in clients:
        if client.process and client.process.poll() is None:
            client.process.kill()
