"""Topics of three replicas on three brokers, under load with acks=all: a rolling upgrade, and a follower whose disk is slow, damaged
or full. What was acknowledged is there in the end, once and in order, and the replicas are the same."""

import collections
import json
import os
import pathlib
import signal
import subprocess
import sys
import threading
import time

from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic
from harness import BOOTSTRAP, BROKER_CTL, CURL_OPTIONS, SETTINGS, equal, run, unique, wait_for

METAQ, WORK, DASHBOARD = os.environ["METAQ"], pathlib.Path(os.environ["WORK"]), os.environ["DASHBOARD"]
BROKERS, PARTITIONS = range(3), range(3)
TOPIC, FILL = unique("steady"), unique("fill")
# The follower whose disk fails, and what it has room for where its disk is small.
VICTIM, ROOM = 2, "24m"

print("CLIENT confluent-kafka|2.16.1|Python|acks=all through a rolling restart, and while a follower's disk is slow, damaged and full: nothing lost or doubled, order kept, replicas the same|replicas/")


class Load:
    """An idempotent producer to all partitions, and what it was told."""

    def __init__(self):
        self.goes_on, self.failed = True, []
        self.acknowledged = {partition: [] for partition in PARTITIONS}
        self.thread = threading.Thread(target=self.produce, daemon=True)

    def told(self, error, message):
        if error:
            self.failed.append((message.value()[:20], error.name()))
        else:
            self.acknowledged[message.partition()].append((time.monotonic(), message.offset(), message.value()))

    def produce(self):
        producer = Producer({**SETTINGS, "enable.idempotence": True, "delivery.timeout.ms": 60_000, "socket.timeout.ms": 5_000, "linger.ms": 5})
        n = 0
        while self.goes_on:
            # Random enough not to be compressed away by anybody.
            producer.produce(TOPIC, f"r{n} {os.urandom(40).hex()}".encode(), partition=n % len(PARTITIONS), on_delivery=self.told)
            producer.poll(0.002)
            n += 1
        producer.flush(60)

    def count(self):
        return [len(told) for told in self.acknowledged.values()]

    def goes_on_everywhere(self):
        before = self.count()
        wait_for("every partition to take records", lambda: all(now > then + 20 for now, then in zip(self.count(), before)), 30)

    def longest_gap(self, since):
        """The longest time without an acknowledgement, of any partition, in ms."""
        gaps = []
        for told in self.acknowledged.values():
            times = [since] + [at for at, _, _ in told if at >= since]
            gaps += [later - earlier for earlier, later in zip(times, times[1:])]
        return round(max(gaps) * 1000)


load = Load()


def control(verb, broker):
    subprocess.run([BROKER_CTL, verb, str(broker)], check=True)


def status():
    answer = subprocess.run([METAQ, "cluster", "status", "--json", "-d", DASHBOARD], capture_output=True, text=True)
    return json.loads(answer.stdout)


def lacks():
    """How many of the victim's replicas are out of sync."""
    broker = next(broker for broker in status()["brokers"] if broker["id"] == VICTIM)
    return broker["replicas"] - broker["in_sync"]


def all_in_sync():
    wait_for("all replicas to be in sync", lambda: (now := status())["partitions_under_replicated"] == 0 and len(now["brokers"]) == 3 and now["partitions_without_leader"] == 0, 40)


def follows_only():
    """The victim leads nothing: its disk is about to fail."""
    subprocess.run([METAQ, "cluster", "drain", str(VICTIM), "-b", BOOTSTRAP], check=True, stdout=subprocess.DEVNULL)


def starts():
    config = {"min.insync.replicas": "2"}
    admin = AdminClient(SETTINGS)
    wanted = [NewTopic(TOPIC, len(PARTITIONS), 3, config=config), NewTopic(FILL, 1, 3, config=config)]
    for future in admin.create_topics(wanted).values():
        future.result(20)
    load.thread.start()
    load.goes_on_everywhere()


def brokers_are_upgraded_one_by_one():
    for broker in BROKERS:
        since = time.monotonic()
        control("stop", broker)
        control("start", broker)
        all_in_sync()
        load.goes_on_everywhere()
        print(f"broker {broker} restarted: longest gap of a partition {load.longest_gap(since)} ms", file=sys.stderr)
        # Others lead before it goes: nobody waits for a session to end.
        equal(load.longest_gap(since) < 3000, True, "the gap is short")
    equal(load.failed, [], "not acknowledged")


def a_follower_with_a_slow_disk_falls_out_and_comes_back():
    follows_only()
    pid = (WORK / f"pid-{VICTIM}").read_text().strip()
    slow = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", "trace=pwritev,pwrite64", "-e", "inject=pwritev,pwrite64:delay_enter=3000000", "-p", pid]
    traced = subprocess.Popen(slow, stderr=subprocess.DEVNULL)
    try:
        wait_for("it to fall out of sync", lambda: lacks() > 0, 20)
        load.goes_on_everywhere()
        events = subprocess.run(["curl", "-s", *CURL_OPTIONS, f"http://{DASHBOARD}/api/events?kind=in_sync"], capture_output=True, text=True).stdout
    finally:
        traced.send_signal(signal.SIGINT)
        traced.wait(20)
    all_in_sync()
    load.goes_on_everywhere()
    return events


def damage(segment):
    """Turns some bits near the end of a file."""
    with open(segment, "r+b") as file:
        file.seek(-1500, os.SEEK_END)
        turned = bytes(byte ^ 0x55 for byte in file.read(40))
        file.seek(-1500, os.SEEK_END)
        file.write(turned)


def a_damaged_segment_of_a_follower_is_copied_again():
    load.goes_on_everywhere()
    control("kill9", VICTIM)
    data = WORK / f"data-{VICTIM}"
    # As if the machine had gone down with it: what was not synced is checked at the start.
    (data / "metaq-running").unlink()
    for partition in PARTITIONS:
        damage(sorted((data / f"{TOPIC}-{partition}").glob("*.log"))[-1])
    control("start", VICTIM)
    all_in_sync()
    load.goes_on_everywhere()
    log = (WORK / "broker.log").read_text()
    found = [line for line in log.splitlines() if line.startswith(f"{VICTIM}|") and "recovered after a crash" in line and TOPIC in line]
    equal(len(found), len(PARTITIONS), "damaged partitions that were found")


def a_follower_with_a_full_disk_keeps_nobody_from_going_on():
    control("stop", VICTIM)
    data = WORK / f"data-{VICTIM}"
    small = f"mount -t tmpfs -o size={ROOM} none '{data}' && exec '{BROKER_CTL}' start {VICTIM}"
    own_mounts = ["unshare", "-m"] if os.geteuid() == 0 else ["unshare", "-rm"]
    subprocess.run([*own_mounts, "sh", "-c", small], check=True)
    all_in_sync()
    filler = Producer({**SETTINGS, "linger.ms": 20})
    for _ in range(400):
        filler.produce(FILL, os.urandom(100_000), partition=0)
        filler.poll(0)
        if filler.__len__() > 50:
            filler.poll(0.2)
    equal(filler.flush(60), 0, "the others take all of it")
    wait_for("it to be out of sync", lambda: lacks() > 0, 30)
    load.goes_on_everywhere()
    control("stop", VICTIM)
    # On the disk that it had before, with what was there then.
    control("start", VICTIM)
    all_in_sync()
    load.goes_on_everywhere()


def everything_acknowledged_is_there_once_and_in_order():
    load.goes_on = False
    load.thread.join(70)
    equal(load.failed, [], "not acknowledged")
    consumer = Consumer({**SETTINGS, "group.id": "unused", "enable.auto.commit": False})
    ends = {partition: consumer.get_watermark_offsets(TopicPartition(TOPIC, partition), 20)[1] for partition in PARTITIONS}
    consumer.assign([TopicPartition(TOPIC, partition, 0) for partition in PARTITIONS])
    found = {partition: {} for partition in PARTITIONS}

    def all_read():
        for message in consumer.consume(1000, 0.2):
            if not message.error():
                found[message.partition()][message.offset()] = message.value()
        return all(max(found[partition], default=-1) + 1 >= end for partition, end in ends.items())

    wait_for("everything to be read", all_read)
    consumer.close()
    for partition, told in load.acknowledged.items():
        missing = [offset for _, offset, value in told if found[partition].get(offset) != value]
        equal(missing, [], f"acknowledged and not there, of partition {partition}")
        numbers = [int(found[partition][offset].split()[0][1:]) for offset in sorted(found[partition])]
        equal(numbers, sorted(set(numbers)), f"once and in order, in partition {partition}")
    print(f"{sum(load.count())} records acknowledged", file=sys.stderr)


def replicas_are_the_same():
    all_in_sync()
    for broker in BROKERS:
        control("stop", broker)
    logs = collections.defaultdict(list)
    for broker in BROKERS:
        for partition in PARTITIONS:
            segments = sorted((WORK / f"data-{broker}" / f"{TOPIC}-{partition}").glob("*.log"))
            logs[partition].append(b"".join(segment.read_bytes() for segment in segments))
    for partition, copies in logs.items():
        equal([len(copy) for copy in copies], [len(copies[0])] * 3, f"bytes of partition {partition}")
        equal(all(copy == copies[0] for copy in copies), True, f"partition {partition} is the same everywhere")
    for broker in BROKERS:
        verified = subprocess.run([METAQ, "log", "verify", str(WORK / f"data-{broker}")], capture_output=True, text=True)
        equal(verified.returncode, 0, f"broker {broker}: {verified.stdout} {verified.stderr}")
        # As whoever looks after the suite expects it.
        control("start", broker)


def slow_disk():
    events = a_follower_with_a_slow_disk_falls_out_and_comes_back()
    equal("replica.lag.time.max.ms" in events, True, f"why it fell out is told: {events:.300}")


tests = {
    "starts": starts,
    "brokers-are-upgraded-one-by-one": brokers_are_upgraded_one_by_one,
    "a-follower-with-a-slow-disk-falls-out-and-comes-back": slow_disk,
    "a-damaged-segment-of-a-follower-is-copied-again": a_damaged_segment_of_a_follower_is_copied_again,
    "a-follower-with-a-full-disk-keeps-nobody-from-going-on": a_follower_with_a_full_disk_keeps_nobody_from_going_on,
    "everything-acknowledged-is-there-once-and-in-order": everything_acknowledged_is_there_once_and_in_order,
    "replicas-are-the-same": replicas_are_the_same,
}
run("replicas", tests)
