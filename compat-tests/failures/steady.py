"""One librdkafka producer and two members of a group until standard input ends; says what it was told (suite.py)."""

import sys
import threading
import time

from confluent_kafka import Consumer, KafkaException, Producer
from harness import SETTINGS

TOPIC, GROUP = sys.argv[1:3]
lock = threading.Lock()
producing = reading = True


def say(what, *words):
    with lock:
        print(what, time.monotonic_ns() // 1_000_000, *words, flush=True)


def told(error, message):
    if error is None:
        say("ACK", message.value().decode(), message.partition(), message.offset())
    else:
        say("FAILED", message.value().decode(), error.name())


def produce():
    producer = Producer({**SETTINGS, "enable.idempotence": True, "delivery.timeout.ms": 120_000, "socket.timeout.ms": 5_000, "linger.ms": 5})
    n = 0
    while producing:
        producer.produce(TOPIC, f"r{n}", partition=n % 6, on_delivery=told)
        producer.poll(0.005)
        n += 1
    producer.flush(120)


def partitions(assigned):
    return ",".join(str(one.partition) for one in assigned) or "-"


def read(name):
    consumer = Consumer({**SETTINGS, "group.id": GROUP, "auto.offset.reset": "earliest", "enable.auto.commit": False, "socket.timeout.ms": 5_000})
    consumer.subscribe([TOPIC], on_assign=lambda _, assigned: say("ASSIGNED", name, partitions(assigned)), on_revoke=lambda _, revoked: say("REVOKED", name, partitions(revoked)), on_lost=lambda _, lost: say("LOST", name, partitions(lost)))
    while reading:
        messages = [message for message in consumer.consume(500, 0.1) if not message.error()]
        if not messages:
            continue
        for message in messages:
            say("READ", name, message.partition(), message.offset(), message.value().decode())
        try:
            for stored in consumer.commit(asynchronous=False) or []:
                if stored.error is None and stored.offset >= 0:
                    say("COMMITTED", name, stored.partition, stored.offset)
        except KafkaException as error:
            print("not committed:", error, file=sys.stderr)
    consumer.close()


def main():
    global producing, reading
    producer = threading.Thread(target=produce)
    members = [threading.Thread(target=read, args=(f"m{n}",)) for n in range(2)]
    for thread in [producer, *members]:
        thread.start()
    sys.stdin.readline()
    producing = False
    producer.join()
    say("PRODUCED")
    sys.stdin.readline()
    reading = False
    for member in members:
        member.join()


main()
