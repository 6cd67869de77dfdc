"""Members of one broadcast group, each with another client, protocol or assignor, as processes that can be killed."""

import json
import os
import signal
import subprocess
import sys

from confluent_kafka import Producer, version
from confluent_kafka.admin import AdminClient, NewTopic

from harness import BOOTSTRAP, SETTINGS, TOOL_OPTIONS, equal, run, unique, wait_for

print("CLIENT kcat, kafka-clients, confluent-kafka|Debian's, 4.4.0, " + version() + "|C, Java, Python|members of a broadcast group, of both protocols, that get everything each, two killed and back; kafka-configs, kafka-consumer-groups|broadcast/")
WORK = os.environ["WORK"]
GROUP, TOPIC = unique("push"), unique("settings")
MESSAGES, PARTITIONS = 100_000, 4
READERS = []


def java(name, *arguments):
    command = ["java", "-Xmx128m", "-XX:TieredStopAtLevel=1", name, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout


def tool(name, *arguments):
    return java(name, *TOOL_OPTIONS, *arguments)


def consumer_groups(*arguments):
    """What kafka-consumer-groups says, a list of words a line, without the headings."""
    told = tool("org.apache.kafka.tools.consumer.group.ConsumerGroupCommand", "--describe", "--group", GROUP, *arguments)
    return [line.split() for line in told.splitlines() if line.startswith(GROUP)]


class Reader:
    """A member. What it read since it was last started is in a file."""

    def __init__(self, name, command):
        self.name, self.command, self.process = name, command, None
        self.path = f"{WORK}/{name}"
        READERS.append(self)
        self.start()

    def start(self):
        with open(self.path, "wb") as out, open(f"{self.path}.err", "ab") as err:
            self.process = subprocess.Popen(self.command, stdout=out, stderr=err)

    def kill(self):
        self.process.kill()
        self.process.wait()

    def values(self):
        with open(self.path) as file:
            return [int(line) for line in file.read().split("\n")[:-1]]

    def wait_for(self, expected):
        """All of these, once and nothing else."""
        wait_for(f"{len(expected)} messages at {self.name}", lambda: len(self.values()) >= len(expected))
        equal(sorted(self.values()), list(expected), self.name)


def with_java(name, *settings, topic=TOPIC):
    return Reader(name, ["java", "-Xmx160m", "-XX:TieredStopAtLevel=1", "Reader", GROUP, topic, *settings])


def with_python(name, *settings, topic=TOPIC):
    return Reader(name, [sys.executable, "reader.py", GROUP, topic, *settings])


def with_kcat(name, *settings):
    options = [word for setting in settings for word in ("-X", setting)]
    return Reader(name, ["kcat", "-b", BOOTSTRAP, "-q", "-u", "-f", "%s\n", "-X", "auto.offset.reset=earliest", "-X", "auto.commit.interval.ms=300", *options, "-G", GROUP, TOPIC])


def produce(values):
    client = Producer({**SETTINGS, "linger.ms": 5, "queue.buffering.max.messages": MESSAGES})
    failed = []
    for value in values:
        client.produce(TOPIC, str(value), partition=value % PARTITIONS, on_delivery=lambda error, _: error and failed.append(error))
    client.flush(30)
    equal(failed, [])


def each_gets_everything():
    tool("org.apache.kafka.tools.ConfigCommand", "--alter", "--entity-type", "groups", "--entity-name", GROUP, "--add-config", "metaq.consume.mode=broadcast")
    admin = AdminClient(SETTINGS)
    for future in admin.create_topics([NewTopic(TOPIC, PARTITIONS, 1)]).values():
        future.result(30)
    # These are killed, and come back as other members.
    killed_soon_gone = "session.timeout.ms=6000"
    eager = "partition.assignment.strategy=org.apache.kafka.clients.consumer.RangeAssignor"
    cooperative = "partition.assignment.strategy=org.apache.kafka.clients.consumer.CooperativeStickyAssignor"
    with_java("java-eager", eager, "group.instance.id=java-eager", killed_soon_gone)
    with_python("python-eager", "partition.assignment.strategy=range", "client.id=python-eager", killed_soon_gone)
    # The others come while these read.
    produce(range(MESSAGES // 2))
    with_java("java-cooperative", cooperative, "client.id=java-cooperative")
    with_python("python-cooperative", "partition.assignment.strategy=cooperative-sticky", "group.instance.id=python-cooperative")
    with_kcat("kcat", "group.instance.id=kcat")
    # The broker assigns to these.
    newer = "group.protocol=consumer"
    with_java("java-newer", newer, "group.instance.id=java-newer")
    with_java("java-regex", newer, "client.id=java-regex", topic=f"^{TOPIC}$")
    with_python("python-newer", newer, "client.id=python-newer")
    with_python("python-regex", newer, "group.instance.id=python-regex", topic=f"^{TOPIC}$")
    produce(range(MESSAGES // 2, MESSAGES))
    for reader in READERS:
        reader.wait_for(range(MESSAGES))


def lags(rows):
    """By client: how far behind, as a tool says it; PARTITION OFFSET END LAG come after GROUP TOPIC."""
    return {(row[6], int(row[2])): int(row[5]) for row in rows if row[5] != "-"}


def shown_by_the_tools():
    def all_committed():
        rows = consumer_groups()
        return len(rows) == len(READERS) * PARTITIONS and all(row[5] == "0" for row in rows) and rows

    rows = wait_for("the lag to be shown as none", all_committed)
    equal(len(lags(rows)), len(READERS) * PARTITIONS, "members and partitions")
    members = consumer_groups("--members")
    equal(sorted(row[-1] for row in members), [str(PARTITIONS)] * len(READERS), "partitions of each member")
    state = consumer_groups("--state")
    equal(("Stable" in state[0], "broadcast" in state[0], state[0][-1]), (True, True, str(len(READERS))), f"state {state}")


def killed_and_back():
    back = [reader for reader in READERS if reader.name in ("java-eager", "python-eager")]
    for reader in back:
        reader.kill()
    more = range(MESSAGES, MESSAGES + 1000)
    produce(more)
    for reader in back:
        reader.start()
        reader.wait_for(more)
    for reader in READERS:
        if reader not in back:
            reader.wait_for(range(MESSAGES + 1000))


def the_slowest_members_lag():
    slow = next(reader for reader in READERS if reader.name == "python-cooperative")
    wait_for("all to have committed", lambda: all(row[5] == "0" for row in consumer_groups()))
    slow.process.send_signal(signal.SIGSTOP)
    try:
        produce(range(MESSAGES + 1000, MESSAGES + 1000 + 10 * PARTITIONS))
        metaq = [os.environ["METAQ"], "group", "describe", GROUP, "--bootstrap", BOOTSTRAP, "--json"]

        def only_it_lags():
            told = json.loads(subprocess.run(metaq, capture_output=True, check=True).stdout)["partitions"]
            # Two of them have librdkafka's own client id.
            behind = {row["member"]: row["lag"] for row in told}
            return len(told) == len(READERS) * PARTITIONS and sum(lag != 0 for lag in behind.values()) == 1

        wait_for("the others to have committed", only_it_lags)
        equal({int(row[5]) for row in consumer_groups()}, {10}, "lag")
    finally:
        slow.process.send_signal(signal.SIGCONT)


try:
    run("broadcast", {
        "each-gets-everything": each_gets_everything,
        "shown-by-the-tools": shown_by_the_tools,
        "killed-and-back": killed_and_back,
        "the-slowest-members-lag": the_slowest_members_lag,
    })
finally:
    for reader in READERS:
        reader.kill()
