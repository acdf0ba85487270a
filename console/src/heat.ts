// What each tablet has been asked of, since the page was opened: a sample every two seconds, for ten minutes.
import type { Cluster } from './api'
import { load } from './cluster'

const EVERY = 2000
export const SAMPLES = 300

const samples: Map<string, number>[] = []
let last = 0

export function sample(cluster: Cluster, now: number): void {
  if (now - last < EVERY - 100) return
  last = now
  samples.push(new Map(cluster.tablets.map((tablet) => [tablet.tablet, load(tablet)])))
  if (samples.length > SAMPLES) samples.shift()
}

/// The oldest first.
export const sampled = (): readonly Map<string, number>[] => samples
export const seconds = (count: number): number => (count * EVERY) / 1000
