// The console in a real browser against a real cluster: every page, every action, also while nodes are hurt.
//
//   console/run-tests                 all
//   SHOTS=folder console/run-tests    and keeps pictures of every page there, dark and light, wide and narrow
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { after, before, test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { startBrowser, startCluster, until } from './cluster.mjs'

const axe = readFileSync(fileURLToPath(import.meta.resolve('axe-core/axe.min.js')), 'utf8')
let cluster, browser, context, page
/// What the browser complained of. While a process is hurt, answers that are no 200 belong to it.
const complaints = []
let hurt = false

before(async () => {
  ;[cluster, browser] = await Promise.all([startCluster(), startBrowser()])
  await cluster.diptych('table', 'create', 'users', '--family', 'name', '--family', 'mail:versions=3')
  context = await browser.newContext({ viewport: { width: 1280, height: 800 }, colorScheme: 'light' })
  page = await context.newPage()
  page.setDefaultTimeout(15_000)
  page.on('pageerror', (error) => complaints.push(String(error)))
  page.on('console', (message) => {
    const excused = hurt && message.text().startsWith('Failed to load resource')
    if (message.type() === 'error' && !excused) complaints.push(message.text())
  })
})

after(async () => {
  await browser?.close()
  await cluster?.stop()
})

/// Goes to a place of the console.
async function visit(place) {
  await page.goto(`${cluster.url}/#/${place}`)
  await page.getByRole('heading', { level: 1 }).waitFor()
}

/// No violation by axe, and nothing wider than the window: dark and light, wide and narrow. Takes the pictures.
async function looksWell(name) {
  for (const colorScheme of ['light', 'dark']) {
    for (const width of [1280, 420]) {
      await page.emulateMedia({ colorScheme, reducedMotion: 'reduce' })
      await page.setViewportSize({ width, height: 800 })
      if (process.env.SHOTS) {
        await page.screenshot({ path: `${process.env.SHOTS}/${name}-${colorScheme}-${width}.png`, fullPage: width === 420 })
      }
      await page.evaluate(axe)
      const { violations } = await page.evaluate(() => window.axe.run(document, { resultTypes: ['violations'] }))
      const told = violations.map(({ id, nodes }) => `${id}: ${nodes.slice(0, 3).map(({ html }) => html).join(' ')}`)
      assert.deepEqual(told, [], `${name}, ${colorScheme}, ${width}`)
      const over = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth)
      assert.ok(over <= 0, `${name} at ${width} is ${over} too wide`)
    }
  }
  await page.emulateMedia({ colorScheme: 'light' })
  await page.setViewportSize({ width: 1280, height: 800 })
}

const dialog = () => page.getByRole('dialog')

/// Opens an action's dialog, and does it. Returns the preview and the command that does the same.
async function perform(open, button, fill = async () => {}) {
  await open.click()
  await fill(dialog())
  const preview = await dialog().locator('.preview').innerText()
  const command = await dialog().locator('.command code').innerText()
  await dialog().getByRole('button', { name: button, exact: true }).click()
  await dialog().waitFor({ state: 'detached' })
  return { preview, command }
}

const card = (name) => page.getByRole('article', { name, exact: true })
const node = async (id) => (await cluster.get('/v1/cluster')).nodes.find((node) => node.id === id)

test('the page is complete without scripts', async () => {
  const plain = await browser.newContext({ javaScriptEnabled: false })
  const page = await plain.newPage()
  await page.goto(cluster.url)
  assert.match(await page.getByRole('main').innerText(), /4 of 4 nodes alive/)
  assert.equal(await page.locator('#console').innerText(), '')
  await plain.close()
})

test('what is served is small, may be kept, and may do little', async () => {
  const response = await fetch(cluster.url)
  const policy = response.headers.get('content-security-policy')
  assert.match(policy, /default-src 'none'/)
  assert.doesNotMatch(policy, /unsafe|https?:/)
  assert.equal(response.headers.get('x-content-type-options'), 'nosniff')
  const body = await response.text()
  const files = [...body.matchAll(/(?:src|href)="(\/console\/[^"]+)"/g)].map(([, file]) => file)
  assert.ok(files.length === 3, `${files}`)
  for (const file of files) {
    const { status, headers } = await fetch(cluster.url + file)
    assert.equal(status, 200, file)
    if (!file.endsWith('status.css')) {
      assert.match(headers.get('cache-control'), /immutable/)
      assert.equal(headers.get('content-encoding'), 'gzip')
    }
  }
  await visit('')
  const paint = await page.evaluate(() => performance.getEntriesByName('first-contentful-paint')[0]?.startTime)
  console.log(`first paint after ${Math.round(paint)} ms`)
})

test('the cluster page shows who keeps what, and events as they come', async () => {
  await visit('')
  await page.getByText('4 of 4', { exact: true }).waitFor()
  assert.equal(await page.locator('.map .square').count(), 4)
  await cluster.diptych('table', 'create', 'logs', '--family', 'line', '--partition', 'range', '--split', 'g', '--split', 'p')
  const event = page.locator('.events tr', { hasText: 'table_changed' }).filter({ hasText: 'logs' })
  await event.waitFor()
  await until('the map has the new tablets', async () => (await page.locator('.map .square').count()) === 10)
  await page.locator('.map .square').first().focus()
  await page.keyboard.press('ArrowRight')
  assert.match(await page.locator('.told').innerText(), /Epoch/)
  await looksWell('cluster')
})

test('nothing jumps while numbers change', async () => {
  await visit('')
  await page.locator('.map .square').first().waitFor()
  await page.waitForTimeout(500)
  await page.evaluate(() => {
    window.shifts = []
    new PerformanceObserver((list) => window.shifts.push(...list.getEntries())).observe({ type: 'layout-shift' })
  })
  for (let at = 0; at < 200; at++) await cluster.put(`/v1/tables/users/rows/row-${at % 50}/name:first`, `value ${at}`)
  await page.waitForTimeout(2500)
  // The first digit of a number in a column is not where it was when the number grows; its last one is.
  const shifts = await page.evaluate(() =>
    window.shifts
      .flatMap(({ sources }) => sources.map(({ node }) => node))
      .filter((node) => !(node?.nodeType === Node.TEXT_NODE && node.parentElement?.matches('.number')))
      .map((node) => (node?.outerHTML ?? node?.parentElement?.outerHTML)?.slice(0, 120)),
  )
  assert.deepEqual(shifts, [])
})

test('the keyboard reaches everything', async () => {
  await visit('')
  await page.reload()
  await page.locator('.map .square').first().waitFor()
  await page.keyboard.press('Tab')
  assert.equal(await page.evaluate(() => document.activeElement.className), 'skip')
  await page.keyboard.press('Enter')
  assert.equal(await page.evaluate(() => document.activeElement.id), 'main')
  await visit('nodes')
  await card('n1').getByRole('button', { name: 'Suspend' }).focus()
  await page.keyboard.press('Enter')
  await dialog().waitFor()
  await page.keyboard.press('Escape')
  await dialog().waitFor({ state: 'detached' })
  assert.equal(await page.evaluate(() => document.activeElement.textContent), 'Suspend', 'the focus is where it was')
})

test('colours can be chosen, and stay', async () => {
  await visit('')
  const ground = () => page.evaluate(() => getComputedStyle(document.body).backgroundColor)
  const light = await ground()
  await page.getByLabel('Colours').selectOption('dark')
  assert.notEqual(await ground(), light)
  await page.reload()
  await page.getByRole('heading', { level: 1 }).waitFor()
  assert.notEqual(await ground(), light)
  await page.getByLabel('Colours').selectOption('system')
  assert.equal(await ground(), light)
})

test('a node is suspended, resumed, killed and started again from the page', async () => {
  await visit('nodes')
  await card('n2').getByText('running').waitFor()
  await looksWell('nodes')
  await card('n2').getByRole('button', { name: 'Suspend' }).click()
  await looksWell('nodes-suspend')
  await page.keyboard.press('Escape')
  hurt = true
  const suspended = await perform(card('n2').getByRole('button', { name: 'Suspend' }), 'Suspend n2')
  assert.match(suspended.preview, /The master calls it down/)
  assert.equal(suspended.command, `diptych --endpoint ${cluster.grpc} node suspend n2`)
  await card('n2').getByText('suspended').waitFor()
  await card('n2').getByText('down').waitFor()
  await until('its tablets have other primaries', async () => (await node('n2')).primary_of === 0)
  await visit('')
  await page.getByText('3 of 4', { exact: true }).waitFor()
  await looksWell('cluster-hurt')
  await visit('nodes')
  await perform(card('n2').getByRole('button', { name: 'Resume' }), 'Resume n2')
  await card('n2').getByText('alive').waitFor()
  await perform(card('n2').getByRole('button', { name: 'Kill' }), 'Kill n2')
  await card('n2').getByRole('button', { name: 'Start', exact: true }).waitFor()
  const started = await perform(card('n2').getByRole('button', { name: 'Start', exact: true }), 'Restart n2')
  assert.match(started.preview, /it reads its log|reads its log/)
  await card('n2').getByText('alive').waitFor()
  hurt = false
})

test('the command that a dialog shows does the same', async () => {
  await visit('nodes')
  hurt = true
  await card('n3').getByRole('button', { name: 'Suspend' }).click()
  const command = await dialog().locator('.command code').innerText()
  await page.keyboard.press('Escape')
  await cluster.shell(command)
  await card('n3').getByText('suspended').waitFor()
  await card('n3').getByRole('button', { name: 'Resume' }).click()
  const back = await dialog().locator('.command code').innerText()
  await page.keyboard.press('Escape')
  await cluster.shell(back)
  await card('n3').getByText('running').waitFor()
  hurt = false
})

test('without its only master the page says so, keeps what it knew, and can resume it', async () => {
  await visit('nodes')
  hurt = true
  const { preview } = await perform(card('m1').getByRole('button', { name: 'Suspend' }), 'Suspend m1')
  assert.match(preview, /Reads and writes go on/)
  await page.getByRole('alert').waitFor()
  await looksWell('nodes-no-master')
  await perform(card('m1').getByRole('button', { name: 'Resume' }), 'Resume m1')
  await page.getByRole('alert').waitFor({ state: 'detached' })
  hurt = false
})

test('a node is drained, filled again, drained and removed', async () => {
  await visit('nodes')
  const { preview } = await perform(card('n4').getByRole('button', { name: 'Drain' }), 'Drain n4')
  assert.match(preview, /It keeps nothing/)
  await card('n4').getByText('drained').waitFor()
  await perform(card('n4').getByRole('button', { name: 'Undrain' }), 'Let n4 be filled again')
  await card('n4').getByText('alive').waitFor()
  await perform(card('n4').getByRole('button', { name: 'Drain' }), 'Drain n4')
  await card('n4').getByText('drained').waitFor()
  const remove = card('n4').getByRole('button', { name: 'Remove' })
  await remove.click()
  assert.ok(await dialog().getByRole('button', { name: 'Remove n4' }).isDisabled(), 'its name has to be typed first')
  await page.keyboard.press('Escape')
  await perform(remove, 'Remove n4', (dialog) => dialog.getByLabel('to confirm').fill('n4'))
  await card('n4').waitFor({ state: 'detached' })
})

test('the browser had nothing to complain of', () => assert.deepEqual(complaints, []))
