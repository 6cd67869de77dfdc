"""Two brokers and a Java group of three: what ZooKeeper's shell shows, beside what Kafka's tools print."""

import glob
import json
import os
import re
import subprocess
import time

from harness import BOOTSTRAP, BROKER_CTL, TOOL_OPTIONS, equal, run, unique

JARS, ROOT, ZOOKEEPER_CTL = (os.environ[name] for name in ("JARS", "ZOOKEEPER_ROOT", "ZOOKEEPER_CTL"))
TOPIC, GROUP = unique("topic"), unique("group")
GROUP_PATH = f"{ROOT}/consumers/{GROUP}"
PARTITIONS = range(10)
IDENTITIES = [f"{partition // 5}-{partition % 5}" for partition in PARTITIONS]
# The partitions of each broker.
HOMES = {0: PARTITIONS[:5], 1: PARTITIONS[5:]}
produced = dict.fromkeys(PARTITIONS, 0)

print("CLIENT zkCli|3.9.5|Java|members, owners and offsets of a Java group as kafka-consumer-groups prints them; a broker killed; ZooKeeper killed, and silent|zookeeper/")


def eventually(check, seconds=40):
    """Calls check until it does not fail; returns what it returns."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            return check()
        except AssertionError:
            if time.monotonic() > deadline:
                raise
        time.sleep(0.1)


def control(ctl, verb, *number):
    subprocess.run([ctl, verb, *map(str, number)], check=True)


def java(jars, main, *arguments, **options):
    class_path = ":".join(glob.glob(f"{JARS}/{jars}/*.jar"))
    program = ["java", "-Xmx128m", "-XX:TieredStopAtLevel=1", "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn", "-cp", class_path, main]
    done = subprocess.run([*program, *arguments], capture_output=True, text=True, timeout=60, **options)
    return done.stdout, done.stderr


def zkcli(*commands):
    """What ZooKeeper's shell prints for each command. Its version stands between them."""
    lines = "".join(f"{command}\n" for command in ("version", *(line for command in commands for line in (command, "version"))))
    printed, errors = java("zookeeper", "org.apache.zookeeper.ZooKeeperMain", "-waitforconnection", "-server", os.environ["ZOOKEEPER"], input=lines)
    _banner, *answers = re.split(r"^ZooKeeper CLI version: .*\n", printed, flags=re.MULTILINE)
    equal(len(answers), len(commands) + 1, f"answers; {errors[-300:]}")
    return [answer.strip() for answer in answers[:-1]]


def children(answer):
    return sorted(name for name in answer.strip("[]").split(", ") if name)


def record(answer):
    equal(answer[:1], "{", "the beginning of a record")
    return json.loads(answer)


def ephemeral(answer):
    return re.search(r"^ephemeralOwner = 0x[1-9a-f]", answer, re.MULTILINE) is not None


def kcat(*arguments, to=BOOTSTRAP, **options):
    return subprocess.run(["kcat", "-b", to, *arguments], capture_output=True, text=True, timeout=40, **options)


def produce(partitions, count=5, wait_ms=20_000):
    for partition in partitions:
        sent = kcat("-P", "-t", TOPIC, "-p", str(partition), "-X", "acks=all", "-X", f"message.timeout.ms={wait_ms}", input="x\n" * count)
        equal(sent.returncode, 0, f"producing to partition {partition}: {sent.stderr[-300:]}; exit code")
        produced[partition] += count


def leaders(to=BOOTSTRAP):
    """By partition, as clients are told; -1 for none."""
    listed = kcat("-L", "-J", "-t", TOPIC, to=to)
    equal(listed.returncode, 0, f"kcat -L: {listed.stderr[-300:]}; exit code")
    [topic] = json.loads(listed.stdout)["topics"]
    return {partition["partition"]: partition["leader"] for partition in topic["partitions"]}


def is_led(*brokers):
    """Whoever is asked says that these brokers lead their partitions, and nobody the others."""
    expected = {partition: broker if broker in brokers else -1 for broker, home in HOMES.items() for partition in home}
    for broker in brokers:
        equal(leaders(to=BOOTSTRAP.split(",")[broker]), expected, f"leaders by broker {broker}")


def consumer_groups():
    """Member and offset by partition, as kafka-consumer-groups prints them; all records are read."""
    printed, _ = java("kafka", "org.apache.kafka.tools.consumer.group.ConsumerGroupCommand", *TOOL_OPTIONS, "--describe", "--group", GROUP)
    rows = [line.split() for line in printed.splitlines() if line.startswith(GROUP)]
    equal(sorted(int(row[2]) for row in rows), list(PARTITIONS), f"partitions in {printed}")
    rows = {int(partition): (member, int(offset), int(end)) for _, _, partition, offset, end, _, member, *_ in rows if offset != "-"}
    equal({partition: (offset, end) for partition, (_, offset, end) in rows.items()}, {partition: (count, count) for partition, count in produced.items()}, "offset and end")
    return {partition: (member, offset) for partition, (member, offset, _) in rows.items()}


class Shown:
    """The group as it is in ZooKeeper."""

    def __init__(self, partitions=PARTITIONS):
        identities = [IDENTITIES[partition] for partition in partitions]
        owners = [f"get {GROUP_PATH}/owners/{TOPIC}/{identity}" for identity in IDENTITIES]
        offsets = [f"get {GROUP_PATH}/offsets/{TOPIC}/{identity}" for identity in identities]
        group, ids, all_owners, all_offsets, *rest = zkcli(f"get {GROUP_PATH}", f"ls {GROUP_PATH}/ids", f"ls {GROUP_PATH}/owners/{TOPIC}", f"ls {GROUP_PATH}/offsets/{TOPIC}", *owners, *offsets)
        self.generation, self.ids = record(group)["generation"], children(ids)
        self.owners = dict(zip(PARTITIONS, rest))
        self.offsets = {partition: record(answer)["offset"] for partition, answer in zip(partitions, rest[len(owners):])}
        equal(len(self.ids), 3, "members")
        equal(children(all_owners), sorted(IDENTITIES), "partitions with an owner")
        equal(set(self.owners.values()), set(self.ids), "owners")
        equal(self.offsets, {partition: produced[partition] for partition in partitions}, "offsets")
        equal(set(children(all_offsets)) >= set(identities), True, "partitions with an offset")


def both_agree():
    """ZooKeeper's shell shows what Kafka's tool prints."""
    printed = consumer_groups()
    shown = Shown()
    equal({partition: (shown.owners[partition], shown.offsets[partition]) for partition in PARTITIONS}, printed, "owners and offsets")
    return shown


def the_cluster():
    java("kafka", "org.apache.kafka.tools.TopicCommand", *TOOL_OPTIONS, "--create", "--topic", TOPIC, "--partitions", "10", "--replication-factor", "1")
    masters = [f"{ROOT}/brokers/ids/{broker}/master" for broker in HOMES]
    topic, ids, controller, *stats = zkcli(
        f"get {ROOT}/brokers/topics/{TOPIC}", f"ls {ROOT}/brokers/ids", f"get {ROOT}/controller", *(f"stat {path}" for path in [*masters, f"{ROOT}/controller"]))
    equal([(partition["identity"], partition["replicas"][0]) for partition in record(topic)["partitions"]], [(identity, int(identity[0])) for identity in IDENTITIES], "identities and homes")
    equal(children(ids), ["0", "1"], "brokers")
    equal(record(controller)["broker_id"] in HOMES, True, "the controller is one of them")
    equal([ephemeral(stat) for stat in stats], [True] * 3, "ephemerals")
    eventually(lambda: is_led(0, 1))


def the_group():
    for partition in PARTITIONS:
        produce([partition], 10 + partition)
    shown = eventually(both_agree)
    stats = zkcli(*(f"stat {GROUP_PATH}/ids/{member}" for member in shown.ids))
    equal([ephemeral(stat) for stat in stats], [True] * 3, "ephemerals")


def broker_killed(victim):
    """Its partitions are without a leader, the other broker takes over the rest, and the group does not notice."""
    other = 1 - victim
    before = eventually(both_agree)
    control(BROKER_CTL, "kill9", victim)
    eventually(lambda: is_led(other))
    master, controller = zkcli(f"ls {ROOT}/brokers/ids/{victim}", f"get {ROOT}/controller")
    equal(children(master), [], "the dead broker's registration")
    produce(HOMES[other])
    eventually(lambda: equal(record(zkcli(f"get {ROOT}/controller")[0])["broker_id"], other, "the controller"))
    during = eventually(lambda: Shown(HOMES[other]))
    equal((during.generation, during.ids, during.owners), (before.generation, before.ids, before.owners), "the group")
    control(BROKER_CTL, "start", victim)
    eventually(lambda: is_led(0, 1))
    produce(PARTITIONS)
    after = eventually(both_agree)
    equal((after.generation, after.ids, after.owners), (before.generation, before.ids, before.owners), "the group")


def zookeeper_killed():
    """What is led goes on being led, and what was committed is there when ZooKeeper is."""
    before = eventually(both_agree)
    control(ZOOKEEPER_CTL, "kill9")
    produce(PARTITIONS, wait_ms=2000)
    control(ZOOKEEPER_CTL, "start")
    after = eventually(both_agree)
    equal((after.generation, after.ids, after.owners), (before.generation, before.ids, before.owners), "the group")


def zookeeper_silent():
    """No broker leads for longer than its session lasts, and all goes on when ZooKeeper answers again."""
    eventually(both_agree)
    control(ZOOKEEPER_CTL, "pause")
    try:
        def is_refused():
            try:
                produce(PARTITIONS[:1], 1, wait_ms=500)
            except AssertionError:
                return
            raise AssertionError("still produced to")

        eventually(is_refused, float(os.environ["SESSION_TIMEOUT_MS"]) / 1000 + 2)
    finally:
        control(ZOOKEEPER_CTL, "resume")
    eventually(lambda: is_led(0, 1))
    produce(PARTITIONS)
    eventually(both_agree)


members = None


def with_members(test):
    """The group reads from its first test on."""
    def started():
        global members
        if members is None:
            members = subprocess.Popen(["java", "-Xmx192m", "-cp", os.environ["MEMBERS"], "Members", TOPIC, GROUP], stdin=subprocess.PIPE)
        test()
        equal(members.poll(), None, "exit code of the group")
    return started


run("zookeeper", {
    "cluster": the_cluster,
    "group": with_members(the_group),
    "broker-1-killed": with_members(lambda: broker_killed(1)),
    "broker-0-killed": with_members(lambda: broker_killed(0)),
    "zookeeper-killed": with_members(zookeeper_killed),
    "zookeeper-silent": with_members(zookeeper_silent),
})
if members is not None:
    members.stdin.close()
    members.wait(30)
