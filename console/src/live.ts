// What is known of the cluster, kept fresh: its state each second, its events as they come.
//
//   /v1/cluster, /v1/processes, /v1/tables ──each second──▶ live ──▶ whoever uses `useLive`
//   /v1/events?follow=true ──────────────as they come─────▶
//
// What fails leaves the last state in place, with the reason and its age. A hidden page asks for nothing.

import { useEffect, useReducer, useState } from 'preact/hooks'
import { get, problem, type Cluster, type Happening, type Problem, type Processes, type Table } from './api'
import { sample } from './heat'
import { setEndpoint } from './show'

export interface Live {
  cluster: Cluster | null
  /// When the state came, by this browser's clock.
  at: number
  problem: Problem | null
  processes: Processes | null
  tables: Table[] | null
  /// The newest first.
  events: Happening[]
  /// Does the stream of events stand?
  following: boolean
}

const EVERY = 1000
const EVENTS = 500

let live: Live = { cluster: null, at: 0, problem: null, processes: null, tables: null, events: [], following: false }
const readers = new Set<() => void>()

function learn(news: Partial<Live>): void {
  live = { ...live, ...news }
  for (const read of readers) read()
}

export function useLive(): Live {
  const [, again] = useReducer<number, void>((turn) => turn + 1, 0)
  useEffect(() => {
    const read = () => again()
    readers.add(read)
    return () => void readers.delete(read)
  }, [])
  return live
}

/// The time, each second.
export function useNow(): number {
  const [now, set] = useState(Date.now)
  useEffect(() => {
    const timer = setInterval(() => set(Date.now()), 1000)
    return () => clearInterval(timer)
  }, [])
  return now
}

/// Asks at once, as after an action.
export async function refresh(): Promise<void> {
  const [cluster, processes, tables] = await Promise.allSettled([
    get<Cluster>('/v1/cluster', 4000),
    get<Processes>('/v1/processes', 4000),
    get<{ tables: Table[] }>('/v1/tables', 4000),
  ])
  const news: Partial<Live> = {}
  if (cluster.status === 'fulfilled') {
    Object.assign(news, { cluster: cluster.value, at: Date.now(), problem: null })
    sample(cluster.value, Date.now())
  }
  if (cluster.status === 'rejected') news.problem = problem(cluster.reason)
  if (processes.status === 'fulfilled') {
    news.processes = processes.value
    setEndpoint(processes.value.endpoint)
  }
  if (tables.status === 'fulfilled') news.tables = tables.value.tables
  learn(news)
}

const pause = (ms: number) => new Promise((done) => setTimeout(done, ms))

async function watch(): Promise<never> {
  for (;;) {
    if (!document.hidden) await refresh()
    await pause(EVERY)
  }
}

/// An EventSource would need to know the names of all events; this reads the stream itself.
async function follow(): Promise<never> {
  let last = 0
  for (;;) {
    try {
      const query = last === 0 ? '?follow=true&limit=200' : '?follow=true'
      const headers: Record<string, string> = last === 0 ? {} : { 'Last-Event-ID': String(last) }
      const response = await fetch(`/v1/events${query}`, { headers, cache: 'no-store' })
      if (!response.ok || response.body === null) throw new Error(response.statusText)
      learn({ following: true })
      const reader = response.body.pipeThrough(new TextDecoderStream()).getReader()
      let text = ''
      for (;;) {
        const { done, value } = await reader.read()
        if (done) break
        text += value
        const pieces = text.split('\n\n')
        text = pieces.pop() ?? ''
        const came = pieces.flatMap(happenings).filter((event) => event.seq > last)
        if (came.length === 0) continue
        last = came.at(-1)!.seq
        learn({ events: [...came.reverse(), ...live.events].slice(0, EVENTS) })
      }
    } catch {
      // Said by `following`; the cluster's state says why.
    }
    learn({ following: false })
    await pause(EVERY)
  }
}

function happenings(piece: string): Happening[] {
  const line = piece.split('\n').find((line) => line.startsWith('data: '))
  return line === undefined ? [] : [JSON.parse(line.slice(6))]
}

export function begin(): void {
  void watch()
  void follow()
  document.addEventListener('visibilitychange', () => {
    if (!document.hidden) void refresh()
  })
}
