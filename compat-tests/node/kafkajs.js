// KafkaJS: a client written in JavaScript.
import { createRequire } from 'node:module'
import kafkajs from 'kafkajs'
import { bootstrap, broker, describe, equal, kafkajsAccess, records, run, unique, waitFor } from './harness.js'

const { Kafka, CompressionTypes, logLevel } = kafkajs
const version = createRequire(import.meta.url)('kafkajs/package.json').version
console.log(`CLIENT kafkajs|${version}|JavaScript|gzip, acks, group of two, resume, admin, idempotence across a restart, topic recreated|kafkajs/`)
const kafka = new Kafka({ ...kafkajsAccess, brokers: bootstrap, logLevel: logLevel.NOTHING, retry: { initialRetryTime: 50, retries: 30, maxRetryTime: 500 } })

const withAdmin = async (work) => {
  const admin = kafka.admin()
  await admin.connect()
  try { return await work(admin) } finally { await admin.disconnect() }
}
const create = (topic, numPartitions = 1) => withAdmin((admin) => admin.createTopics({ topics: [{ topic, numPartitions }], waitForLeaders: true }))
const produce = async (topic, messages, options = {}, settings = {}) => {
  const producer = kafka.producer({ allowAutoTopicCreation: true, ...settings })
  await producer.connect()
  try { await producer.send({ topic, messages, ...options }) } finally { await producer.disconnect() }
}

function member(topic, groupId, options = {}) {
  const consumer = kafka.consumer({ groupId, sessionTimeout: 6000, heartbeatInterval: 300, rebalanceTimeout: 6000, maxWaitTimeInMs: 200, ...options })
  const state = { consumer, got: [], owned: [] }
  consumer.on(consumer.events.GROUP_JOIN, ({ payload }) => { state.owned = payload.memberAssignment[topic] ?? [] })
  state.start = async () => {
    await consumer.connect()
    await consumer.subscribe({ topics: [topic], fromBeginning: true })
    await consumer.run({ eachMessage: async ({ message, partition }) => { state.got.push({ ...message, partition }) } })
    return state
  }
  state.stop = () => consumer.disconnect()
  return state
}

async function read(topic, count) {
  const reader = await member(topic, unique('read')).start()
  await waitFor(`${count} records`, () => reader.got.length >= count)
  await reader.stop()
  return reader.got
}

await run('kafkajs', {
  'round-trips': async () => {
    for (const [name, compression] of [['none', CompressionTypes.None], ['gzip', CompressionTypes.GZIP]]) {
      const topic = unique(name)
      await create(topic)
      for (const acks of [-1, 1, 0]) await produce(topic, records, { acks, compression })
      const got = await read(topic, 3 * records.length)
      const expected = records.map(describe)
      equal(name, got.map(describe), [...expected, ...expected, ...expected])
    }
  },
  'large-messages': async () => {
    const topic = unique('large')
    await create(topic)
    await produce(topic, [{ value: Buffer.alloc(1_000_000) }])
    const refused = await produce(topic, [{ value: Buffer.alloc(1_100_000) }]).catch((error) => error)
    equal('refusal', refused?.type ?? refused?.cause?.type, 'MESSAGE_TOO_LARGE')
  },
  'group-of-two': async () => {
    const [topic, group] = [unique('group'), unique('group')]
    await create(topic, 4)
    const first = await member(topic, group).start()
    const second = await member(topic, group).start()
    await waitFor('a shared topic', () => first.owned.length === 2 && second.owned.length === 2)
    await produce(topic, Array.from({ length: 200 }, (_, n) => ({ value: String(n), partition: n % 4 })))
    await waitFor('all records', () => new Set([...first.got, ...second.got].map((m) => m.value.toString())).size === 200)
    await second.stop()
    await waitFor('the rest to be taken over', () => first.owned.length === 4)
    const described = await withAdmin((admin) => admin.describeGroups([group]))
    equal('state', described.groups[0].state, 'Stable')
    await first.stop()
    const offsets = await withAdmin((admin) => admin.fetchOffsets({ groupId: group, topics: [topic] }))
    equal('committed', offsets[0].partitions.reduce((sum, p) => sum + Number(p.offset), 0), 200)
  },
  administration: async () => {
    const topic = unique('admin')
    await create(topic, 2)
    await withAdmin(async (admin) => {
      await admin.createPartitions({ topicPartitions: [{ topic, count: 3 }] })
      await waitFor('three partitions', async () => (await admin.fetchTopicMetadata({ topics: [topic] })).topics[0].partitions.length === 3)
      await admin.alterConfigs({ validateOnly: false, resources: [{ type: 2, name: topic, configEntries: [{ name: 'retention.ms', value: '123456' }] }] })
      await waitFor('the new setting', async () => {
        const described = await admin.describeConfigs({ includeSynonyms: false, resources: [{ type: 2, name: topic, configNames: ['retention.ms'] }] })
        return described.resources[0].configEntries[0].configValue === '123456'
      })
      await produce(topic, Array.from({ length: 10 }, () => ({ value: 'x', partition: 0 })))
      await admin.deleteTopicRecords({ topic, partitions: [{ partition: 0, offset: '4' }] })
      const offsets = await admin.fetchTopicOffsets(topic)
      equal('offsets', offsets.filter((o) => o.partition === 0).map(({ low, high }) => [low, high]), [['4', '10']])
      const group = unique('admin')
      await admin.setOffsets({ groupId: group, topic, partitions: [{ partition: 0, offset: '6' }] })
      equal('set offset', (await admin.fetchOffsets({ groupId: group, topics: [topic] }))[0].partitions.find((p) => p.partition === 0).offset, '6')
      await admin.deleteGroups([group])
      await admin.deleteTopics({ topics: [topic] })
      await waitFor('the topic to be gone', async () => !(await admin.listTopics()).includes(topic))
    })
  },
  'topic-recreated': async () => {
    const topic = unique('again')
    await create(topic)
    const producer = kafka.producer()
    await producer.connect()
    await producer.send({ topic, messages: [{ value: 'old' }] })
    await withAdmin(async (admin) => {
      await admin.deleteTopics({ topics: [topic] })
      await waitFor('the name to be free', () => admin.createTopics({ topics: [{ topic, numPartitions: 1 }] }).catch(() => false))
    })
    const send = () => producer.send({ topic, messages: [{ value: 'new' }] }).then(() => true, () => false)
    await waitFor('a delivery', send)
    const reader = await member(topic, unique('read')).start()
    // Records go on coming: for a moment the leader may still take them for the old topic.
    await waitFor('a record', async () => reader.got.length > 0 || ((await send()) && false))
    equal('first record', reader.got[0].value.toString(), 'new')
    await reader.stop()
    await producer.disconnect()
  },
  'idempotent-kill-9': async () => {
    const topic = unique('idempotent')
    await create(topic)
    const producer = kafka.producer({ idempotent: true, maxInFlightRequests: 1, retry: { initialRetryTime: 100, retries: 50, maxRetryTime: 500 } })
    await producer.connect()
    for (let n = 0; n < 40; n++) {
      const sent = producer.send({ topic, messages: Array.from({ length: 50 }, (_, m) => ({ value: String(n * 50 + m), partition: 0 })) })
      if (n === 20) {
        await broker('kill9')
        await broker('start')
      }
      await sent
    }
    await producer.disconnect()
    equal('records', (await read(topic, 2000)).map((m) => Number(m.value)), Array.from({ length: 2000 }, (_, n) => n))
  },
})
process.exit(0)
