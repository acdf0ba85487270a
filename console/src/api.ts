// What the cluster says over REST (docs/rest.md), as types, and the one way to ask.

export interface Master {
  id: string
  address: string
  state: string
  leads: boolean
  heard_ms_ago: number | null
  behind: number | null
}

export interface Node {
  id: string
  address: string
  alive: boolean
  incarnation: number
  heard_ms_ago: number | null
  disk_full: boolean
  draining: boolean
  scrub: { percent: number; completed: string | null; damage: number }
  primary_of: number
  secondary_of: number
  stalled: number
}

export interface Replica {
  node: string
  role: 'primary' | 'secondary' | 'learner' | 'spare'
  epoch: number
  durable: number
  committed: number
  lag: number | null
  steady: boolean
  bytes: number
  load: number
  damaged: string | null
  stalled: boolean
}

export type Slice = { hash: number; of: number } | { start: string; end: string | null }

export interface Tablet {
  tablet: string
  table: string
  rows: Slice
  epoch: number
  primary: string
  secondaries: string[]
  learner: string | null
  replicas: Replica[]
}

export interface Cluster {
  cluster: string
  masters: Master[]
  nodes: Node[]
  tablets: Tablet[]
}

export interface Process {
  id: string
  role: 'master' | 'node'
  state: 'running' | 'suspended' | 'down'
  pid: number | null
  grpc: string
  http: string
}

export interface Processes {
  version: string
  control: boolean
  endpoint: string | null
  processes: Process[]
}

export interface Family {
  name: string
  keeps: string
  locality: string
  aggregate?: string | null
}

export interface Locality {
  name: string
  compression: string
  block_bytes: number
  filter: string
  in_memory: boolean
}

export interface Table {
  name: string
  version: number
  families: Family[]
  partition: { hash: number } | { range: Json[] }
  replicas: number
  min_replicas: number
  compaction: string
  localities: Locality[]
  granularity?: string
  protected?: boolean
}

export interface Happening {
  seq: number
  at: number
  source: string
  name: string
  table: string | null
  tablet: string | null
  node: string | null
  epochs: [number, number] | number[] | null
  what: string
  count: number
}

/// Bytes as JSON has them: text if they are UTF-8.
export type Json = string | { base64: string }

export interface Version {
  value: Json
  timestamp: number
}

export interface Row {
  row: Json
  cells: Record<string, Version[]>
}

/// What was answered instead of what was asked for.
export class Problem extends Error {
  constructor(
    readonly status: number,
    readonly code: string,
    message: string,
    readonly hint: string,
  ) {
    super(message)
  }
}

export function problem(error: unknown): Problem {
  if (error instanceof Problem) return error
  if (error instanceof DOMException && error.name === 'TimeoutError') {
    return new Problem(0, 'unavailable', 'no answer in time', 'The process may be suspended, or have too much to do.')
  }
  if (error instanceof TypeError) {
    return new Problem(0, 'unavailable', 'the process that served this page does not answer', 'Is it still running? This page goes on by itself when it is back.')
  }
  return new Problem(0, 'internal', String(error), '')
}

async function refuse(response: Response): Promise<never> {
  const text = await response.text()
  try {
    const { code, message, hint } = JSON.parse(text).error
    throw new Problem(response.status, code, message, hint)
  } catch (error) {
    if (error instanceof Problem) throw error
    throw new Problem(response.status, 'internal', text.slice(0, 200) || response.statusText, '')
  }
}

/// Asks; fails with a Problem.
export async function ask(method: string, path: string, body?: BodyInit | object, patience = 12_000): Promise<Response> {
  const plain = body === undefined || typeof body === 'string' || body instanceof Uint8Array
  const init: RequestInit = { method, signal: AbortSignal.timeout(patience), cache: 'no-store' }
  if (body !== undefined) init.body = plain ? (body as BodyInit) : JSON.stringify(body)
  let response
  try {
    response = await fetch(path, init)
  } catch (error) {
    throw problem(error)
  }
  return response.ok ? response : refuse(response)
}

export async function get<T>(path: string, patience?: number): Promise<T> {
  return (await ask('GET', path, undefined, patience)).json()
}

export async function post<T = object>(path: string, body?: BodyInit | object): Promise<T> {
  return (await ask('POST', path, body)).json()
}
