// What the pages are to show: topics of several kinds, groups that read, lag and rebalance, clients that are refused.
import { readFileSync } from 'node:fs'
import { connect } from 'node:net'
import { Kafka, logLevel } from 'kafkajs'
import { waitFor } from './harness.js'

const bootstrap = process.env.BOOTSTRAP.split(',')
export const home = `http://${process.env.DASHBOARD}`
export const token = () => readFileSync(`${process.env.DATA}/dashboard.token`, 'utf8').trim()
export const hostile = '<script>document.title="owned"</script>'

const kafka = (clientId) => new Kafka({ clientId, brokers: bootstrap, logLevel: logLevel.NOTHING, retry: { retries: 2 } })
const producer = kafka('orders-service').producer({ idempotent: true })
const consumers = []

export async function api(path, options = {}) {
  const answer = await fetch(home + path, options)
  return { status: answer.status, body: await answer.json() }
}

async function consume(clientId, groupId, topic, limit = Infinity) {
  const consumer = kafka(clientId).consumer({ groupId, sessionTimeout: 6000, heartbeatInterval: 500 })
  let seen = 0
  await consumer.connect()
  await consumer.subscribe({ topics: [topic], fromBeginning: true })
  await consumer.run({ eachMessage: async () => { if (++seen === limit) consumer.pause([{ topic }]) } })
  consumers.push(consumer)
  return consumer
}

export async function produce(topic, count, at = 0) {
  const message = (n) => ({
    key: `order-${n % 500}`,
    value: JSON.stringify({ id: n, table: 'orders', op: n % 7 ? 'update' : 'insert', after: { state: 'paid', cents: 1999 + n } }),
    headers: { source: 'mysql-bin.000042', position: String(4096 + n) },
  })
  const messages = Array.from({ length: count }, (_, n) => message(at + n))
  await producer.send({ topic, messages, acks: -1 })
}

/** Bytes that are no request: the broker closes the connection and says why. */
const garbage = () => new Promise((resolve) => {
  const [host, port] = bootstrap[0].split(':')
  const socket = connect(Number(port), host, () => socket.write('GET / HTTP/1.1\r\nHost: broker\r\n\r\n'))
  socket.on('close', resolve)
  socket.on('error', resolve)
})

export async function setUp() {
  const admin = kafka('setup').admin()
  await admin.connect()
  await admin.createTopics({
    topics: [
      { topic: 'shop.orders', numPartitions: 4, configEntries: [{ name: 'retention.ms', value: '604800000' }] },
      { topic: 'syslog', numPartitions: 2 },
      { topic: 'audit', numPartitions: 1, configEntries: [{ name: 'max.message.bytes', value: '2000' }] },
    ],
  })
  await producer.connect()
  for (let n = 0; n < 5; n++) await produce('shop.orders', 1000, n * 1000)
  await producer.send({ topic: 'syslog', messages: Array.from({ length: 500 }, (_, n) => ({ value: `<34>Nov 26 05:2${n % 10}:00 web-1 sshd[811]: Accepted publickey for deploy from 10.0.0.${n % 250}` })) })
  await producer.send({ topic: 'audit', messages: [{ key: 'a', value: Buffer.from([0, 1, 2, 250, 251]) }, { key: 'gone', value: null }, { key: hostile, value: hostile, headers: { [hostile]: hostile } }] })
  const first = await consume('billing-1', 'billing', 'shop.orders')
  await consume('billing-2', 'billing', 'shop.orders')
  const slow = await consume('warehouse-1', 'warehouse', 'shop.orders', 200)
  await waitFor('a group of two', async () => (await api('/api/groups/billing')).body.members?.length === 2)
  await waitFor('a committed offset', async () => {
    await slow.commitOffsets([0, 1, 2, 3].map((partition) => ({ topic: 'shop.orders', partition, offset: '50' }))).catch(() => {})
    return (await api('/api/groups/warehouse')).body.group?.lag > 0
  })
  await first.disconnect()
  const strange = kafka(hostile).producer({ retry: { retries: 0 } })
  await strange.connect()
  for (let n = 0; n < 30; n++) await strange.send({ topic: 'audit', messages: [{ value: 'x'.repeat(5000) }] }).catch(() => {})
  await garbage()
  await admin.disconnect()
}

/** kafkajs waits for ever for a consumer that is paused. */
export async function tearDown() {
  const done = Promise.allSettled([producer.disconnect(), ...consumers.map((consumer) => consumer.disconnect())])
  await Promise.race([done, new Promise((resolve) => setTimeout(resolve, 3000))])
}
