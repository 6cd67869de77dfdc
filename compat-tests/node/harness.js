// What the Node suites share: naming, waiting, reporting.
import { execFile } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { promisify } from 'node:util'

export const bootstrap = process.env.BOOTSTRAP.split(',')
const { CLIENT_USER: username, CLIENT_PASSWORD: password, CLIENT_MECHANISM: mechanism, CLIENT_CA: authority } = process.env
const tls = authority && { ca: [readFileSync(authority)] }
/** How kafkajs, and how @platformatic/kafka, comes to a broker that takes nobody who is not known. */
export const kafkajsAccess = authority ? { ssl: tls, sasl: { mechanism: mechanism.toLowerCase(), username, password } } : {}
export const platformaticAccess = authority ? { tls, sasl: { mechanism, username, password } } : {}
export const records = [
  { key: Buffer.from('k'), value: Buffer.from('v'), headers: { h: Buffer.from('1'), empty: Buffer.from('') } },
  { key: null, value: Buffer.from('no key'), headers: {} },
  { key: Buffer.from('no value'), value: null, headers: {} },
  { key: Buffer.from(''), value: Buffer.from(''), headers: {} },
  { key: Buffer.from([0, 255, 1]), value: Buffer.alloc(300, 7), headers: { bin: Buffer.from([0, 1, 2]) } },
]

export class Skip extends Error {}

export const unique = (name) => `${name}-${randomBytes(5).toString('hex')}`
export const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms))

export async function waitFor(what, condition, seconds = 40) {
  const deadline = Date.now() + seconds * 1000
  for (;;) {
    const result = await condition()
    if (result) return result
    if (Date.now() > deadline) throw new Error(`waited ${seconds} s for ${what}`)
    await sleep(50)
  }
}

export function equal(what, actual, expected) {
  const [a, e] = [actual, expected].map((v) => JSON.stringify(v))
  if (a !== e) throw new Error(`${what}: expected ${e.slice(0, 200)}, got ${String(a).slice(0, 200)}`)
}

export async function broker(verb) {
  if (!process.env.BROKER_CTL) throw new Skip('no control of the broker')
  // The broker outlives the call: its output must not be waited for.
  await promisify(execFile)('sh', ['-c', '"$0" "$1" >/dev/null 2>&1', process.env.BROKER_CTL, verb])
}

/** Null and empty are told apart. */
export const describe = ({ key, value, headers }) => {
  const part = (b) => (b == null ? 'null' : Buffer.from(b).toString('hex') || 'empty')
  const entries = headers instanceof Map ? [...headers.entries()] : Object.entries(headers ?? {})
  return `${part(key)}=${part(value)} ${entries.map(([k, v]) => `${k}:${part(v)}`).join(',')}`
}

export async function run(client, tests) {
  for (const [name, test] of Object.entries(tests)) {
    const start = Date.now()
    let timer
    try {
      const limit = new Promise((_, reject) => { timer = setTimeout(() => reject(new Error('took more than 100 s')), 100_000) })
      await Promise.race([test(), limit])
      console.log(`PASS ${client}/${name}`)
    } catch (error) {
      if (error instanceof Skip) console.log(`SKIP ${client}/${name}: ${error.message}`)
      else {
        console.error(error)
        console.log(`FAIL ${client}/${name}: ${String(error.message).replace(/\s+/g, ' ').slice(0, 300)}`)
      }
    } finally {
      clearTimeout(timer)
    }
    console.error(`${client}/${name} took ${Date.now() - start} ms`)
  }
}
