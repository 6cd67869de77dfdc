// @platformatic/kafka: a younger client written in TypeScript.
import { readFileSync } from 'node:fs'
import zlib from 'node:zlib'
import { Admin, Consumer, ListOffsetTimestamps, MessagesStreamModes, Producer } from '@platformatic/kafka'
import { bootstrap, describe, equal, platformaticAccess, records, run, unique, waitFor } from './harness.js'

const version = JSON.parse(readFileSync(new URL('node_modules/@platformatic/kafka/package.json', import.meta.url))).version
console.log(`CLIENT @platformatic/kafka|${version}|TypeScript|codecs, acks, group of two, admin|platformatic/`)
const base = () => ({ ...platformaticAccess, clientId: 'compat', bootstrapBrokers: bootstrap, retries: 20, retryDelay: 100 })

async function withAdmin(work) {
  const admin = new Admin(base())
  try { return await work(admin) } finally { await admin.close() }
}
const create = (topic, partitions = 1) => withAdmin((admin) => admin.createTopics({ topics: [topic], partitions, replicas: 1 }))

async function member(topic, groupId) {
  const consumer = new Consumer({ ...base(), groupId, sessionTimeout: 6000, heartbeatInterval: 300, rebalanceTimeout: 6000, maxWaitTime: 200 })
  const state = { consumer, got: [] }
  const stream = await consumer.consume({ topics: [topic], mode: MessagesStreamModes.EARLIEST, autocommit: true })
  stream.on('data', (message) => state.got.push(message))
  stream.on('error', (error) => console.error(error))
  state.owned = () => (consumer.assignments ?? []).flatMap((a) => (a.topic === topic ? a.partitions : [])).length
  state.stop = () => consumer.close(true)
  return state
}

await run('platformatic', {
  'round-trips': async () => {
    // Node has zstd from 22.15 on.
    const codecs = ['none', 'gzip', 'snappy', 'lz4', ...('createZstdCompress' in zlib ? ['zstd'] : [])]
    for (const compression of codecs) {
      const topic = unique(compression)
      await create(topic)
      let expected = []
      for (const acks of [-1, 1, 0]) {
        const producer = new Producer(base())
        try {
          for (const { key, value, headers } of records) {
            await producer.send({ acks, compression, messages: [{ topic, partition: 0, key, value, headers: new Map(Object.entries(headers).map(([k, v]) => [Buffer.from(k), v])) }] })
          }
        } finally { await producer.close() }
        expected = expected.concat(records.map(describe))
      }
      const reader = await member(topic, unique('read'))
      await waitFor('all records', () => reader.got.length >= expected.length)
      equal(compression, reader.got.map(({ key, value, headers }) => describe({ key, value, headers: new Map([...headers].map(([k, v]) => [k.toString(), v])) })), expected)
      await reader.stop()
    }
  },
  'group-of-two': async () => {
    const [topic, group] = [unique('group'), unique('group')]
    await create(topic, 4)
    const first = await member(topic, group)
    const second = await member(topic, group)
    await waitFor('a shared topic', () => first.owned() === 2 && second.owned() === 2)
    const producer = new Producer(base())
    await producer.send({ messages: Array.from({ length: 200 }, (_, n) => ({ topic, partition: n % 4, value: Buffer.from(String(n)) })) })
    await producer.close()
    await waitFor('all records', () => new Set([...first.got, ...second.got].map((m) => m.value.toString())).size === 200)
    await second.stop()
    await waitFor('the rest to be taken over', () => first.owned() === 4)
    await first.stop()
  },
  administration: async () => {
    const topic = unique('admin')
    await withAdmin(async (admin) => {
      await admin.createTopics({ topics: [topic], partitions: 2, replicas: 1, configs: [{ name: 'retention.ms', value: '123456' }] })
      await waitFor('the topic to be listed', async () => (await admin.listTopics()).includes(topic))
      const listed = await admin.listOffsets({ topics: [{ name: topic, partitions: [{ partitionIndex: 0, timestamp: ListOffsetTimestamps.LATEST }] }] })
      equal('end', Number(listed[0].partitions[0].offset), 0)
      equal('groups', typeof (await admin.listGroups()), 'object')
      await admin.deleteTopics({ topics: [topic] })
      await waitFor('the topic to be gone', async () => !(await admin.listTopics()).includes(topic))
    })
  },
})
process.exit(0)
