// A real cluster and a real browser for the checks: `diptych up` in a temporary folder on free ports, and Chromium.
import { execFile, spawn } from 'node:child_process'
import { existsSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { chromium } from 'playwright-core'

const root = fileURLToPath(new URL('../..', import.meta.url))
const binary = process.env.DIPTYCH ?? join(root, 'target/debug/diptych')
const run = promisify(execFile)

/// Starts a cluster of four nodes. `stop` ends it, and its folder goes with it.
export async function startCluster(...flags) {
  const folder = mkdtempSync(join(tmpdir(), 'diptych-console-'))
  const any = '127.0.0.1:0'
  const up = spawn(binary, ['up', '--json', '--http', any, '--grpc', any, '--data', join(folder, 'data'), ...flags], {
    stdio: ['ignore', 'pipe', 'ignore'],
    env: { ...process.env, DIPTYCH_ENDPOINT: '' },
  })
  const ended = new Promise((done) => up.once('exit', done))
  const lines = createInterface({ input: up.stdout })
  const first = await Promise.race([new Promise((got) => lines.once('line', got)), ended.then(() => null)])
  if (first === null) throw new Error(`${binary} up did not start`)
  const { grpc, http, processes } = JSON.parse(first)
  return {
    url: `http://${http}`,
    grpc,
    processes,
    /// Runs the command line against the cluster.
    diptych: async (...words) => (await run(binary, ['--endpoint', grpc, ...words])).stdout,
    /// The same for a command as the console shows it.
    shell: async (command) => (await run('sh', ['-c', command.replace(/^diptych/, binary)])).stdout,
    get: async (path) => (await fetch(`http://${http}${path}`)).json(),
    put: async (path, body) => {
      const response = await fetch(`http://${http}${path}`, { method: 'PUT', body })
      if (!response.ok) throw new Error(await response.text())
    },
    stop: async () => {
      up.kill('SIGTERM')
      await ended
      rmSync(folder, { recursive: true, force: true })
    },
  }
}

/// Debian's, or what CHROMIUM names.
export async function startBrowser() {
  const executablePath = process.env.CHROMIUM ?? ['/usr/bin/chromium', '/usr/bin/chromium-browser'].find((file) => existsSync(file))
  const args = ['--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking']
  return chromium.launch({ executablePath, args: [...args, '--disable-component-update', '--disable-sync'] })
}

/// Asks until it is so.
export async function until(what, ask, patience = 20_000) {
  const due = Date.now() + patience
  for (;;) {
    if (await ask()) return
    if (Date.now() > due) throw new Error(`${what}: not within ${patience} ms`)
    await new Promise((done) => setTimeout(done, 100))
  }
}
