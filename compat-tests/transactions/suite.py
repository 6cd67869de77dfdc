"""Exactly once with the transactions of several clients: each copies records from one topic to another, with the offsets that it
read, in two processes that abort every third transaction. They and the broker are killed meanwhile; where three brokers form a
cluster, one of them for so long that others coordinate what it had, and another one for a moment. A reader of committed
records must then find every record once, in order, whoever wrote it.

Then what a transaction is to others: aborted records are not seen, an old producer is fenced, a forgotten transaction is
aborted when its time is over, and Kafka's own tool finds, shows and ends what is left.
"""

import collections
import os
import subprocess
import sys
import time

from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic
from harness import BROKER_CTL, SETTINGS, TOOL_OPTIONS, equal, run, unique, wait_for

JARS, WORK = os.environ["JARS"], os.environ["WORK"]
PARTITIONS = 3
RECORDS = 1500
# Of the brokers of a cluster, s.
SESSION = int(os.environ.get("SESSION_TIMEOUT_MS", 0)) / 1000
# In a cluster each partition is on all three brokers.
REPLICAS = 3 if SESSION else 1
# Part of the names of clients and tests; all without it.
CHOSEN = os.environ.get("TRANSACTIONS", "")
admin = AdminClient(SETTINGS)

print(f"CLIENT kafka-clients|{'4.4.0, 2.8.2' if SESSION else '4.4.0, 3.9.1, 2.8.2'}|Java|consume, transform and produce exactly once, versions 2 and 1 of transactions, through kill -9|transactions/java")
print("CLIENT confluent-kafka (librdkafka)|2.16.1|Python|the same; fencing, aborts, timeouts|transactions/librdkafka")
print("CLIENT franz-go|1.22.3|Go|the same|transactions/franz-go")
if not SESSION or CHOSEN:
    print("CLIENT kafkajs|2.2.4|JavaScript|the same, offsets without a member's generation|transactions/kafkajs")
print("CLIENT kafka-transactions|4.4.0|Java|list, describe, describe-producers, find-hanging, abort|transactions/tool")


def class_path(name):
    return ":".join(os.path.join(JARS, name, jar) for jar in sorted(os.listdir(os.path.join(JARS, name))) if jar.endswith(".jar"))


def java(version):
    return ["java", "-Xmx128m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-cp", f"{class_path(f'clients-{version}')}:{WORK}/classes-{version}", "Transfer"]


CLIENTS = {
    "java-4.4": java("4.4.0"),
    "java-3.9": java("3.9.1"),
    "java-2.8": java("2.8.2"),
    "librdkafka": ["../.work/venv/bin/python", "transfer.py"],
    "franz-go": ["../.work/go/compat", "transfer"],
    "kafkajs": ["node", "../.work/node/transfer.js"],
}
# The time of three brokers is kept for clients that differ most; TRANSACTIONS=kafkajs runs the others there too.
if SESSION and not CHOSEN:
    for client in ("java-3.9", "kafkajs"):
        del CLIENTS[client]


def create(*names, partitions=PARTITIONS):
    for future in admin.create_topics([NewTopic(name, partitions, REPLICAS) for name in names]).values():
        future.result(20)


def ends(topic, isolation):
    consumer = Consumer({**SETTINGS, "group.id": "unused", "isolation.level": isolation})
    found = {n: consumer.get_watermark_offsets(TopicPartition(topic, n), 20)[1] for n in range(PARTITIONS)}
    consumer.close()
    return found


def read(topic, isolation="read_committed", partitions=PARTITIONS):
    """All that can be read now, by partition."""
    consumer = Consumer({**SETTINGS, "group.id": "unused", "enable.auto.commit": False, "isolation.level": isolation, "enable.partition.eof": True})
    consumer.assign([TopicPartition(topic, n, 0) for n in range(partitions)])
    found, at_end = collections.defaultdict(list), set()
    deadline = time.monotonic() + 60
    while len(at_end) < partitions:
        if time.monotonic() > deadline:
            raise AssertionError(f"{topic} is not read to its end")
        for message in consumer.consume(500, 0.2):
            if message.error() is None:
                found[message.partition()].append(message.value().decode())
            elif message.error().code() == KafkaError._PARTITION_EOF:
                at_end.add(message.partition())
    consumer.close()
    return found


class Copier:
    """A process that copies until it is killed."""

    def __init__(self, client, n, *names):
        self.program = [*CLIENTS[client], *names, f"{names[-1]}-{n}"]
        self.log = f"{WORK}/{names[-1]}-{n}"
        self.start()

    def start(self):
        self.process = subprocess.Popen(self.program, stdout=open(f"{self.log}.out", "a"), stderr=open(f"{self.log}.err", "a"))

    def kill(self):
        self.process.kill()
        self.process.wait()

    def said(self, what):
        with open(f"{self.log}.out") as out:
            return sum(line.startswith(what) for line in out)


class Copy:
    """What one client copies, in two processes."""

    def __init__(self, client):
        self.client = client
        self.source, self.target, self.group = (unique(f"{client}-{what}") for what in ("in", "out", "group"))
        self.copiers = []

    def start(self):
        self.copiers = [Copier(self.client, n, self.source, self.target, self.group) for n in range(2)]

    def kill(self):
        for copier in self.copiers:
            copier.kill()

    def said(self, what):
        return sum(copier.said(what) for copier in self.copiers)

    def is_complete(self):
        return sum(len(values) for values in read(self.target).values()) >= RECORDS


def name_of(client):
    return f"{client}-copies-exactly-once" if client.startswith("java") else f"{client}/copies-exactly-once"


copies = [Copy(client) for client in CLIENTS if not CHOSEN or CHOSEN in name_of(client)]
fill = Producer({**SETTINGS, "enable.idempotence": True, "linger.ms": 5})


def write(numbers):
    for number in numbers:
        for copy in copies:
            fill.produce(copy.source, str(number), partition=number % PARTITIONS)
        fill.poll(0)


def each(what, condition, seconds=90):
    """Waits until it is so of each copy."""
    deadline = time.monotonic() + seconds
    for copy in copies:
        wait_for(f"{what} of {copy.client}", lambda: condition(copy), max(deadline - time.monotonic(), 1))


def brokers(verb, *number):
    subprocess.run([BROKER_CTL, verb, *map(str, number)], check=True)


def kill_brokers(third):
    if not SESSION:
        brokers("kill9")
        brokers("start")
        return write(third)
    brokers("kill9", 1)
    write(third)
    # Others coordinate what it had.
    time.sleep(SESSION + 1)
    brokers("start", 1)
    brokers("kill9", 2)
    brokers("start", 2)


def all_copy_while_all_are_killed():
    create(*(name for copy in copies for name in (copy.source, copy.target)))
    thirds = [range(RECORDS * n // 3, RECORDS * (n + 1) // 3) for n in range(3)]
    write(thirds[0])
    try:
        for copy in copies:
            copy.start()
        each("the first commits", lambda copy: copy.said("COMMITTED") > 2)
        write(thirds[1])
        kill_brokers(thirds[2])
        before = {copy.client: copy.said("COMMITTED") for copy in copies}
        each("commits after the kill", lambda copy: copy.is_complete() or copy.said("COMMITTED") > before[copy.client] + 2)
        for copy in copies:
            copy.copiers[0].kill()
            copy.copiers[0].start()
        equal(fill.flush(60), 0, "records that are not written")
        each("all of it", lambda copy: copy.is_complete())
        each("an abort", lambda copy: copy.said("ABORTED"))
    finally:
        for copy in copies:
            copy.kill()


def difference(expected, found):
    """What is wrong with a list that is to be another one, in words."""
    missing = [value for value in expected if value not in set(found)]
    doubled = [value for value, times in collections.Counter(found).items() if times > 1]
    order = next((f"{found[n]} after {found[n - 1]}" for n in range(1, len(found)) if int(found[n]) <= int(found[n - 1])), "")
    return "" if found == expected else f"missing: {missing}, doubled: {doubled}, first in disorder: {order}"


def copied_exactly_once(copy):
    def test():
        for topic in (copy.source, copy.target):
            found = read(topic)
            for n in range(PARTITIONS):
                wrong = difference([str(value) for value in range(n, RECORDS, PARTITIONS)], found[n])
                equal(wrong, "", f"{topic}, partition {n}")
        dirty = sum(len(values) for values in read(copy.target, "read_uncommitted").values())
        equal(dirty > RECORDS, True, "aborted records are there for who asks for them")

    return test


def transactional(transactional_id, **more):
    producer = Producer({**SETTINGS, "transactional.id": transactional_id, **more})
    producer.init_transactions(20)
    return producer


def aborted_records_are_not_seen():
    topic = unique("aborted")
    create(topic)
    producer = transactional(unique("id"))
    expected = collections.defaultdict(list)
    for turn in range(20):
        producer.begin_transaction()
        for n in range(PARTITIONS):
            for m in range(turn % 4 + 1):
                producer.produce(topic, f"{turn}-{m}", partition=n)
                if turn % 2:
                    expected[n].append(f"{turn}-{m}")
        # An abort of records that were not sent yet ends librdkafka's producer.
        producer.flush(20)
        if turn % 2:
            producer.commit_transaction(20)
        else:
            producer.abort_transaction(20)
    wait_for("the last marker", lambda: read(topic) == expected)
    equal(sum(len(values) for values in read(topic, "read_uncommitted").values()), 3 * 5 * (1 + 2 + 3 + 4), "all records")


def open_records_hold_readers_back():
    topic = unique("open")
    create(topic)
    producer, other = transactional(unique("id")), Producer(SETTINGS)
    producer.begin_transaction()
    producer.produce(topic, "open", partition=0)
    producer.flush(20)
    other.produce(topic, "after", partition=0)
    other.flush(20)
    equal(dict(read(topic)), {}, "before the commit")
    equal((ends(topic, "read_committed")[0], ends(topic, "read_uncommitted")[0]), (0, 2), "last stable offset and high watermark")
    producer.commit_transaction(20)
    wait_for("both", lambda: read(topic)[0] == ["open", "after"])


def an_old_producer_is_fenced():
    topic, transactional_id = unique("fenced"), unique("id")
    create(topic)
    old = transactional(transactional_id)
    old.begin_transaction()
    old.produce(topic, "old", partition=0)
    old.flush(20)
    new = transactional(transactional_id)
    try:
        old.commit_transaction(20)
        raise AssertionError("the old producer commits")
    except KafkaException as error:
        equal(error.args[0].code() in (KafkaError._FENCED, KafkaError.INVALID_PRODUCER_EPOCH, KafkaError.PRODUCER_FENCED), True, str(error))
    new.begin_transaction()
    new.produce(topic, "new", partition=0)
    new.commit_transaction(20)
    wait_for("the new one's record alone", lambda: dict(read(topic)) == {0: ["new"]})


def a_forgotten_transaction_is_aborted():
    topic = unique("forgotten")
    create(topic)
    producer = transactional(unique("id"), **{"transaction.timeout.ms": 2000})
    producer.begin_transaction()
    producer.produce(topic, "forgotten", partition=0)
    producer.flush(20)
    other = Producer(SETTINGS)
    other.produce(topic, "after", partition=0)
    other.flush(20)
    equal(dict(read(topic)), {}, "while it is open")
    wait_for("its end", lambda: dict(read(topic)) == {0: ["after"]}, 30)


def tool(*arguments):
    done = subprocess.run(["java", "-cp", class_path("kafka"), "org.apache.kafka.tools.TransactionsCommand", *TOOL_OPTIONS, *arguments], capture_output=True, text=True, timeout=60)
    if done.returncode != 0:
        raise AssertionError(f"{arguments}: {done.stdout} {done.stderr}")
    rows = [line.split("\t") for line in done.stdout.splitlines() if "\t" in line]
    return [dict(zip([name.strip() for name in rows[0]], [value.strip() for value in row])) for row in rows[1:]] if rows else []


def the_tool_sees_a_transaction_and_its_producer():
    topic, transactional_id = unique("tool"), unique("id")
    create(topic)
    producer = transactional(transactional_id)
    producer.begin_transaction()
    producer.produce(topic, "x", partition=1)
    producer.flush(20)
    listed = [row for row in tool("list") if row["TransactionalId"] == transactional_id]
    equal([row["TransactionState"] for row in listed], ["Ongoing"], "list")
    described = tool("describe", "--transactional-id", transactional_id)
    equal([(row["TransactionState"], row["TopicPartitions"]) for row in described], [("Ongoing", f"{topic}-1")], "describe")
    producers = tool("describe-producers", "--topic", topic, "--partition", "1")
    equal([(row["ProducerId"], row["CurrentTransactionStartOffset"]) for row in producers], [(described[0]["ProducerId"], "0")], "describe-producers")
    producer.commit_transaction(20)
    listed = wait_for("the end", lambda: [row for row in tool("list") if row["TransactionalId"] == transactional_id and row["TransactionState"] == "CompleteCommit"])
    equal(len(listed), 1, "list")


def the_tool_aborts_a_hanging_transaction():
    topic, transactional_id = unique("hanging"), unique("id")
    create(topic)
    producer = transactional(transactional_id)
    producer.begin_transaction()
    producer.produce(topic, "hangs", partition=0)
    producer.flush(20)
    tool("abort", "--topic", topic, "--partition", "0", "--start-offset", "0")
    equal(dict(read(topic)), {}, "after the abort")
    equal(ends(topic, "read_committed")[0], 2, "last stable offset")
    equal(tool("find-hanging", "--topic", topic, "--partition", "0"), [], "hanging ones")


tests = {"clients/all-copy-while-all-are-killed": all_copy_while_all_are_killed}
tests |= {name_of(copy.client): copied_exactly_once(copy) for copy in copies}
tests |= {
    "librdkafka/aborted-records-are-not-seen": aborted_records_are_not_seen,
    "librdkafka/open-records-hold-readers-back": open_records_hold_readers_back,
    "librdkafka/an-old-producer-is-fenced": an_old_producer_is_fenced,
    "librdkafka/a-forgotten-transaction-is-aborted": a_forgotten_transaction_is_aborted,
    "tool/sees-a-transaction-and-its-producer": the_tool_sees_a_transaction_and_its_producer,
    "tool/aborts-a-hanging-transaction": the_tool_aborts_a_hanging_transaction,
}
run("transactions", {name: test for name, test in tests.items() if CHOSEN in name or (copies and name.startswith("clients"))})
