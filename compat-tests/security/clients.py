"""confluent-kafka, kafka-python and aiokafka by every mechanism, over TLS and without it."""

import asyncio
import importlib.metadata
import os
import ssl
import time

import aiokafka
import aiokafka.abc
import confluent_kafka
import kafka
import kafka.net.sasl.oauth

from harness import BOOTSTRAP, equal, run, unique, wait_for

SECURITY, TOPIC = os.environ["SECURITY"], os.environ["TOPIC"]
USER, PASSWORD = os.environ["USER_NAME"], os.environ["USER_PASSWORD"]
SERVERS = {"SASL_SSL": BOOTSTRAP, "SASL_PLAINTEXT": os.environ["SASL_PLAINTEXT"], "SSL": os.environ["SSL"]}
WAYS = [(protocol, mechanism) for protocol in ("SASL_SSL", "SASL_PLAINTEXT") for mechanism in ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512")]
OAUTH = ("SASL_SSL", "OAUTHBEARER")
COUNT = 100


def token(name="alice"):
    with open(f"{SECURITY}/{name}.jwt", encoding="ascii") as file:
        return file.read()


def name(way):
    return "-".join(way)


# confluent-kafka


def confluent_settings(protocol, mechanism, password):
    settings = {"bootstrap.servers": SERVERS[protocol], "security.protocol": protocol, "ssl.ca.location": f"{SECURITY}/ca.pem", "log_level": 0}
    if mechanism == "OAUTHBEARER":
        shown = token("wrong" if password == "wrong" else "alice")
        return {**settings, "sasl.mechanism": mechanism, "oauth_cb": lambda _: (shown, time.time() + 3600)}
    if mechanism:
        return {**settings, "sasl.mechanism": mechanism, "sasl.username": USER, "sasl.password": password}
    return {**settings, "ssl.certificate.location": f"{SECURITY}/alice.pem", "ssl.key.location": f"{SECURITY}/alice.key"}


def confluent(protocol, mechanism=None):
    settings, mark = confluent_settings(protocol, mechanism, PASSWORD), unique("confluent").encode()
    producer = confluent_kafka.Producer(settings)
    for n in range(COUNT):
        producer.produce(TOPIC, b"%s %d" % (mark, n))
    equal(producer.flush(30), 0, "records left")
    consumer = confluent_kafka.Consumer({**settings, "group.id": unique("g"), "auto.offset.reset": "earliest"})
    consumer.subscribe([TOPIC])
    seen = set()

    def read():
        messages = consumer.consume(5000, 0.5)
        seen.update(message.value() for message in messages if not message.error() and message.value().startswith(mark + b" "))
        return len(seen) == COUNT

    wait_for("records", read)
    consumer.close()


def confluent_wrong(protocol, mechanism):
    errors = []
    settings = {**confluent_settings(protocol, mechanism, "wrong"), "error_cb": errors.append}
    producer = confluent_kafka.Producer(settings)
    failed = lambda: producer.poll(0.1) is None or any(error.code() == confluent_kafka.KafkaError._AUTHENTICATION for error in errors)
    wait_for("the refusal", failed)


def confluent_no_right():
    done = []
    producer = confluent_kafka.Producer(confluent_settings("SASL_SSL", "SCRAM-SHA-512", PASSWORD))
    producer.produce("of-nobody", b"x", on_delivery=lambda error, _: done.append(error))
    producer.flush(30)
    equal(done[0].code(), confluent_kafka.KafkaError.TOPIC_AUTHORIZATION_FAILED, "code")


# kafka-python


class KafkaPythonToken(kafka.net.sasl.oauth.AbstractTokenProvider):
    def token(self):
        return token()


def kafka_python_settings(protocol, mechanism, password):
    settings = {"bootstrap_servers": SERVERS[protocol].split(","), "security_protocol": protocol}
    if protocol != "SASL_PLAINTEXT":
        settings["ssl_cafile"] = f"{SECURITY}/ca.pem"
    if mechanism == "OAUTHBEARER":
        return {**settings, "sasl_mechanism": mechanism, "sasl_oauth_token_provider": KafkaPythonToken()}
    if mechanism:
        return {**settings, "sasl_mechanism": mechanism, "sasl_plain_username": USER, "sasl_plain_password": password}
    return {**settings, "ssl_certfile": f"{SECURITY}/alice.pem", "ssl_keyfile": f"{SECURITY}/alice.key"}


def kafka_python(protocol, mechanism=None):
    settings, mark = kafka_python_settings(protocol, mechanism, PASSWORD), unique("kafka-python").encode()
    producer = kafka.KafkaProducer(**settings)
    for future in [producer.send(TOPIC, b"%s %d" % (mark, n)) for n in range(COUNT)]:
        future.get(30)
    producer.close()
    consumer = kafka.KafkaConsumer(TOPIC, group_id=unique("g"), auto_offset_reset="earliest", **settings)
    seen = set()

    def read():
        for records in consumer.poll(1000).values():
            seen.update(record.value for record in records if record.value.startswith(mark + b" "))
        return len(seen) == COUNT

    wait_for("records", read)
    consumer.close()


# aiokafka


class AioToken(aiokafka.abc.AbstractTokenProvider):
    async def token(self):
        return token()


def aio_settings(protocol, mechanism, password):
    settings = {"bootstrap_servers": SERVERS[protocol], "security_protocol": protocol}
    if protocol != "SASL_PLAINTEXT":
        settings["ssl_context"] = ssl.create_default_context(cafile=f"{SECURITY}/ca.pem")
    if mechanism == "OAUTHBEARER":
        return {**settings, "sasl_mechanism": mechanism, "sasl_oauth_token_provider": AioToken()}
    return {**settings, "sasl_mechanism": mechanism, "sasl_plain_username": USER, "sasl_plain_password": password}


def aio(protocol, mechanism):
    async def both():
        settings, mark = aio_settings(protocol, mechanism, PASSWORD), unique("aio").encode()
        async with aiokafka.AIOKafkaProducer(**settings) as producer:
            for n in range(COUNT):
                await producer.send_and_wait(TOPIC, b"%s %d" % (mark, n))
        seen = set()
        async with aiokafka.AIOKafkaConsumer(TOPIC, group_id=unique("g"), auto_offset_reset="earliest", **settings) as consumer:
            async for record in consumer:
                if record.value.startswith(mark + b" "):
                    seen.add(record.value)
                if len(seen) == COUNT:
                    return

    asyncio.run(asyncio.wait_for(both(), 40))


what = "every mechanism over TLS and without"
for client in ("confluent-kafka", "kafka-python", "aiokafka"):
    print(f"CLIENT {client}|{importlib.metadata.version(client)}|Python|{what}|security/{client}/")
run("security/confluent-kafka", {
    **{name(way): lambda way=way: confluent(*way) for way in [*WAYS, OAUTH]},
    "SSL": lambda: confluent("SSL"),
    **{f"{name(way)}-wrong": lambda way=way: confluent_wrong(*way) for way in [*WAYS, OAUTH]},
    "no-right": confluent_no_right,
})
run("security/kafka-python", {**{name(way): lambda way=way: kafka_python(*way) for way in [*WAYS, OAUTH]}, "SSL": lambda: kafka_python("SSL")})
run("security/aiokafka", {name(way): lambda way=way: aio(*way) for way in [*WAYS, OAUTH]})
