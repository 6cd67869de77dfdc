"""aiokafka: asyncio."""

import asyncio

import aiokafka
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from harness import CODECS, KEYWORDS, RECORDS, broker, equal, run, unique, wait_for

print(f"CLIENT aiokafka|{aiokafka.__version__}|Python|codecs, acks, group of two, idempotence across kill -9|aiokafka/")


async def create(topic, partitions=1):
    admin = AIOKafkaAdminClient(**KEYWORDS)
    await admin.start()
    await admin.create_topics([NewTopic(topic, partitions, 1)])
    await admin.close()


async def read(topic, count):
    client = AIOKafkaConsumer(**KEYWORDS, auto_offset_reset="earliest")
    await client.start()
    client.assign([TopicPartition(topic, 0)])
    await client.seek_to_beginning()
    got = []
    while len(got) < count:
        for batch in (await asyncio.wait_for(client.getmany(timeout_ms=1000), 30)).values():
            got += batch
    await client.stop()
    return got


async def round_trips():
    for codec in CODECS:
        topic = unique(codec)
        await create(topic)
        for acks in ("all", 1, 0):
            producer = AIOKafkaProducer(**KEYWORDS, acks=acks, compression_type=None if codec == "none" else codec)
            await producer.start()
            for key, value, headers in RECORDS:
                await producer.send_and_wait(topic, value, key, 0, headers=[(n, v) for n, v in headers if v is not None])
            await producer.stop()
        expected = [(k, v, tuple((n, b) for n, b in h if b is not None)) for k, v, h in RECORDS] * 3
        equal([(m.key, m.value, m.headers) for m in await read(topic, len(expected))], expected, codec)


async def group_of_two():
    topic, group = unique("group"), unique("group")
    await create(topic, 4)
    members = [AIOKafkaConsumer(topic, **KEYWORDS, group_id=group, auto_offset_reset="earliest", session_timeout_ms=6000, heartbeat_interval_ms=500) for _ in range(2)]
    await asyncio.gather(*(member.start() for member in members))
    got = []

    async def turn():
        for member in members:
            for batch in (await member.getmany(timeout_ms=100)).values():
                got.extend(int(m.value) for m in batch)

    async def until(condition):
        for _ in range(300):
            await turn()
            if condition():
                return
        raise AssertionError("waited too long")

    await until(lambda: sorted(len(m.assignment()) for m in members) == [2, 2])
    producer = AIOKafkaProducer(**KEYWORDS)
    await producer.start()
    for n in range(200):
        await producer.send(topic, str(n).encode(), partition=n % 4)
    await producer.stop()
    await until(lambda: len(got) >= 200)
    equal(sorted(got), list(range(200)))
    await members.pop().stop()
    await until(lambda: len(members[0].assignment()) == 4)
    await members[0].stop()


async def idempotent_across_kill_9():
    topic = unique("idempotent")
    await create(topic)
    producer = AIOKafkaProducer(**KEYWORDS, enable_idempotence=True, request_timeout_ms=60000)
    await producer.start()
    futures = [await producer.send(topic, str(n).encode(), partition=0) for n in range(3000)]
    await futures[1000]
    await asyncio.to_thread(broker, "kill9")
    await asyncio.to_thread(broker, "start")
    futures += [await producer.send(topic, str(n).encode(), partition=0) for n in range(3000, 6000)]
    await asyncio.wait_for(asyncio.gather(*futures), 60)
    await producer.stop()
    equal([int(m.value) for m in await read(topic, 6000)], list(range(6000)))


def sync(test):
    return lambda: asyncio.run(asyncio.wait_for(test(), 120))


run("aiokafka", {
    "round-trips": sync(round_trips),
    "group-of-two": sync(group_of_two),
    "idempotent-kill-9": sync(idempotent_across_kill_9),
})
