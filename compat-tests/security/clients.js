// KafkaJS by every mechanism, over TLS and without it.
import { readFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import kafkajs from 'kafkajs'
import { bootstrap, equal, run, unique, waitFor } from './harness.js'

const { Kafka, logLevel } = kafkajs
const version = createRequire(import.meta.url)('kafkajs/package.json').version
console.log(`CLIENT kafkajs|${version}|JavaScript|every mechanism over TLS and without|security/kafkajs/`)
const { SECURITY, TOPIC: topic, USER_NAME: username, USER_PASSWORD: password } = process.env
const file = (name) => readFileSync(`${SECURITY}/${name}`, 'utf8')
const ca = [file('ca.pem')]
const count = 100

const client = (protocol, mechanism, secret = password) => new Kafka({
  brokers: protocol === 'SASL_SSL' ? bootstrap : process.env[protocol].split(','),
  logLevel: logLevel.NOTHING,
  retry: { initialRetryTime: 50, retries: 5 },
  ssl: protocol === 'SASL_PLAINTEXT' ? false : mechanism ? { ca } : { ca, cert: file('alice.pem'), key: file('alice.key') },
  sasl: mechanism === 'OAUTHBEARER' ? { mechanism: 'oauthbearer', oauthBearerProvider: async () => ({ value: file(secret === 'wrong' ? 'wrong.jwt' : 'alice.jwt') }) } : mechanism && { mechanism: mechanism.toLowerCase(), username, password: secret },
})

const works = (protocol, mechanism) => async () => {
  const kafka = client(protocol, mechanism)
  const mark = unique('kafkajs')
  const producer = kafka.producer()
  await producer.connect()
  await producer.send({ topic, messages: Array.from({ length: count }, (_, n) => ({ value: `${mark} ${n}` })) })
  await producer.disconnect()
  const consumer = kafka.consumer({ groupId: unique('g') })
  const seen = new Set()
  await consumer.connect()
  await consumer.subscribe({ topics: [topic], fromBeginning: true })
  await consumer.run({ eachMessage: async ({ message }) => { if (String(message.value).startsWith(`${mark} `)) seen.add(String(message.value)) } })
  await waitFor('records', () => seen.size === count)
  await consumer.disconnect()
}

const isRefused = (protocol, mechanism) => async () => {
  const producer = client(protocol, mechanism, 'wrong').producer()
  const error = await producer.connect().then(() => 'connected', (error) => error.name)
  equal('error', error, 'KafkaJSSASLAuthenticationError')
}

// KafkaJS does not look at why a token is refused; then it is not served.
const isNotServed = (protocol, mechanism) => async () => {
  const producer = client(protocol, mechanism, 'wrong').producer({ retry: { retries: 1 } })
  const sent = producer.connect().then(() => producer.send({ topic, timeout: 5000, messages: [{ value: 'x' }] }))
  equal('outcome', await sent.then(() => 'sent', () => 'refused'), 'refused')
}

const oauth = ['SASL_SSL', 'OAUTHBEARER']
const tests = { SSL: works('SSL'), 'SASL_SSL-OAUTHBEARER': works(...oauth), 'SASL_SSL-OAUTHBEARER-wrong': isNotServed(...oauth) }
for (const protocol of ['SASL_SSL', 'SASL_PLAINTEXT']) {
  for (const mechanism of ['PLAIN', 'SCRAM-SHA-256', 'SCRAM-SHA-512']) {
    tests[`${protocol}-${mechanism}`] = works(protocol, mechanism)
    tests[`${protocol}-${mechanism}-wrong`] = isRefused(protocol, mechanism)
  }
}
await run('security/kafkajs', tests)
