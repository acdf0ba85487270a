// Pages of rows, both ways, and single cells. What comes is bounded: a page ends early where rows are large.
import { ask, problem, Problem, type Json, type Row, type Version } from './api'
import { encoded, escaped, fromJson, toJson, unescaped } from './bytes'

/// Characters of a page, after which it ends, and of a row, with which we do not even begin.
const PAGE = 8 << 20
const ROW = 64 << 20

export interface Wanted {
  table: string
  prefix: Uint8Array
  /// The page begins there …
  start: Uint8Array | null
  /// … or ends before there.
  end: Uint8Array | null
  limit: number
  versions: number
}

export interface Page {
  rows: Row[]
  /// Are there more rows before it, and after it?
  before: boolean
  after: boolean
  /// It is short because its rows are large.
  cut: boolean
}

export const path = (table: string, ...rest: string[]): string => `/v1/tables/${[encodeURIComponent(table), ...rest].join('/')}`

function query(wanted: Pick<Wanted, 'prefix' | 'start' | 'end'>, limit: number, versions: number, reverse: boolean): string {
  const parts = [`limit=${limit}`, `versions=${versions}`]
  if (wanted.prefix.length > 0) parts.push(`prefix=${encoded(wanted.prefix)}`)
  if (wanted.start !== null) parts.push(`start=${encoded(wanted.start)}`)
  if (wanted.end !== null) parts.push(`end=${encoded(wanted.end)}`)
  if (reverse) parts.push('reverse=true')
  return parts.join('&')
}

/// The next key after this one.
export function next(key: Uint8Array): Uint8Array {
  const longer = new Uint8Array(key.length + 1)
  longer.set(key)
  return longer
}

export async function readPage(wanted: Wanted): Promise<Page> {
  const back = wanted.end !== null
  const rows: Row[] = []
  const one = wanted.limit + 1
  const cut = await lines(path(wanted.table, `rows?${query(wanted, one, wanted.versions, back)}`), (row) => rows.push(row))
  const more = cut || rows.length > wanted.limit
  rows.splice(wanted.limit)
  if (back) rows.reverse()
  const edge = back ? rows.at(-1) : rows[0]
  const key = edge === undefined ? (back ? wanted.end : wanted.start) : fromJson(edge.row)
  const other = key === null ? false : await hasRows(wanted, back ? { start: next(key), end: null } : { start: null, end: key })
  return back ? { rows, before: more, after: other, cut } : { rows, before: other, after: more, cut }
}

/// Is there any row? As soon as one begins to come we know.
async function hasRows(wanted: Wanted, part: { start: Uint8Array | null; end: Uint8Array | null }): Promise<boolean> {
  const response = await ask('GET', path(wanted.table, `rows?${query({ ...wanted, ...part }, 1, 1, part.end !== null)}`))
  const reader = response.body?.getReader()
  const { done } = (await reader?.read()) ?? { done: true }
  await reader?.cancel().catch(() => undefined)
  return !done
}

/// Reads rows until there are no more or they are too many; true if it ended early.
async function lines(url: string, take: (row: Row) => void): Promise<boolean> {
  const response = await ask('GET', url)
  const reader = response.body?.pipeThrough(new TextDecoderStream()).getReader()
  if (reader === undefined) return false
  let text = ''
  let length = 0
  let taken = 0
  try {
    for (;;) {
      const { done, value } = await reader.read()
      if (done) break
      text += value
      length += value.length
      const complete = text.split('\n')
      text = complete.pop() ?? ''
      for (const line of complete.filter((line) => line !== '')) {
        const row = JSON.parse(line)
        if ('error' in row) throw new Problem(503, row.error.code, row.error.message, row.error.hint)
        take(row)
        taken++
      }
      if (length > PAGE && taken > 0) return true
      if (length > ROW) {
        const message = 'the first row of this page has more than 64 MB'
        throw new Problem(0, 'resource_exhausted', message, 'Read single cells of it with `diptych get --raw`.')
      }
    }
  } catch (error) {
    throw problem(error)
  } finally {
    await reader.cancel().catch(() => undefined)
  }
  return false
}

/// A column by its name as rows have it: qualifiers are bytes, shown with \xNN where they are no text.
export interface Column {
  family: string
  qualifier: Uint8Array
}

export function column(name: string): Column {
  const at = name.indexOf(':')
  return { family: name.slice(0, at), qualifier: unescaped(name.slice(at + 1)) }
}

export const columnName = ({ family, qualifier }: Column): string => `${family}:${escaped(qualifier)}`

const inPath = ({ family, qualifier }: Column): string => `${encodeURIComponent(family)}:${encoded(qualifier)}`

export const cellPath = (table: string, row: Uint8Array, cell: Column): string => path(table, 'rows', encoded(row), inPath(cell))

/// The newest versions of a column, the newest first.
export async function versions(table: string, row: Uint8Array, cell: Column, most: number): Promise<Version[]> {
  const query = `versions=${most}&column=${encodeURIComponent(cell.family)}%3A${encoded(cell.qualifier)}`
  try {
    const found: Row = await (await ask('GET', path(table, 'rows', `${encoded(row)}?${query}`))).json()
    return Object.values(found.cells)[0] ?? []
  } catch (error) {
    if (problem(error).code === 'not_found') return []
    throw error
  }
}

export async function put(table: string, row: Uint8Array, cell: Column, value: Uint8Array): Promise<number> {
  const response = await ask('PUT', cellPath(table, row, cell), value)
  return (await response.json()).version
}

export type Cput = { applied: true; version: number } | { applied: false; present: Version | null }

/// Can a condition name this column? In JSON it is text.
export const canCput = (cell: Column): boolean => typeof toJson(cell.qualifier) === 'string'

export async function cput(table: string, row: Uint8Array, cell: Column, expect: Json | null, value: Uint8Array): Promise<Cput> {
  const name = `${cell.family}:${toJson(cell.qualifier) as string}`
  const body = { column: name, expect, put: toJson(value) }
  return (await ask('POST', path(table, 'rows', `${encoded(row)}:cput`), body)).json()
}

export async function deleteCell(table: string, row: Uint8Array, cell: Column, timestamp?: number): Promise<void> {
  await ask('DELETE', cellPath(table, row, cell) + (timestamp === undefined ? '' : `?timestamp=${timestamp}`))
}

export async function deleteRow(table: string, row: Uint8Array): Promise<void> {
  await ask('DELETE', path(table, 'rows', encoded(row)))
}

