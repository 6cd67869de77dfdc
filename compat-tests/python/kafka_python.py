"""kafka-python: a client written in Python."""

import threading
import time

import kafka
from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import KafkaAdminClient
from kafka.errors import MessageSizeTooLargeError

from harness import CODECS, KEYWORDS, RECORDS, equal, run, unique, wait_for

print(f"CLIENT kafka-python|{kafka.__version__}|Python|codecs, acks, offsets and times, group of two, resume, large messages|kafka-python/")


def produce(topic, records, **config):
    producer = KafkaProducer(**KEYWORDS, **config)
    futures = [producer.send(topic, value, key, [(n, v) for n, v in headers if v is not None], partition=0) for key, value, headers in records]
    for future in futures:
        future.get(30)
    producer.close()


def consumer(*topics, **config):
    settings = {**KEYWORDS, "auto_offset_reset": "earliest", "enable_auto_commit": False, "session_timeout_ms": 6000, "heartbeat_interval_ms": 500}
    return KafkaConsumer(*topics, **{**settings, **config})


def poll(client, into):
    for batch in client.poll(200).values():
        into.extend(batch)


def read(topic, count, offset=0):
    client = consumer()
    partition = TopicPartition(topic, 0)
    client.assign([partition])
    client.seek(partition, offset)
    got = []
    wait_for(f"{count} records", lambda: poll(client, got) or len(got) >= count)
    client.close()
    return got


def round_trips():
    for codec in CODECS:
        topic = unique(codec)
        for acks in ("all", 1, 0):
            # One at a time: without idempotence a batch that is sent again may come behind the next one.
            produce(topic, RECORDS, acks=acks, compression_type=None if codec == "none" else codec, enable_idempotence=False, max_in_flight_requests_per_connection=1)
        expected = [(k, v, [(n, b) for n, b in h if b is not None]) for k, v, h in RECORDS] * 3
        equal([(m.key, m.value, list(m.headers)) for m in read(topic, len(expected))], expected, codec)


def large_messages():
    topic = unique("large")
    produce(topic, [(None, b"x" * 1_000_000, [])], max_request_size=5_000_000)
    try:
        produce(topic, [(None, b"x" * 1_100_000, [])], max_request_size=5_000_000)
        raise AssertionError("a message above the limit was taken")
    except MessageSizeTooLargeError:
        pass


def offsets_and_times():
    topic, base = unique("offsets"), int(time.time() * 1000) - 200_000
    producer = KafkaProducer(**KEYWORDS)
    for n in range(50):
        producer.send(topic, str(n).encode(), partition=0, timestamp_ms=base + n * 1000)
    producer.close()
    partition = TopicPartition(topic, 0)
    client = consumer()
    equal(client.beginning_offsets([partition])[partition], 0)
    equal(client.end_offsets([partition])[partition], 50)
    equal(client.offsets_for_times({partition: base + 20_500})[partition].offset, 21)
    client.close()
    equal(read(topic, 8, 42)[0].value, b"42")


class Member:
    """A consumer in a thread of its own: this client forgets a join that is completed while nobody polls."""

    def __init__(self, topic, group):
        self.client, self.got, self.owned, self.stop = consumer(topic, group_id=group), [], set(), threading.Event()
        # A leader that does not know the topic yet gives nobody anything of it, and may not notice when it does.
        self.client.partitions_for_topic(topic)
        self.thread = threading.Thread(target=self.loop, daemon=True)
        self.thread.start()

    def loop(self):
        while not self.stop.is_set():
            poll(self.client, self.got)
            self.owned = self.client.assignment()
        self.client.close()

    def leave(self):
        self.stop.set()
        self.thread.join(20)


def group_of_two():
    topic, group = unique("group"), unique("group")
    admin = KafkaAdminClient(**KEYWORDS)
    admin.create_topics({topic: {"num_partitions": 4, "replication_factor": 1}})
    admin.close()
    first, second = Member(topic, group), Member(topic, group)
    wait_for("a shared topic", lambda: len(first.owned) == len(second.owned) == 2)
    producer = KafkaProducer(**KEYWORDS)
    for n in range(200):
        producer.send(topic, str(n).encode(), partition=n % 4)
    producer.close()
    wait_for("all records", lambda: len(first.got) + len(second.got) >= 200)
    equal(sorted(int(m.value) for m in first.got + second.got), list(range(200)))
    second.leave()
    wait_for("the rest to be taken over", lambda: len(first.owned) == 4)
    first.leave()


def commit_and_resume():
    topic, group = unique("resume"), unique("resume")
    produce(topic, [(None, str(n).encode(), []) for n in range(20)])
    seen = []
    for _ in range(2):
        client = consumer(topic, group_id=group, max_poll_records=10)
        got = []
        wait_for("ten records", lambda: poll(client, got) or len(got) >= 10)
        client.commit()
        client.close()
        seen += [int(m.value) for m in got]
    equal(seen, list(range(20)))


run("kafka-python", {
    "round-trips": round_trips,
    "large-messages": large_messages,
    "offsets-and-times": offsets_and_times,
    "group-of-two": group_of_two,
    "commit-and-resume": commit_and_resume,
})
