"""How long no partition's acknowledgement came: BOOTSTRAP TOPIC PARTITIONS SECONDS. A record each 5 ms to each partition, acks=all."""

import sys
import time

from confluent_kafka import Producer

bootstrap, topic, partitions, seconds = sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4])
producer = Producer({"bootstrap.servers": bootstrap, "acks": "all", "linger.ms": 0, "enable.idempotence": True, "topic.metadata.refresh.interval.ms": 300000})
last, longest, failed, told = [None] * partitions, [0.0] * partitions, 0, 0


def delivered(error, message):
    global failed, told
    if error is not None:
        failed += 1
        return
    now, n = time.monotonic(), message.partition()
    if last[n] is not None:
        longest[n] = max(longest[n], now - last[n])
    last[n] = now
    told += 1


began, due = time.monotonic(), time.monotonic()
while time.monotonic() - began < seconds:
    for n in range(partitions):
        producer.produce(topic, b"x" * 100, partition=n, on_delivery=delivered)
    due += 0.005
    while (left := due - time.monotonic()) > 0:
        producer.poll(left)
    producer.poll(0)
producer.flush(30)
print(f"{max(longest) * 1000:.0f} ms at most, {sorted(longest)[partitions // 2] * 1000:.0f} ms in the median of the partitions; {failed} of {failed + told} not acknowledged")
