// The rows of a table, a page at a time, both ways. A line for each version of each cell.
import { useEffect, useState } from 'preact/hooks'
import { problem, Problem, type Json, type Table } from '../api'
import { encoded, escaped, fromJson, unescaped } from '../bytes'
import { useNow } from '../live'
import { act, Failed, type Action } from '../parts/action'
import { Long } from '../parts/long'
import { Empty, When } from '../parts/small'
import { go, link, type Place } from '../route'
import { canCput, column, columnName, cput, deleteRow, next, put, readPage, type Column, type Page } from '../rows'
import { command, count, plural, size } from '../show'
import { CellDialog } from './cell'

/// Lines of one row in the browser; all are in its cells.
const LINES = 60

interface Line {
  id: string
  row: Uint8Array
  first: boolean
  name: string
  version: { value: Json; timestamp: number } | null
  /// Instead of a cell: so many more.
  more: number
}

function linesOf(page: Page): Line[] {
  const lines: Line[] = []
  for (const { row, cells } of page.rows) {
    const key = fromJson(row)
    const all = Object.entries(cells).flatMap(([name, versions]) => versions.map((version) => ({ name, version })))
    for (const [at, { name, version }] of all.slice(0, LINES).entries()) {
      lines.push({ id: `${encoded(key)}/${name}@${version.timestamp}`, row: key, first: at === 0, name, version, more: 0 })
    }
    if (all.length > LINES) lines.push({ id: `${encoded(key)}/more`, row: key, first: false, name: '', version: null, more: all.length - LINES })
  }
  return lines
}

/// A value on one line: its beginning as text, and its size if that is not all.
export function Value({ value }: { value: Json }) {
  const head = typeof value === 'string' ? fromJson(value.slice(0, 160)) : fromJson({ base64: value.base64.slice(0, 212) })
  const length = typeof value === 'string' ? (value.length <= 160 ? head.length : new Blob([value]).size) : Math.floor((value.base64.replace(/=+$/, '').length * 3) / 4)
  return (
    <>
      <bdi class="mono" dir="ltr">{length === 0 ? '' : escaped(head)}</bdi>
      {length === 0 && <span class="age">empty</span>}
      {length > head.length && <span class="age"> … {size(length)}</span>}
    </>
  )
}

export function RowsView({ table, place }: { table: Table; place: Place }) {
  const prefix = place.query.get('prefix') ?? ''
  const start = place.query.get('start')
  const end = place.query.get('end')
  const versions = Number(place.query.get('versions') ?? 1)
  const limit = Number(place.query.get('rows') ?? 100)
  const [page, setPage] = useState<Page | null>(null)
  const [failed, setFailed] = useState<Problem | null>(null)
  const [turn, setTurn] = useState(0)
  const [typed, type] = useState(prefix)
  const [open, setOpen] = useState<{ row: Uint8Array; column: Column } | null>(null)
  const now = useNow()
  const again = () => setTurn((turn) => turn + 1)

  useEffect(() => {
    let wanted = true
    const bytes = (text: string | null) => (text === null ? null : unescaped(text))
    readPage({ table: table.name, prefix: unescaped(prefix), start: bytes(start), end: bytes(end), limit, versions }).then(
      (page) => wanted && (setPage(page), setFailed(null)),
      (error) => wanted && setFailed(problem(error)),
    )
    return () => void (wanted = false)
  }, [table.name, prefix, start, end, limit, versions, turn])

  const to = (change: Record<string, string>) => {
    const kept = { prefix, versions: String(versions), rows: String(limit) }
    go(link('data', [table.name], { ...kept, ...change }))
  }
  const lines = page === null ? [] : linesOf(page)
  const first = page?.rows[0]
  const last = page?.rows.at(-1)
  return (
    <>
      <form class="bar" onSubmit={(event) => (event.preventDefault(), typed === prefix ? again() : to({ prefix: typed }))}>
        <label>
          Row keys that begin with
          <input value={typed} spellcheck={false} autocomplete="off" placeholder="anything" onInput={(event) => type(event.currentTarget.value)} />
        </label>
        <label>
          Versions
          <select value={versions} onChange={(event) => to({ versions: event.currentTarget.value })}>
            {[1, 3, 10, 100].map((number) => <option key={number} value={number}>{number === 1 ? 'the newest' : `${number} newest`}</option>)}
          </select>
        </label>
        <label>
          On a page
          <select value={limit} onChange={(event) => to({ rows: event.currentTarget.value })}>
            {[25, 100, 1000].map((number) => <option key={number} value={number}>{count(number)} rows</option>)}
          </select>
        </label>
        <button type="submit">Search</button>
        <button type="button" onClick={() => act(writeCell(table, again))}>Write a cell</button>
      </form>
      {failed !== null && (
        <>
          <Failed problem={failed} />
          <p><button type="button" onClick={again}>Ask again</button></p>
        </>
      )}
      {page === null ? (
        failed === null && <p class="waiting">Reading rows …</p>
      ) : lines.length === 0 ? (
        <Empty title={start !== null || end !== null ? 'No more rows on this side' : prefix === '' ? 'The table has no rows' : `No row key begins with ${prefix}`}>
          {(prefix !== '' || start !== null || end !== null) && <p><a href={link('data', [table.name])}>From the first row</a></p>}
        </Empty>
      ) : (
        <Long
          label="Rows"
          class="data"
          rows={lines}
          id={({ id }) => id}
          columns={5}
          height={22}
          head={
            <>
              <th scope="col" class="key">Row</th>
              <th scope="col" class="column">Column</th>
              <th scope="col">Value</th>
              <th scope="col" class="when">Version, and its age</th>
              <th scope="col" class="doing">Actions</th>
            </>
          }
        >
          {(line) => <Cells line={line} now={now} edit={() => setOpen({ row: line.row, column: column(line.name) })} drop={() => act(dropRow(table, line.row, again))} />}
        </Long>
      )}
      <p class="pager">
        <button type="button" disabled={start === null && end === null} onClick={() => to({})}>First page</button>
        <button type="button" disabled={!page?.before} onClick={() => to({ end: escaped(first === undefined ? unescaped(start ?? '') : fromJson(first.row)) })}>Previous page</button>
        <button type="button" disabled={!page?.after} onClick={() => to({ start: escaped(last === undefined ? unescaped(end ?? '') : next(fromJson(last.row))) })}>Next page</button>
        <span class="aside">
          {page !== null && plural(page.rows.length, 'row')}
          {page?.cut && ', fewer than asked for because they are large'}
        </span>
      </p>
      {open !== null && <CellDialog table={table.name} row={open.row} column={open.column} close={() => setOpen(null)} changed={again} />}
    </>
  )
}

function Cells({ line, now, edit, drop }: { line: Line; now: number; edit: () => void; drop: () => void }) {
  const key = escaped(line.row)
  const short = key.length > 60 ? `${key.slice(0, 60)} …` : key
  const { version } = line
  // As we show it: a name that comes may hold what turns or hides text.
  const shown = version === null ? '' : columnName(column(line.name))
  if (version === null) {
    return (
      <>
        <td />
        <td colSpan={4} class="age">
          and {plural(line.more, 'more cell')}: search for this row with fewer versions, or `diptych get`
        </td>
      </>
    )
  }
  return (
    <>
      {line.first ? (
        <th scope="row" title={key}>
          <bdi class="mono" dir="ltr">{short}</bdi>
        </th>
      ) : (
        <td class="repeated" aria-label={short}>
          <bdi class="mono" dir="ltr">{short}</bdi>
        </td>
      )}
      <td title={shown}>
        <bdi class="mono" dir="ltr">{shown}</bdi>
      </td>
      <td>
        <Value value={version.value} />
      </td>
      <td class="when">
        <When at={version.timestamp / 1000} now={now} />
      </td>
      <td>
        <button type="button" class="small" aria-label={`Edit ${shown} of ${short}`} onClick={edit}>Edit</button>{' '}
        {line.first && (
          <button type="button" class="small danger" aria-label={`Delete row ${short}`} onClick={drop}>Delete row</button>
        )}
      </td>
    </>
  )
}

function dropRow(table: Table, row: Uint8Array, done: () => void): Action {
  const key = escaped(row)
  return {
    title: `Delete row ${key.slice(0, 80)}`,
    button: 'Delete the row',
    danger: true,
    preview: () => [
      { when: 'at once', what: 'All cells of the row are gone, in all families, with all their versions.', tone: 'bad' },
      { when: 'for ever', what: 'They cannot be brought back. Later writes to the row are not affected.', tone: 'warn' },
    ],
    command: () => command('del', table.name, key),
    run: async () => {
      await deleteRow(table.name, row)
      done()
      return 'deleted the row'
    },
  }
}

function writeCell(table: Table, done: () => void): Action {
  const cell = (values: Record<string, string>): Column => ({ family: values.family!, qualifier: unescaped(values.qualifier ?? '') })
  return {
    title: `Write a cell of ${table.name}`,
    button: 'Write',
    fields: () => [
      { name: 'row', label: 'Row', hint: '\\xNN is the byte NN' },
      { name: 'family', label: 'Family', choices: table.families.map(({ name }) => ({ value: name, label: name })) },
      { name: 'qualifier', label: 'Qualifier', hint: 'may be empty; \\xNN is the byte NN' },
      { name: 'value', label: 'Value', rows: 3 },
      {
        name: 'guard',
        label: 'Write',
        choices: [
          { value: 'absent', label: 'only if the column has no value yet (cput)' },
          { value: 'any', label: 'in any case' },
        ],
      },
    ],
    refuses: (_live, values) => {
      if (values.row === '') return 'A row key has at least one byte.'
      if (values.guard === 'absent' && !canCput(cell(values))) return 'A condition needs a qualifier that is text: write in any case.'
      return null
    },
    preview: (_live, values) => [
      values.guard === 'absent'
        ? { when: 'at once', what: 'The value is written if the column has none, and is then on the disk of every replica. Otherwise nothing changes, and you see what it holds.' }
        : { when: 'at once', what: 'The value is the newest version, on the disk of every replica.' },
    ],
    command: (values) => {
      const name = columnName(cell(values))
      const row = values.row || 'ROW'
      return values.guard === 'absent'
        ? command('cput', table.name, row, name, '--expect-absent', '--put', values.value!)
        : command('put', table.name, row, `${name}=${values.value}`)
    },
    run: async (values) => {
      const [row, value] = [unescaped(values.row!), new TextEncoder().encode(values.value)]
      if (values.guard === 'any') await put(table.name, row, cell(values), value)
      else {
        const answer = await cput(table.name, row, cell(values), null, value)
        if (!answer.applied) {
          const holds = answer.present === null ? 'nothing' : escaped(fromJson(answer.present.value)).slice(0, 200)
          throw new Problem(409, 'condition', `the column has a value already: ${holds}`, 'Nothing was written.')
        }
      }
      done()
      return `wrote ${columnName(cell(values))}`
    },
  }
}
