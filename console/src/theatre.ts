// The failover theatre: writers that go on while somebody hurts the primary, and the proof that nothing acknowledged was lost.
//
//   begin ─▶ three writers, each: put the next row, again until it is acknowledged ─▶ end ─▶ check: read all, compare
//
// A writer never goes on to its next row before this one is acknowledged. So how many each has written says exactly which rows
// must be there: all below that number, with their values; and at most one more, whose answer did not come in time.

import { ask, post, problem, type Problem } from './api'
import { fromJson } from './bytes'
import { signalled } from './parts/signalled'
import { path, put, readPage } from './rows'

/// A table of its own each time, so that none of yours is touched.
const newName = (): string => `theatre-${Date.now().toString(36)}`
/// A browser has six connections to us, and the page itself takes some.
const WRITERS = 3
/// Between an answer and the next write.
const PAUSE = 10
/// Acknowledged writes are counted in spans of so many milliseconds.
export const SPAN = 100

export interface Mark {
  at: number
  text: string
}

export interface Verdict {
  acknowledged: number
  missing: string[]
  /// Rows that hold something else than was written.
  wrong: string[]
}

export interface Play {
  table: string
  state: 'idle' | 'beginning' | 'running' | 'ending' | 'checking' | 'checked'
  begun: number
  /// When the writers stopped; 0 while they write.
  ended: number
  acknowledged: number
  /// Attempts that failed and were repeated.
  repeated: number
  /// How many in each span since the beginning.
  spans: number[]
  last: number
  /// The longest time without any acknowledged write.
  gap: { from: number; to: number }
  marks: Mark[]
  verdict: Verdict | null
  problem: Problem | null
}

const idle: Play = {
  table: '', state: 'idle', begun: 0, ended: 0, acknowledged: 0, repeated: 0, spans: [], last: 0, gap: { from: 0, to: 0 }, marks: [], verdict: null, problem: null,
}

let play: Play = idle
let writers: Promise<number>[] = []
export const stage = signalled<Play>(idle)

function tell(news: Partial<Play>): void {
  play = { ...play, ...news }
  stage.set(play)
}

export function mark(text: string): void {
  if (play.state === 'running') tell({ marks: [...play.marks, { at: Date.now(), text }] })
}

const pause = (ms: number) => new Promise((done) => setTimeout(done, ms))
const utf8 = new TextEncoder()
const key = (writer: number, at: number): string => `w${writer}-${String(at).padStart(8, '0')}`
const value = (writer: number, at: number): string => `${writer} wrote ${at}`

/// Makes the table, and begins to write.
export async function begin(): Promise<void> {
  if (play.table !== '') await leave()
  const table = newName()
  tell({ ...idle, table, state: 'beginning' })
  try {
    await post('/v1/tables', { name: table, families: ['f'], partition: { hash: 1 } })
    tell({ state: 'running', begun: Date.now(), last: Date.now() })
    writers = Array.from({ length: WRITERS }, (_, writer) => write(writer))
  } catch (error) {
    tell({ ...idle, problem: problem(error) })
  }
}

async function write(writer: number): Promise<number> {
  let at = 0
  while (play.state === 'running') {
    try {
      await put(play.table, utf8.encode(key(writer, at)), { family: 'f', qualifier: new Uint8Array() }, utf8.encode(value(writer, at)))
      at++
      acknowledged()
      await pause(PAUSE)
    } catch (error) {
      play.repeated++
      if (problem(error).code === 'not_found' && play.acknowledged > 0) tell({ problem: problem(error) })
      await pause(100)
    }
  }
  return at
}

/// Changes in place: whoever looks draws a few times a second.
function acknowledged(): void {
  const now = Date.now()
  if (now - play.last > play.gap.to - play.gap.from) play.gap = { from: play.last, to: now }
  play.last = now
  play.acknowledged++
  const span = Math.floor((now - play.begun) / SPAN)
  play.spans[span] = (play.spans[span] ?? 0) + 1
}

/// Stops writing, reads everything and compares.
export async function end(): Promise<void> {
  tell({ state: 'ending' })
  const written = await Promise.all(writers)
  tell({ state: 'checking', ended: Date.now() })
  try {
    const verdict: Verdict = { acknowledged: written.reduce((sum, count) => sum + count, 0), missing: [], wrong: [] }
    for (const [writer, count] of written.entries()) {
      const found = await read(writer)
      for (let at = 0; at < count; at++) {
        const name = key(writer, at)
        const there = found.get(name)
        if (there === undefined) verdict.missing.push(name)
        else if (there !== value(writer, at)) verdict.wrong.push(name)
      }
    }
    tell({ state: 'checked', verdict })
  } catch (error) {
    tell({ state: 'checked', problem: problem(error) })
  }
}

async function read(writer: number): Promise<Map<string, string>> {
  const found = new Map<string, string>()
  const text = new TextDecoder()
  let start: Uint8Array | null = null
  for (;;) {
    const page = await readPage({ table: play.table, prefix: utf8.encode(`w${writer}-`), start, end: null, limit: 5000, versions: 1 })
    for (const { row, cells } of page.rows) found.set(text.decode(fromJson(row)), text.decode(fromJson(Object.values(cells)[0]![0]!.value)))
    const last = page.rows.at(-1)
    if (!page.after || last === undefined) return found
    start = utf8.encode(`${text.decode(fromJson(last.row))}\0`)
  }
}

/// Drops the table, and is as before.
export async function leave(): Promise<void> {
  await ask('DELETE', path(play.table)).catch(() => undefined)
  tell(idle)
}
