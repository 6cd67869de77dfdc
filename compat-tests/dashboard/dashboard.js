// The dashboard in Debian's Chromium: every page at two widths and in two colour schemes, live values under load, actions
// with and without the token, and what an operator looks for, in two clicks from the home page.
import { mkdirSync, mkdtempSync, rmSync } from 'node:fs'
import { createRequire } from 'node:module'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { chromium } from 'playwright-core'
import { equal, run, waitFor } from './harness.js'
import { api, home, hostile, produce, setUp, tearDown, token } from './scene.js'

const axe = createRequire(import.meta.url).resolve('axe-core')
const widths = [390, 1440]
const pictures = process.env.UPDATE_SCREENSHOTS === '1'
const scratch = mkdtempSync(join(tmpdir(), 'metaq-dashboard-'))

const pages = {
  home: '/',
  topics: '/topics',
  topic: '/topics/shop.orders',
  partition: '/topics/shop.orders/partitions/0',
  messages: '/topics/shop.orders/partitions/0/messages?limit=3',
  binary: '/topics/audit/partitions/0/messages',
  groups: '/groups',
  group: '/groups/warehouse',
  rebalances: '/groups/billing',
  clients: '/clients',
  cluster: '/cluster',
  events: '/events',
  configuration: '/configuration',
  log: '/log',
  process: '/process',
  login: '/login',
  missing: '/topics/nothing',
}

/** What is kept as a picture, and in which colours. */
const shown = {
  390: { home: 'dark', group: 'dark', messages: 'light' },
  1440: { home: 'light', topic: 'light', partition: 'light', messages: 'dark', rebalances: 'light', clients: 'light' },
}

const browser = await chromium.launchPersistentContext(join(scratch, 'profile'), {
  executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium',
  headless: true,
  bypassCSP: false,
  viewport: { width: 1440, height: 900 },
  args: ['--headless', '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking',
    '--disable-component-update', '--disable-sync'],
})

// Chromium now and then does not say that a page is open, or closed: nothing waits for that for ever.
const soon = (seconds) => new Promise((resolve) => setTimeout(resolve, seconds * 1000))

async function newPage() {
  for (let attempt = 1; attempt <= 3; attempt++) {
    const page = await Promise.race([browser.newPage(), soon(20)])
    if (page) return page
  }
  throw new Error('Chromium opens no page')
}

const close = (page) => Promise.race([page.close().catch(() => {}), soon(5)])

const [, version] = (await browser.pages()[0].evaluate(() => navigator.userAgent)).match(/Chrome\/([\d.]+)/)
console.log(`CLIENT Chromium|${version}|C++|every page at two widths and in two colour schemes without an error or a finding of axe-core, live values, actions, other sites' forms, what an operator looks for in two clicks|dashboard/`)

/** A page that remembers what went wrong in it. */
async function open(path) {
  const page = await newPage()
  page.wrong = []
  page.on('console', (message) => { if (message.type() === 'error') page.wrong.push(message.text()) })
  page.on('pageerror', (error) => page.wrong.push(String(error)))
  page.on('requestfailed', (request) => { if (!request.url().endsWith('/api/live')) page.wrong.push(`${request.url()} ${request.failure()?.errorText}`) })
  page.on('request', (request) => { if (!request.url().startsWith(home)) page.wrong.push(`asks elsewhere: ${request.url()}`) })
  if (path) await page.goto(home + path, { waitUntil: 'load' })
  return page
}

/** What was on the page when a test failed. */
async function tellWhere(error) {
  const page = browser.pages().at(-1)
  console.error(page.url(), page.wrong, await page.locator('main').innerText({ timeout: 1000 }).catch(() => 'no text'))
  throw error
}

/** A page that was left open keeps one of the few connections that a browser makes. */
async function closeAll() {
  for (const page of browser.pages().slice(1)) await close(page)
}

/** Runs what is outside the page's own policy. */
async function accessibility(page) {
  const session = await browser.newCDPSession(page)
  await session.send('Page.setBypassCSP', { enabled: true })
  await page.reload({ waitUntil: 'load' })
  await page.addScriptTag({ path: axe })
  const found = await page.evaluate(() => globalThis.axe.run(document, { runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'best-practice'] }))
  return found.violations.map((violation) => `${violation.id}: ${violation.nodes.slice(0, 3).map((node) => `${node.target} (${node.failureSummary?.split('\n')[1]?.trim()})`).join('; ')}`)
}

const tests = {}
for (const [name, path] of Object.entries(pages)) {
  tests[`${name} renders at every width in both colour schemes without an error`] = async () => {
    const page = await open()
    for (const colorScheme of ['light', 'dark']) {
      for (const width of widths) {
        page.wrong.length = 0
        await page.emulateMedia({ colorScheme })
        await page.setViewportSize({ width, height: width === 390 ? 844 : 900 })
        const answer = await page.goto(home + path, { waitUntil: 'load' })
        equal(`status of ${path}`, answer.status(), name === 'missing' ? 404 : 200)
        const wide = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth)
        if (wide > 0) throw new Error(`${path} is ${wide} px wider than ${width} px`)
        equal(`headings of ${path}`, await page.locator('h1').count(), 1)
        const wrong = page.wrong.filter((text) => name !== 'missing' || !text.includes('404'))
        equal(`errors of ${path} at ${width}`, wrong, [])
        if (pictures && shown[width]?.[name] === colorScheme) {
          mkdirSync(process.env.SCREENSHOTS, { recursive: true })
          await page.screenshot({ path: join(process.env.SCREENSHOTS, `${name}-${width}-${colorScheme}.png`), fullPage: width === 1440 })
        }
        if (process.env.LOOK) await page.screenshot({ path: join(process.env.LOOK, `${name}-${width}-${colorScheme}.png`), fullPage: true })
      }
    }
    await close(page)
  }
  tests[`${name} has nothing that a check of accessibility objects to`] = async () => {
    const page = await open()
    for (const colorScheme of ['light', 'dark']) {
      for (const width of widths) {
        page.wrong.length = 0
        await page.emulateMedia({ colorScheme })
        await page.setViewportSize({ width, height: 900 })
        await page.goto(home + path, { waitUntil: 'load' })
        equal(`${path} at ${width} in ${colorScheme}`, await accessibility(page), [])
      }
    }
    await close(page)
  }
}

Object.assign(tests, {
  'live values move under load and rest without it': async () => {
    const page = await open('/')
    const shown = () => page.locator('[data-live=bytes_in]').first().textContent()
    await waitFor('the stream', () => page.locator('#pulse.on').count())
    let at = 10_000
    const seen = new Set()
    await waitFor('moving values', async () => {
      await produce('shop.orders', 200, at += 200)
      const text = await shown()
      if (!text.startsWith('0 B')) seen.add(text)
      return seen.size >= 3
    })
    await waitFor('rest', async () => (await shown()) === '0 B/s')
    equal('errors', page.wrong, [])
    await close(page)
  },

  'a topics page shows what is put on it while it is put': async () => {
    const page = await open('/topics/shop.orders')
    let at = 50_000
    await waitFor('a rate', async () => {
      await produce('shop.orders', 200, at += 200)
      const text = await page.locator('.tile [data-live^="topic-messages:"]').textContent()
      return Number.parseFloat(text) > 0
    })
    await close(page)
  },

  'why a group lags is one click from the home page': async () => {
    const page = await open('/')
    await page.locator('section', { has: page.getByRole('heading', { name: 'Groups that lag' }) }).getByRole('link', { name: 'warehouse' }).click()
    const findings = await page.locator('.findings').textContent()
    if (!/lag|commit|wait/.test(findings)) throw new Error(findings)
    await close(page)
  },

  'why a group rebalanced and how long it took is two clicks from the home page at most': async () => {
    const page = await open('/')
    await page.getByRole('navigation', { name: 'Pages' }).getByRole('link', { name: 'Groups' }).click()
    await page.getByRole('link', { name: 'billing' }).click()
    const rows = await page.getByRole('region', { name: 'Rebalances' }).locator('tbody tr').allTextContents()
    if (!rows.some((row) => row.includes('a new member joined')) || !rows.some((row) => row.includes('a member left'))) throw new Error(rows.join('\n'))
    if (!rows.every((row) => /\d (ms|s|µs|min)/.test(row))) throw new Error(rows.join('\n'))
    await close(page)
  },

  'which client was rejected and why is on the clients page, and its name cannot run': async () => {
    const page = await open('/')
    await page.getByRole('link', { name: 'Clients', exact: true }).click()
    const list = await page.locator('section', { has: page.getByRole('heading', { name: 'Who was rejected and why' }) }).textContent()
    if (!list.includes('MESSAGE_TOO_LARGE') || !list.includes(hostile)) throw new Error(list.slice(0, 500))
    if (!/frame length/.test(list)) throw new Error(`the garbage is missing: ${list.slice(0, 500)}`)
    equal('title', await page.title(), 'Clients · metaq 0')
    equal('scripts', await page.locator('main script').count(), 0)
    await close(page)
  },

  'which partition takes the space is on the home page': async () => {
    const page = await open('/')
    const first = page.getByRole('region', { name: 'Largest partitions' }).locator('tbody tr').first()
    if (!(await first.textContent()).includes('shop.orders')) throw new Error(await first.textContent())
    await first.getByRole('link').click()
    await page.getByRole('heading', { name: 'Segments' }).waitFor()
    await close(page)
  },

  'messages are found by offset, time and key and shown as JSON and hex': async () => {
    const page = await open('/topics/shop.orders/partitions/0/messages')
    await page.getByLabel('from offset').fill('5')
    await page.getByLabel('at most').fill('2')
    await page.getByRole('button', { name: 'Read' }).click()
    equal('offsets', await page.locator('.message .meta > a').allTextContents(), ['5', '6'])
    if (!(await page.locator('.message pre').nth(1).textContent()).includes('\n  "table": "orders"')) throw new Error('no JSON')
    await page.getByRole('link', { name: 'later' }).click()
    equal('later', await page.locator('.message .meta > a').allTextContents(), ['7', '8'])
    const key = await page.locator('.message pre').first().textContent()
    await page.getByLabel('from offset').fill('')
    await page.getByLabel('key', { exact: true }).fill(key)
    await page.getByRole('button', { name: 'Read' }).click()
    const keys = await page.locator('.message pre').evaluateAll((all) => all.filter((one) => one.ariaLabel.startsWith('Key')).map((one) => one.textContent))
    if (keys.length === 0 || keys.some((one) => one !== key)) throw new Error(keys.join())
    await page.goto(`${home}/topics/audit/partitions/0/messages`)
    const text = await page.locator('main').textContent()
    if (!text.includes('00 01 02 fa fb') || !text.includes('tombstone') || !text.includes(hostile)) throw new Error(text.slice(0, 800))
    equal('scripts', await page.locator('main script').count(), 0)
    await close(page)
  },

  'an action without the token is refused and changes nothing': async () => {
    const page = await open('/topics')
    await page.getByLabel('Name', { exact: true }).fill('refused')
    await page.getByLabel('Token').fill('a wrong one')
    const [answer] = await Promise.all([page.waitForResponse((one) => one.request().method() === 'POST'), page.getByRole('button', { name: 'Create' }).click()])
    equal('status', answer.status(), 401)
    await page.getByText("The token is not the dashboard's").or(page.getByText('the token is not the dashboard')).first().waitFor()
    equal('topic', (await api('/api/topics/refused')).status, 404)
    await close(page)
  },

  'who is logged in creates, alters, extends and deletes a topic, closes and opens a partition, and reloads': async () => {
    const page = await open('/login?then=/topics')
    await page.getByLabel('Token').fill(token())
    await page.getByRole('button', { name: 'Log in' }).click()
    await page.waitForURL(`${home}/topics`)
    await page.getByLabel('Name', { exact: true }).fill('made-here')
    await page.getByLabel('Partitions', { exact: true }).fill('2')
    await page.getByRole('textbox', { name: /^Settings/ }).fill('retention.ms=60000')
    await page.getByRole('button', { name: 'Create' }).click()
    await page.getByText('The topic was created.').waitFor()
    await page.getByRole('textbox', { name: /^Settings/ }).fill('retention.ms=\nflush.messages=1')
    await page.getByRole('button', { name: 'Change settings' }).click()
    await page.getByText('The settings were changed.').waitFor()
    await page.getByLabel('Partitions in all').fill('3')
    await page.getByRole('button', { name: 'Add partitions' }).click()
    await page.getByText('The partitions were added.').waitFor()
    const { body } = await api('/api/topics/made-here')
    equal('partitions', body.topic.partitions, 3)
    equal('overrides', body.topic.overrides, { 'flush.messages': '1' })
    await page.getByLabel(/^Type the topic/).fill('another')
    await page.getByRole('button', { name: 'Delete the topic' }).click()
    await page.getByText('nothing was done').waitFor()
    await page.goBack()
    await page.getByLabel(/^Type the topic/).fill('made-here')
    await page.getByRole('button', { name: 'Delete the topic' }).click()
    await page.getByText('It was deleted.').waitFor()
    equal('gone', (await api('/api/topics/made-here')).status, 404)
    await page.goto(`${home}/topics/syslog/partitions/1`)
    await page.getByRole('button', { name: 'Close the partition' }).click()
    await page.getByText('The partition takes no messages now.').waitFor()
    equal('closed', (await api('/api/topics/syslog/partitions/1')).body.partition.closed, true)
    await page.getByRole('button', { name: 'Open the partition' }).click()
    await page.getByText('The partition takes messages again.').waitFor()
    equal('opened', (await api('/api/topics/syslog/partitions/1')).body.partition.closed, false)
    await page.goto(`${home}/configuration`)
    await page.getByRole('button', { name: 'Reload' }).click()
    await page.getByText('Nothing has changed.').waitFor()
    await page.goto(`${home}/events?kind=action`)
    const told = await page.locator('.events').textContent()
    for (const word of ['made-here', 'created with 2 partitions', 'deleted the topic', '127.0.0.1']) if (!told.includes(word)) throw new Error(`${word} is missing: ${told}`)
    await page.getByRole('button', { name: 'Log out' }).click()
    await page.getByText('You are logged out.').waitFor()
    await close(page)
  },

  'a form of another site does nothing although the browser is logged in': async () => {
    const page = await open('/login')
    await page.getByLabel('Token').fill(token())
    await page.getByRole('button', { name: 'Log in' }).click()
    await page.getByRole('button', { name: 'Log out' }).waitFor()
    const stranger = await newPage()
    const [, port] = process.env.DASHBOARD.split(':')
    // The same machine by another name is another site.
    await stranger.setContent(`<form method="post" action="http://127.0.0.1:${port}/topics"><input name="name" value="forged"><button>Win</button></form>`)
    const [answer] = await Promise.all([stranger.waitForResponse((one) => one.request().method() === 'POST'), stranger.getByRole('button').click()])
    equal('status', answer.status(), 403)
    equal('topic', (await api('/api/topics/forged')).status, 404)
    await close(stranger)
    await close(page)
  },
})

try {
  await setUp()
  for (const [name, test] of Object.entries(tests)) tests[name] = () => test().catch(tellWhere).finally(closeAll)
  // Charts have lines when two samples were taken.
  await waitFor('samples', async () => (await api('/api/history')).body.at_ms.length >= (pictures || process.env.LOOK ? 4 : 2), 90)
  const chosen = process.argv[2] ?? ''
  await run('dashboard', Object.fromEntries(Object.entries(tests).filter(([name]) => name.includes(chosen))))
} catch (error) {
  console.error(error)
  console.log(`FAIL dashboard/set-up: ${String(error.message).replace(/\s+/g, ' ').slice(0, 300)}`)
} finally {
  await tearDown()
  await Promise.race([browser.close().catch(() => {}), soon(10)])
  rmSync(scratch, { recursive: true, force: true })
}
process.exit()
