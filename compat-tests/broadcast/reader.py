"""Reads a topic as a member of a group, and prints the values: GROUP TOPIC KEY=VALUE… of its configuration."""

import sys

from confluent_kafka import Consumer
from harness import SETTINGS

settings = {**SETTINGS, "group.id": sys.argv[1], "auto.offset.reset": "earliest", "auto.commit.interval.ms": 300}
settings.update(setting.split("=", 1) for setting in sys.argv[3:])
consumer = Consumer(settings)
consumer.subscribe([sys.argv[2]])
while True:
    messages = [message for message in consumer.consume(1000, 0.2) if not message.error()]
    sys.stdout.write("".join(message.value().decode() + "\n" for message in messages))
    sys.stdout.flush()
