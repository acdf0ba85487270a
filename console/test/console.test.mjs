// The console in a real browser against a real cluster: every page, every action, also while nodes are hurt.
//
//   console/run-tests                 all
//   SITE=dist/site console/run-tests  the console as it is there, not as the binary has it
//   SHOTS=folder console/run-tests    and keeps pictures of every page there, dark and light, wide and narrow
import assert from 'node:assert/strict'
import { readdirSync, readFileSync } from 'node:fs'
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
  if (process.env.SITE) await takeFrom(process.env.SITE)
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

/// While one works on the console: its files are taken from this folder, not from the binary.
async function takeFrom(folder) {
  await page.route('**/console/console-*', (route) => {
    const kind = route.request().url().endsWith('.js') ? '.js' : '.css'
    const name = readdirSync(folder).find((name) => name.endsWith(kind))
    return route.fulfill({ path: `${folder}/${name}` })
  })
}

/// Goes to a place of the console.
async function visit(place) {
  // Not only another place after #: nothing of the page before is left.
  await page.goto('about:blank')
  await page.goto(`${cluster.url}/#/${place}`)
  await page.getByRole('heading', { level: 1 }).waitFor()
}

/// No violation by axe, and nothing wider than the window: dark and light, wide and narrow. Takes the pictures.
/// What is like another place is looked at twice instead of four times.
async function looksWell(name, times = 2) {
  for (const colorScheme of ['light', 'dark']) {
    for (const width of [1280, 420]) {
      if (times === 2 && !process.env.SHOTS && (colorScheme === 'light') !== (width === 1280)) continue
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
  assert.equal(await page.locator('#console').isVisible(), false)
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
  assert.equal(files.length, 4, `${files}`)
  for (const file of files) {
    const { status, headers } = await fetch(cluster.url + file)
    assert.equal(status, 200, file)
    if (file.includes('/console-')) {
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
  await looksWell('cluster', 4)
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
  await looksWell('nodes', 4)
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

/// Values that a browser could take for something else than text.
const HOSTILE = {
  html: '<img src=x onerror="document.title=1"><script>document.title=2</script>',
  control: 'bell \u0007, escape \u001b[31m, null \u0000, return \r',
  'right-to-left': 'שלום \u202eevil\u202c عالم',
  'zero-width': 'a\u200bb\ufeffc',
  line: 'one\ntwo\u2028three',
}

const cell = (row, column) => `/v1/tables/users/rows/${encodeURIComponent(row)}/${column}`
const row = (key) => page.locator('.data tbody tr', { has: page.getByRole('rowheader', { name: key, exact: true }) })

test('a table is created, altered and dropped from the page', async () => {
  await visit('data')
  await looksWell('data')
  const { command } = await perform(page.getByRole('button', { name: 'Create a table' }), 'Create', async (dialog) => {
    await dialog.getByLabel('Name').fill('made here')
    await dialog.getByLabel('Families').fill('a\nb:versions=3')
    await dialog.getByLabel('Cut into tablets by').selectOption('range')
    await dialog.getByLabel('First keys').fill('m')
    await looksWell('data-create')
    await dialog.getByLabel('Name').fill('made')
  })
  assert.match(command, /table create made --family a --family b:versions=3 --partition range --split m$/)
  await page.getByRole('link', { name: 'made', exact: true }).click()
  await page.getByText('The table has no rows').waitFor()
  await page.getByRole('link', { name: 'Schema', exact: true }).click()
  await perform(page.getByRole('button', { name: 'Add a family' }), 'Add', async (dialog) => {
    await dialog.getByLabel('Name').fill('c')
    await dialog.getByLabel('Keeps').fill('age=30d')
  })
  await page.getByRole('cell', { name: 'age=30d' }).waitFor()
  await perform(page.getByRole('button', { name: 'Change what b keeps' }), 'Change', (dialog) => dialog.getByLabel('Keeps').fill('versions=7'))
  await page.getByRole('cell', { name: 'versions=7' }).waitFor()
  await perform(page.getByRole('button', { name: 'Compact leveled' }), 'Make it leveled')
  await perform(page.getByRole('button', { name: 'Drop a', exact: true }), 'Drop the family with its data', (dialog) =>
    dialog.getByLabel('to confirm').fill('a'),
  )
  await page.getByRole('rowheader', { name: 'a', exact: true }).waitFor({ state: 'detached' })
  await looksWell('data-schema')
  await perform(page.getByRole('button', { name: 'Protect' }), 'Protect it')
  await page.getByRole('button', { name: 'Lift the protection' }).waitFor()
  assert.ok(await page.getByRole('button', { name: 'Drop the table' }).isDisabled())
  await perform(page.getByRole('button', { name: 'Lift the protection' }), 'Lift the protection')
  await perform(page.getByRole('button', { name: 'Drop the table' }), 'Drop made', (dialog) => dialog.getByLabel('to confirm').fill('made'))
  await page.getByRole('link', { name: 'made', exact: true }).waitFor({ state: 'detached' })
  await perform(page.getByRole('button', { name: 'Restore' }), 'Restore made')
  await page.getByRole('link', { name: 'made', exact: true }).waitFor()
  await visit('data/made/schema')
  await perform(page.getByRole('button', { name: 'Drop the table' }), 'Drop made', async (dialog) => {
    await dialog.getByLabel('And then').selectOption('')
    await dialog.getByLabel('to confirm').fill('made')
  })
  assert.equal((await cluster.get('/v1/tables')).tables.some(({ name }) => name === 'made'), false)
})

test('rows are browsed both ways, and found by their prefix', async () => {
  await visit('data/users?rows=25')
  const keys = async () => page.locator('.data').getByRole('rowheader').allInnerTexts()
  await page.getByText('25 rows').last().waitFor()
  const first = await keys()
  await page.getByRole('button', { name: 'Next page' }).click()
  await page.waitForURL(/start=/)
  await until('there are other rows', async () => (await keys())[0] !== first[0])
  const second = await keys()
  assert.deepEqual([...first, ...second], [...first, ...second].sort(), 'in order')
  assert.ok(await page.getByRole('button', { name: 'Next page' }).isDisabled(), 'there are 50 rows')
  await page.getByRole('button', { name: 'Previous page' }).click()
  await until('the first rows are back', async () => (await keys())[0] === first[0])
  assert.deepEqual(await keys(), first)
  assert.ok(await page.getByRole('button', { name: 'Previous page' }).isDisabled())
  await page.getByLabel('Row keys that begin with').fill('row-4')
  await page.getByRole('button', { name: 'Search' }).click()
  await page.getByText('11 rows').waitFor()
  await page.getByLabel('Versions').selectOption('3')
  await until('each has several versions', async () => (await page.locator('.data tbody tr').count()) === 33)
  await looksWell('data-rows', 4)
  await page.getByLabel('Row keys that begin with').fill('nothing')
  await page.getByRole('button', { name: 'Search' }).click()
  await page.getByText('No row key begins with nothing').waitFor()
})

test('a cell is written, edited under a condition, and deleted', async () => {
  await visit('data/users?prefix=ada')
  await page.getByText('No row key begins with ada').waitFor()
  const write = page.getByRole('button', { name: 'Write a cell' })
  const fill = (value) => async (dialog) => {
    await dialog.getByLabel('Row').fill('ada')
    await dialog.getByLabel('Family').selectOption('name')
    await dialog.getByLabel('Qualifier').fill('first')
    await dialog.getByLabel('Value', { exact: true }).fill(value)
  }
  await perform(write, 'Write', fill('Ada'))
  await row('ada').getByText('Ada', { exact: true }).waitFor()
  // The column has a value by now.
  await write.click()
  await fill('Eve')(dialog())
  await dialog().getByRole('button', { name: 'Write', exact: true }).click()
  await dialog().getByRole('alert').getByText('has a value already: Ada').waitFor()
  await page.keyboard.press('Escape')

  // Somebody else writes between reading and writing.
  await row('ada').getByRole('button', { name: 'Edit' }).click()
  await dialog().getByLabel('Value', { exact: true }).fill('Augusta')
  await cluster.put(cell('ada', 'name:first'), 'somebody else was here')
  await dialog().getByRole('button', { name: 'Write', exact: true }).click()
  await dialog().getByText('somebody else was here').waitFor()
  await looksWell('data-cput')
  assert.equal(await (await fetch(cluster.url + cell('ada', 'name:first'))).text(), 'somebody else was here')
  await dialog().getByRole('button', { name: 'I have seen that' }).click()
  const command = await dialog().locator('.command code').innerText()
  assert.match(command, /cput users ada name:first --expect 'somebody else was here' --put Augusta$/)
  await dialog().getByRole('button', { name: 'Write', exact: true }).click()
  await row('ada').getByText('Augusta', { exact: true }).waitFor()

  await row('ada').getByRole('button', { name: 'Edit' }).click()
  await dialog().getByRole('button', { name: 'Delete this version' }).click()
  await dialog().getByRole('button', { name: 'Delete this version' }).click()
  await row('ada').getByText('somebody else was here').waitFor()
  await perform(row('ada').getByRole('button', { name: 'Delete row' }), 'Delete the row')
  await page.getByText('No row key begins with ada').waitFor()
})

test('binary values are read and edited as bytes', async () => {
  await cluster.put(cell('bin', 'name:raw'), Uint8Array.from([0, 255, 16, 0x41]))
  await visit('data/users?prefix=bin')
  await row('bin').getByText('\\x00\\xff\\x10A', { exact: true }).waitFor()
  await row('bin').getByRole('button', { name: 'Edit' }).click()
  await dialog().getByText('00 ff 10 41 ').waitFor()
  await looksWell('data-bytes')
  await dialog().getByLabel('Value', { exact: true }).fill('00 ff 2')
  assert.ok(await dialog().getByRole('button', { name: 'Write', exact: true }).isDisabled(), 'half a byte')
  await dialog().getByLabel('Value', { exact: true }).fill('fe 00')
  await dialog().getByRole('button', { name: 'Write', exact: true }).click()
  await row('bin').getByText('\\xfe\\x00', { exact: true }).waitFor()
  const bytes = new Uint8Array(await (await fetch(cluster.url + cell('bin', 'name:raw'))).arrayBuffer())
  assert.deepEqual([...bytes], [0xfe, 0])
})

test('hostile values and keys are text', async () => {
  for (const [name, value] of Object.entries(HOSTILE)) {
    await cluster.put(cell('evil', `name:${name}`), value)
    await cluster.put(cell(`evil ${value}`, `name:${encodeURIComponent(value)}`), 'x')
  }
  await cluster.put(cell('evil large', 'name:large'), 'ab'.repeat(1 << 20))
  await visit('data/users?prefix=evil')
  await page.getByText(HOSTILE.html, { exact: true }).first().waitFor()
  await page.getByText('bell \\x07, escape \\x1b[31m, null \\x00, return \\x0d', { exact: true }).first().waitFor()
  await row('evil large').getByText('… 2.0 MiB').waitFor()
  const text = await page.locator('#main').innerText()
  assert.doesNotMatch(text, /[\u202e\u200b\ufeff\u2028\u0007]/, 'nothing turns or hides text')
  assert.equal(await page.locator('#main img, #main script').count(), 0)
  await looksWell('data-hostile')
  await row('evil large').getByRole('button', { name: 'Edit' }).click()
  await dialog().getByText('its first 64.0 KiB are shown').waitFor()
  await looksWell('data-large')
  await page.keyboard.press('Escape')
  await page.getByRole('button', { name: 'Edit name:html of evil', exact: true }).click()
  await dialog().getByLabel('Value', { exact: true }).waitFor()
  assert.equal(await dialog().getByLabel('Value', { exact: true }).inputValue(), HOSTILE.html)
  await page.keyboard.press('Escape')
  assert.match(await page.title(), /Diptych/)
  for (const [key, value] of Object.entries(HOSTILE)) {
    await fetch(cluster.url + cell(`evil ${value}`, '').slice(0, -1), { method: 'DELETE' })
    await cluster.put(cell('evil', `name:${key}`), 'tame')
  }
})

test('tablets are split, merged, moved and handed over from the page', async () => {
  await visit('tablets?table=logs')
  const line = (id) => page.locator('.tablets tbody tr', { has: page.getByRole('rowheader', { name: id, exact: true }) })
  const logs = async () => (await cluster.get('/v1/cluster')).tablets.filter(({ table }) => table === 'logs')
  const [first] = (await logs()).sort((a, b) => (a.rows.start < b.rows.start ? -1 : 1))
  await line(first.tablet).getByText('served').waitFor()
  await looksWell('tablets', 4)
  const handed = await perform(page.getByRole('button', { name: `Hand over ${first.tablet}` }), `Hand over ${first.tablet}`)
  assert.match(handed.command, new RegExp(`tablet transfer ${first.tablet} --to ${first.secondaries[0]}$`))
  await until('it is handed over', async () => (await logs()).find(({ tablet }) => tablet === first.tablet)?.primary === first.secondaries[0])
  const moved = await perform(page.getByRole('button', { name: `Move ${first.tablet}` }), `Move ${first.tablet}`)
  const [, from, to] = moved.command.match(/--from (n\d) --to (n\d)$/)
  await until('it has moved', async () => {
    const { primary, secondaries } = (await logs()).find(({ tablet }) => tablet === first.tablet)
    return [primary, ...secondaries].includes(to) && ![primary, ...secondaries].includes(from)
  })
  const parted = await perform(page.getByRole('button', { name: `Split ${first.tablet}` }), `Split ${first.tablet}`, async (dialog) => {
    await dialog.getByLabel('First row').fill('c')
    await looksWell('tablets-split')
  })
  assert.match(parted.command, /--at c$/)
  await until('there are four', async () => (await logs()).length === 4)
  const left = (await logs()).find(({ rows }) => rows.end === 'c')
  await perform(page.getByRole('button', { name: `Merge ${left.tablet}` }), 'Bring them together')
  await until('there are three', async () => (await logs()).length === 3)
  await page.getByText('3 tablets').waitFor()
  await page.getByLabel('With these words').fill('no such thing')
  await page.getByText('No tablet is like that').waitFor()
})

test('charts show the last hour from the processes themselves', async () => {
  await visit('charts')
  const chart = (title) => page.getByRole('figure').filter({ hasText: title })
  // A sample is taken each five seconds, and a line needs two.
  await until('something was written between two samples', async () => {
    await cluster.put(cell('charted', 'name:first'), 'x')
    return chart('How long requests over HTTP take').getByRole('img').isVisible()
  })
  for (const title of ['How long requests over HTTP take', 'Syncs of the log', 'Memory', 'Written to the log']) {
    await chart(title).getByRole('img').waitFor()
  }
  assert.match(await chart('Syncs of the log').innerText(), /n1/)
  const memory = await chart('Memory').getByRole('img').getAttribute('aria-label')
  assert.match(memory, /m1 now [\d.]+ MiB/)
  await looksWell('charts', 4)
  await page.getByLabel('The last').selectOption('60')
  await chart('Memory').getByRole('img').waitFor()
})

test('data is written while its primary is killed', async () => {
  await visit('data/users?prefix=row-1')
  hurt = true
  const victim = (await cluster.get('/v1/cluster')).tablets.find(({ table }) => table === 'users').primary
  await fetch(`${cluster.url}/v1/nodes/${victim}/kill`, { method: 'POST' })
  await row('row-1').getByRole('button', { name: 'Edit' }).click()
  await dialog().getByLabel('Value', { exact: true }).fill('written during a failover')
  await dialog().getByRole('button', { name: 'Write', exact: true }).click()
  await row('row-1').getByText('written during a failover').waitFor()
  await fetch(`${cluster.url}/v1/nodes/${victim}/restart`, { method: 'POST' })
  await until('it is back', async () => (await node(victim)).alive)
  hurt = false
})

test('the theatre measures a failover, and nothing acknowledged is lost', async () => {
  await visit('theatre')
  await page.getByRole('button', { name: 'Make the table and begin' }).click()
  const kill = page.getByRole('button', { name: 'Kill the primary' })
  await until('it can be killed', () => kill.isEnabled())
  const [tablet] = (await cluster.get('/v1/cluster')).tablets.filter(({ table }) => table.startsWith('theatre-'))
  hurt = true
  await perform(kill, `Kill ${tablet.primary}`)
  await page.locator('.marks').getByText(/leads, epoch/).waitFor()
  await until('writes go on', async () => !(await page.locator('.figure.warn', { hasText: 'Without a write' }).isVisible()))
  await looksWell('theatre')
  await page.getByRole('button', { name: 'Stop and check' }).click()
  await page.getByText(/All .* acknowledged writes are there/).waitFor()
  console.log(await page.locator('.verdict').innerText())
  await looksWell('theatre-verdict')
  await perform(page.getByRole('button', { name: `Start ${tablet.primary}` }), `Restart ${tablet.primary}`)
  await page.getByRole('button', { name: 'Drop the table' }).click()
  await page.getByRole('button', { name: 'Make the table and begin' }).waitFor()
  await until('it is back', async () => (await node(tablet.primary)).alive)
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
