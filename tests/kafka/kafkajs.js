// A client with kafkajs: one that resolves requests by their correlation ids.
const { Kafka, logLevel, CompressionTypes } = require('kafkajs')

const [broker, allowed, secret] = process.argv.slice(2)
const kafka = new Kafka({ clientId: 'kafkajs', brokers: [broker], logLevel: logLevel.NOTHING, retry: { retries: 3 } })
const told = (error) => (error.errors || [error]).map((e) => e.type || e.message).join()
const attempt = async (what, run) => {
  try { console.log(`${what}:`, await run()) } catch (error) { console.log(`${what}:`, told(error)) }
}

async function main() {
  const producer = kafka.producer({ allowAutoTopicCreation: true })
  await producer.connect()
  const send = (topic, acks) => async () => {
    const messages = [...Array(20).keys()].map((n) => ({ value: String(n) }))
    await producer.send({ topic, acks, messages, compression: CompressionTypes.GZIP })
    return 'ok'
  }
  await attempt('produce allowed', send(allowed, -1))
  await attempt('produce secret', send(secret, -1))
  await attempt('produce allowed again', send(allowed, 1))
  await producer.disconnect()

  const consume = (topic, group) => () => new Promise((resolve, reject) => {
    const consumer = kafka.consumer({ groupId: group })
    let got = 0
    const end = (how, value) => consumer.disconnect().then(() => how(value), () => how(value))
    consumer.connect()
      .then(() => consumer.subscribe({ topics: [topic], fromBeginning: true }))
      .then(() => consumer.run({ eachMessage: async () => { if (++got === 40) setImmediate(() => end(resolve, got)) } }))
      .catch((error) => end(reject, error))
  })
  await attempt('consumed', consume(allowed, 'kafkajs'))
  await attempt('consume secret', consume(secret, 'kafkajs-secret'))

  const admin = kafka.admin()
  await admin.connect()
  const topics = await admin.listTopics()
  console.log('sees allowed:', topics.includes(allowed), 'sees secret:', topics.includes(secret))
  await attempt('create', async () => { await admin.createTopics({ topics: [{ topic: secret }] }); return 'ok' })
  await admin.disconnect()
}
main().then(() => process.exit(0), (error) => { console.log('failed:', told(error)); process.exit(1) })
