// Tablets: where their ranges lie, how large and how busy they are, and what can be done to them.
import { useState } from 'preact/hooks'
import type { Cluster, Tablet } from '../api'
import { bytes, lag, load, number, primaryReport, rowsText, trouble } from '../cluster'
import { useLive } from '../live'
import { act } from '../parts/action'
import { HeatMap } from '../parts/heat'
import { Long } from '../parts/long'
import { Empty, State, Waiting } from '../parts/small'
import { go, link, type Place } from '../route'
import { count, plural, size } from '../show'
import { merge, move, neighbour, split, transfer } from './tablet-actions'

const ORDERS = {
  key: { name: 'table and rows', by: () => 0 },
  load: { name: 'load, the busiest first', by: (a: Tablet, b: Tablet) => load(b) - load(a) },
  size: { name: 'size, the largest first', by: (a: Tablet, b: Tablet) => bytes(b) - bytes(a) },
  lag: { name: 'lag, the greatest first', by: (a: Tablet, b: Tablet) => (lag(b) ?? 1e18) - (lag(a) ?? 1e18) },
} as const

/// By table, and within it as the rows lie.
export function byKey(a: Tablet, b: Tablet): number {
  if (a.table !== b.table) return a.table < b.table ? -1 : 1
  if ('hash' in a.rows && 'hash' in b.rows) return a.rows.hash - b.rows.hash
  if ('start' in a.rows && 'start' in b.rows) return a.rows.start < b.rows.start ? -1 : a.rows.start > b.rows.start ? 1 : 0
  return number(a.tablet) - number(b.tablet)
}

export function TabletsPage({ place }: { place: Place }) {
  const live = useLive()
  const [order, setOrder] = useState<keyof typeof ORDERS>('key')
  const [words, setWords] = useState('')
  const { cluster } = live
  if (cluster === null) {
    return (
      <>
        <h1>Tablets</h1>
        <Waiting problem={live.problem} what="the tablets" />
      </>
    )
  }
  const table = place.query.get('table') ?? ''
  const ordered = [...cluster.tablets].sort(byKey)
  const ofTable = ordered.filter((tablet) => table === '' || tablet.table === table)
  const wanted = words.toLowerCase().split(/\s+/).filter((word) => word !== '')
  const says = (tablet: Tablet) => [tablet.tablet, tablet.table, tablet.primary, ...tablet.secondaries, rowsText(tablet)].map((text) => text.toLowerCase())
  const rows = ofTable.filter((tablet) => wanted.every((word) => says(tablet).some((text) => text.includes(word)))).sort(ORDERS[order].by)
  return (
    <>
      <h1>Tablets</h1>
      <div class="bar">
        <label>
          Table
          <select value={table} onChange={(event) => go(link('tablets', [], { table: event.currentTarget.value }))}>
            <option value="">all</option>
            {[...new Set([...cluster.tablets.map(({ table }) => table), ...(table === '' ? [] : [table])])].sort().map((name) => <option key={name} value={name}>{name}</option>)}
          </select>
        </label>
        <label>
          Order by
          <select value={order} onChange={(event) => setOrder(event.currentTarget.value as keyof typeof ORDERS)}>
            {Object.entries(ORDERS).map(([id, { name }]) => <option key={id} value={id}>{name}</option>)}
          </select>
        </label>
        <label>
          With these words
          <input value={words} spellcheck={false} placeholder="t7, n2, a key" onInput={(event) => setWords(event.currentTarget.value)} />
        </label>
        <span class="aside">{plural(rows.length, 'tablet')}</span>
      </div>
      {rows.length === 0 ? (
        <Empty title={cluster.tablets.length === 0 ? 'No tables yet' : 'No tablet is like that'}>
          {cluster.tablets.length === 0 && <p><a href={link('data')}>Create a table</a></p>}
        </Empty>
      ) : (
        <Long
          label="Table of tablets"
          class="tablets wide"
          rows={rows}
          id={({ tablet }) => tablet}
          columns={10}
          height={16}
          head={
            <>
              <th scope="col" class="id">Tablet</th>
              <th scope="col" class="table">Table</th>
              <th scope="col" class="rows">Rows</th>
              <th scope="col" class="number short">Epoch</th>
              <th scope="col" class="status">State</th>
              <th scope="col" class="members">Members</th>
              <th scope="col" class="number">Size</th>
              <th scope="col" class="number">Load, req/s</th>
              <th scope="col" class="number">Lag, records</th>
              <th scope="col" class="four">Actions</th>
            </>
          }
        >
          {(tablet) => <Cells tablet={tablet} cluster={cluster} wrong={trouble(cluster, tablet, live.tables)} />}
        </Long>
      )}
      <section aria-labelledby="heat-title">
        <h2 id="heat-title">
          Load over time <span class="aside">tablets in the order of their rows from left to right, the present at the bottom</span>
        </h2>
        <HeatMap tablets={ofTable.map(({ tablet, table, rows }) => ({ id: tablet, text: `${tablet} of ${table}, ${rowsText({ rows } as Tablet)}` }))} />
      </section>
    </>
  )
}

function Cells({ tablet, cluster, wrong }: { tablet: Tablet; cluster: Cluster; wrong: ReturnType<typeof trouble> }) {
  const range = 'start' in tablet.rows
  const behind = lag(tablet)
  const known = primaryReport(tablet) !== undefined
  const whole = range ? '' : 'a table that is cut by hash keeps its tablets'
  return (
    <>
      <th scope="row">{tablet.tablet}</th>
      <td>{tablet.table}</td>
      <td title={rowsText(tablet)}>
        <code>{rowsText(tablet)}</code>
      </td>
      <td class="number">{count(tablet.epoch)}</td>
      <td>{wrong === null ? <State tone="good" text="served" /> : <State {...wrong} />}</td>
      <td>
        <b>{tablet.primary}</b> {tablet.secondaries.join(' ')}
      </td>
      <td class="number">{known ? size(bytes(tablet)) : 'unknown'}</td>
      <td class="number">{count(load(tablet))}</td>
      <td class="number">{behind === null ? 'unknown' : count(behind)}</td>
      <td>
        <span class="actions">
          <button type="button" class="small" disabled={!range} title={whole} aria-label={`Split ${tablet.tablet}`} onClick={() => act(split(tablet))}>Split</button>
          <button type="button" class="small" disabled={neighbour(cluster, tablet) === null} title={whole} aria-label={`Merge ${tablet.tablet}`} onClick={() => act(merge(cluster, tablet))}>Merge</button>
          <button type="button" class="small" aria-label={`Move ${tablet.tablet}`} onClick={() => act(move(tablet))}>Move</button>
          <button type="button" class="small" disabled={tablet.secondaries.length === 0} aria-label={`Hand over ${tablet.tablet}`} onClick={() => act(transfer(tablet))}>Hand over</button>
        </span>
      </td>
    </>
  )
}
