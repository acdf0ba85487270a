// The last hour of the processes' metrics (/v1/history), and what can be read from two samples of one process.
import { get } from './api'

export interface Sample {
  at: number
  reads: number[]
  writes: number[]
  http: number[]
  syncs: number[]
  logged: number
  load: number | null
  hits: number
  misses: number
  lag: number | null
  pending: number | null
  memory: number | null
}

interface Answer {
  processes: Record<string, { bounds: number[]; samples: Sample[] }>
}

const HOUR = 3_600_000
const known = new Map<string, Sample[]>()
let bounds: number[] = []
let last = 0

/// Asks for what is new, and puts it behind what is known.
export async function refresh(): Promise<void> {
  // Clocks and turns of several processes differ by some seconds: what comes twice is known.
  const since = Math.max(0, last - 15_000)
  const { processes } = await get<Answer>(`/v1/history?since=${since}`)
  for (const [id, history] of Object.entries(processes)) {
    bounds = history.bounds
    const samples = known.get(id) ?? []
    const newest = samples.at(-1)?.at ?? 0
    samples.push(...history.samples.filter(({ at }) => at > newest))
    while (samples[0] !== undefined && samples[0].at < Date.now() - HOUR) samples.shift()
    known.set(id, samples)
    last = Math.max(last, samples.at(-1)?.at ?? 0)
  }
}

/// A point of a line; no number where nothing is known.
export interface Point {
  at: number
  value: number | null
}

export interface Curve {
  name: string
  points: Point[]
}

type Read = (now: Sample, before: Sample, seconds: number) => number | null

/// One curve for each process that has something to say, in the order of their names.
export function each(read: Read, wanted: (id: string) => boolean): Curve[] {
  const names = [...known.keys()].filter(wanted).sort((a, b) => (a[0] === b[0] ? Number(a.slice(1)) - Number(b.slice(1)) : a < b ? -1 : 1))
  return names.map((name) => ({ name, points: pairs(known.get(name)!, read) })).filter(({ points }) => points.some(({ value }) => value !== null))
}

function pairs(samples: Sample[], read: Read): Point[] {
  return samples.slice(1).map((now, at) => {
    const before = samples[at]!
    const seconds = (now.at - before.at) / 1000
    // A process that was suspended or started again has no difference to show.
    const broken = seconds > 15 || seconds <= 0 || now.logged < before.logged || now.http.at(-1)! < before.http.at(-1)!
    return { at: now.at, value: broken ? null : read(now, before, seconds) }
  })
}

const FIVE = 5000

/// Curves of several processes as one: the sum, or the greatest, in steps of five seconds.
export function together(name: string, curves: Curve[], how: 'sum' | 'most'): Curve {
  const steps = new Map<number, number>()
  for (const { points } of curves) {
    for (const { at, value } of points) {
      if (value === null) continue
      const step = Math.round(at / FIVE) * FIVE
      const there = steps.get(step) ?? 0
      steps.set(step, how === 'sum' ? there + value : Math.max(there, value))
    }
  }
  return { name, points: [...steps].sort(([a], [b]) => a - b).map(([at, value]) => ({ at, value })) }
}

type Timed = 'reads' | 'writes' | 'http' | 'syncs'

export const counted = (what: Timed): Read => (now, before, seconds) => (now[what].at(-1)! - before[what].at(-1)!) / seconds

/// The percentile of what took place in all processes, in seconds, as buckets tell it.
export function percentile(name: string, what: Timed, part: number, wanted: (id: string) => boolean): Curve {
  const steps = new Map<number, number[]>()
  for (const [id, samples] of known) {
    if (!wanted(id)) continue
    for (const [at, now] of samples.entries()) {
      const before = samples[at - 1]
      if (before === undefined || now.at - before.at > 15_000) continue
      const grown = now[what].map((count, bucket) => count - before[what][bucket]!)
      if (grown.at(-1)! <= 0 || grown.some((count) => count < 0)) continue
      const step = Math.round(now.at / FIVE) * FIVE
      const there = steps.get(step)
      steps.set(step, there === undefined ? grown : there.map((count, bucket) => count + grown[bucket]!))
    }
  }
  const points = [...steps].sort(([a], [b]) => a - b).map(([at, counts]) => ({ at, value: quantile(counts, part) }))
  return { name, points }
}

/// Within its bucket a value is guessed evenly.
export function quantile(counts: number[], part: number): number | null {
  const all = counts.at(-1) ?? 0
  if (all === 0) return null
  const rank = part * all
  const bucket = counts.findIndex((count) => count >= rank)
  const upper = bounds[bucket]
  const lower = bucket === 0 ? 0 : bounds[bucket - 1]!
  if (upper === undefined) return lower
  const below = bucket === 0 ? 0 : counts[bucket - 1]!
  return lower + ((upper - lower) * (rank - below)) / Math.max(1, counts[bucket]! - below)
}
