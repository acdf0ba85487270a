// Tables and their rows.
//
//   #/data                    all tables
//   #/data/TABLE              its rows: ?prefix= and, for a page, start= or end=
//   #/data/TABLE/schema       its families and settings
import { useEffect, useState } from 'preact/hooks'
import { get, post, type Table } from '../api'
import { useLive } from '../live'
import { act } from '../parts/action'
import { Empty, State, Waiting } from '../parts/small'
import { link, type Place } from '../route'
import { command, count, plural } from '../show'
import { RowsView } from './rows'
import { SchemaView, createTable } from './schema'

export function DataPage({ place }: { place: Place }) {
  const live = useLive()
  const [name, view] = place.path
  if (live.tables === null) {
    return (
      <>
        <h1>Data</h1>
        <Waiting problem={live.problem} what="the tables" />
      </>
    )
  }
  if (name === undefined) return <Tables tables={live.tables} />
  const table = live.tables.find((table) => table.name === name)
  return (
    <>
      <h1>
        <a href={link('data')}>Data</a> <span class="aside">/</span> {name}
      </h1>
      {table === undefined ? (
        <Empty title={`There is no table ${name}`}>
          <p>
            It may have been dropped. <a href={link('data')}>All tables</a>
          </p>
        </Empty>
      ) : (
        <>
          <nav class="tabs" aria-label="Of the table">
            <a href={link('data', [name])} aria-current={view === undefined ? 'page' : undefined}>Rows</a>
            <a href={link('data', [name, 'schema'])} aria-current={view === 'schema' ? 'page' : undefined}>Schema</a>
          </nav>
          {view === 'schema' ? <SchemaView table={table} /> : <RowsView key={name} table={table} place={place} />}
        </>
      )}
    </>
  )
}

export const partitionText = ({ partition }: Table): string =>
  'hash' in partition ? `hash, ${plural(partition.hash, 'tablet')}` : `range, ${plural(partition.range.length, 'split')} at first`

function Tables({ tables }: { tables: Table[] }) {
  const live = useLive()
  const tablets = (name: string) => live.cluster?.tablets.filter(({ table }) => table === name).length ?? 0
  return (
    <>
      <div class="title">
        <h1>Data</h1>
        <button type="button" class="primary" onClick={() => act(createTable())}>
          Create a table
        </button>
      </div>
      {tables.length === 0 ? (
        <Empty title="No tables yet">
          <p>Create one here, or with <code>diptych table create users --family name</code></p>
        </Empty>
      ) : (
        <div class="scroll" tabIndex={0} role="region" aria-label="Table of tables">
          <table>
            <thead>
              <tr>
                <th scope="col">Table</th>
                <th scope="col">Families</th>
                <th scope="col" class="number">Tablets</th>
                <th scope="col" class="number">Replicas</th>
                <th scope="col" class="rows">Cut by</th>
                <th scope="col" class="status">Protection</th>
                <th scope="col" class="status">Schema</th>
              </tr>
            </thead>
            <tbody>
              {tables.map((table) => (
                <tr key={table.name}>
                  <th scope="row">
                    <a href={link('data', [table.name])}>{table.name}</a>
                  </th>
                  <td>{table.families.map(({ name }) => name).join(', ')}</td>
                  <td class="number">{count(tablets(table.name))}</td>
                  <td class="number">{count(table.replicas)}</td>
                  <td>{partitionText(table)}</td>
                  <td>{table.protected ? <State tone="good" text="protected" /> : 'none'}</td>
                  <td>
                    <a href={link('data', [table.name, 'schema'])}>version {count(table.version)}</a>
                  </td>
                </tr>
              ))}
            </tbody>
          </table>
        </div>
      )}
      <Hidden version={tables.length} />
    </>
  )
}

/// Tables that were dropped so that they can be brought back.
function Hidden({ version }: { version: number }) {
  const [tables, set] = useState<Table[]>([])
  useEffect(() => {
    void get<{ tables: Table[] }>('/v1/tables?hidden=true').then(({ tables }) => set(tables), () => set([]))
  }, [version])
  if (tables.length === 0) return null
  const restore = (name: string) =>
    act({
      title: `Restore ${name}`,
      button: `Restore ${name}`,
      preview: () => [{ when: 'at once', what: 'The table is there again, with all its rows as they were.', tone: 'good' }],
      command: () => command('table', 'restore', name),
      run: async () => {
        await post(`/v1/tables/${encodeURIComponent(name)}/restore`)
        set(tables.filter((table) => table.name !== name))
        return `restored ${name}`
      },
    })
  return (
    <section aria-labelledby="hidden-title">
      <h2 id="hidden-title">Dropped, and kept for a while</h2>
      <ul class="plain">
        {tables.map(({ name }) => (
          <li key={name}>
            {name} <button type="button" class="small" onClick={() => restore(name)}>Restore</button>
          </li>
        ))}
      </ul>
    </section>
  )
}
