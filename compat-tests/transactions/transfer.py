"""Copies records from one topic to another in librdkafka's transactions, with the offsets that it read, until it is killed.

Every third transaction is aborted and done again. After any error it begins anew, as a program without a memory would; also
where a transaction hangs: librdkafka 2.16.1 does not always find back to its coordinator when its only broker was killed, be
that metaq or Kafka.
"""

import os
import sys
import threading
import time

from confluent_kafka import OFFSET_BEGINNING, Consumer, Producer, TopicPartition
from harness import SETTINGS

FROM, TO, GROUP, ID = sys.argv[1:5]


HANGS_AFTER = 12
kept = []
moved = time.monotonic()


def begin_anew(why):
    print("begins anew:", why, file=sys.stderr, flush=True)
    os.execv(sys.executable, [sys.executable, *sys.argv])


def watch():
    while time.monotonic() - moved < HANGS_AFTER:
        time.sleep(0.5)
    begin_anew("hangs")


def rewind(consumer):
    for place in consumer.committed(consumer.assignment(), 20):
        consumer.seek(TopicPartition(place.topic, place.partition, place.offset if place.offset >= 0 else OFFSET_BEGINNING))


def transfer():
    global moved
    producer = Producer({**SETTINGS, "transactional.id": ID, "transaction.timeout.ms": 20_000, "socket.timeout.ms": 5_000})
    consumer = Consumer({**SETTINGS, "group.id": GROUP, "auto.offset.reset": "earliest", "enable.auto.commit": False, "isolation.level": "read_committed", "session.timeout.ms": 6_000, "socket.timeout.ms": 5_000})
    # librdkafka may hang where a producer goes whose broker is away.
    kept.append(producer)
    producer.init_transactions(20)
    consumer.subscribe([FROM])
    turn = 1
    while True:
        moved = time.monotonic()
        messages = [message for message in consumer.consume(50, 0.2) if not message.error()]
        if not messages:
            continue
        producer.begin_transaction()
        read = {}
        for message in messages:
            producer.produce(TO, message.value(), partition=message.partition())
            read[message.partition()] = message.offset() + 1
        offsets = [TopicPartition(FROM, partition, offset) for partition, offset in read.items()]
        producer.send_offsets_to_transaction(offsets, consumer.consumer_group_metadata(), 20)
        if turn % 3 == 0:
            producer.abort_transaction(20)
            rewind(consumer)
            print("ABORTED", flush=True)
        else:
            producer.commit_transaction(20)
            print("COMMITTED", len(messages), flush=True)
        turn += 1


threading.Thread(target=watch, daemon=True).start()
try:
    transfer()
except Exception as error:  # whatever it is
    begin_anew(error)
