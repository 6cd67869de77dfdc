// Copies records from one topic to another in kafkajs' transactions, with the offsets that it read, until it is killed
// (../transactions/suite.py). Every third transaction is aborted and done again. After any error it begins anew.

import kafkajs from 'kafkajs'
import { bootstrap, kafkajsAccess } from './harness.js'

const { Kafka, logLevel } = kafkajs

const [from, to, group, id] = process.argv.slice(2)

async function transfer() {
  const kafka = new Kafka({ ...kafkajsAccess, clientId: id, brokers: bootstrap, logLevel: logLevel.NOTHING, requestTimeout: 5000, retry: { retries: 8, initialRetryTime: 100 } })
  const producer = kafka.producer({ transactionalId: id, idempotent: true, maxInFlightRequests: 1, transactionTimeout: 20000 })
  const consumer = kafka.consumer({ groupId: group, readUncommitted: false, sessionTimeout: 6000, rebalanceTimeout: 6000, heartbeatInterval: 500, maxWaitTimeInMs: 200 })
  await producer.connect()
  await consumer.connect()
  await consumer.subscribe({ topics: [from], fromBeginning: true })
  let turn = 0
  const failed = new Promise((_, reject) => consumer.on(consumer.events.CRASH, ({ payload }) => reject(payload.error)))
  await consumer.run({
    autoCommit: false,
    eachBatchAutoResolve: false,
    eachBatch: async ({ batch, resolveOffset, heartbeat, isRunning, isStale }) => {
      if (batch.messages.length === 0 || !isRunning() || isStale()) return
      const transaction = await producer.transaction()
      try {
        await transaction.send({ topic: to, messages: batch.messages.map(({ value }) => ({ value, partition: batch.partition })) })
        const next = (BigInt(batch.lastOffset()) + 1n).toString()
        await transaction.sendOffsets({ consumerGroupId: group, topics: [{ topic: from, partitions: [{ partition: batch.partition, offset: next }] }] })
        if (++turn % 3 === 0) throw new Error('on purpose')
        await transaction.commit()
        resolveOffset(batch.lastOffset())
        console.log('COMMITTED', batch.messages.length)
      } catch (error) {
        await transaction.abort()
        console.log('ABORTED')
        if (error.message !== 'on purpose') throw error
        consumer.seek({ topic: from, partition: batch.partition, offset: batch.firstOffset() })
      }
      await heartbeat()
    },
  })
  try {
    await failed
  } finally {
    await Promise.allSettled([consumer.disconnect(), producer.disconnect()])
  }
}

for (;;) {
  try {
    await transfer()
  } catch (error) {
    console.error('begins anew:', error.message)
    await new Promise((resolve) => setTimeout(resolve, 200))
  }
}
