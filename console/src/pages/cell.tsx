// One cell: its versions, read as text or as bytes, edited, and written only if it still holds what one has seen.
import { useEffect, useState } from 'preact/hooks'
import { problem, type Problem, type Version } from '../api'
import { equal, escaped, fromHex, fromJson, hexdump, isText, toHex, toJson } from '../bytes'
import { useNow } from '../live'
import { act, Command, Failed, say, useModal } from '../parts/action'
import { When } from '../parts/small'
import { canCput, cellPath, columnName, cput, deleteCell, put, versions, type Column } from '../rows'
import { command, quoted, size } from '../show'

/// Bytes up to which a value is edited here, and of a longer one how much is shown.
const EDITED = 64 << 10
const VERSIONS = 20

const utf8 = new TextEncoder()

interface Props {
  table: string
  row: Uint8Array
  column: Column
  close: () => void
  changed: () => void
}

export function CellDialog(props: Props) {
  const { table, row, column, close } = props
  const element = useModal(close)
  const [found, setFound] = useState<Version[] | null>(null)
  const [failed, setFailed] = useState<Problem | null>(null)
  useEffect(() => {
    versions(table, row, column, VERSIONS).then(setFound, (error) => setFailed(problem(error)))
  }, [])
  return (
    <dialog ref={element} class="wide" aria-labelledby="cell-title">
      <h2 id="cell-title">
        <bdi class="mono" dir="ltr">{escaped(row).slice(0, 120)}</bdi> <span class="aside">/</span> <bdi class="mono" dir="ltr">{columnName(column)}</bdi>
      </h2>
      {failed !== null && <Failed problem={failed} />}
      {found === null ? (
        failed === null && <p class="waiting">Reading the cell …</p>
      ) : (
        <Cell {...props} versions={found} />
      )}
    </dialog>
  )
}

function Cell({ table, row, column, close, changed, versions }: Props & { versions: Version[] }) {
  const now = useNow()
  const [at, setAt] = useState(0)
  const shown = versions[at]
  const bytes = shown === undefined ? new Uint8Array() : fromJson(shown.value)
  /// What the column is expected to hold when we write; null is nothing.
  const [expected, expect] = useState(versions[0]?.value ?? null)
  const [form, setForm] = useState<'text' | 'hex'>(isText(bytes) ? 'text' : 'hex')
  const [draft, setDraft] = useState(() => written(bytes, isText(bytes) ? 'text' : 'hex'))
  const [guarded, guard] = useState(canCput(column))
  const [present, setPresent] = useState<Version | null | undefined>(undefined)
  const [busy, setBusy] = useState(false)
  const [failed, setFailed] = useState<Problem | null>(null)

  const large = bytes.length > EDITED
  const value = form === 'text' ? utf8.encode(draft) : fromHex(draft)
  const key = escaped(row)
  const name = columnName(column)

  const show = (index: number) => {
    const bytes = fromJson(versions[index]!.value)
    const fits = form === 'text' && !isText(bytes) ? 'hex' : form
    setAt(index)
    setForm(fits)
    setDraft(written(bytes, fits))
  }
  const turn = (to: 'text' | 'hex') => {
    if (value === null || to === form) return
    setForm(to)
    setDraft(written(value, to))
  }
  const save = async () => {
    if (value === null) return
    setBusy(true)
    setFailed(null)
    try {
      if (guarded) {
        const answer = await cput(table, row, column, expected, value)
        if (!answer.applied) {
          setPresent(answer.present)
          setBusy(false)
          return
        }
      } else await put(table, row, column, value)
      say(`wrote ${name}`, byHand())
      changed()
      close()
    } catch (error) {
      setFailed(problem(error))
      setBusy(false)
    }
  }
  const byHand = (): string => {
    const text = value !== null && isText(value) && value.length <= 300 ? draft : null
    const before = expected === null ? null : fromJson(expected)
    const plain = before === null || (isText(before) && before.length <= 300)
    if (form === 'text' && text !== null && guarded && plain) {
      const condition = before === null ? ['--expect-absent'] : ['--expect', new TextDecoder().decode(before)]
      return command('cput', table, key, name, ...condition, '--put', text)
    }
    if (form === 'text' && text !== null && !guarded) return command('put', table, key, `${name}=${text}`)
    return `curl -X PUT --data-binary @FILE ${quoted(location.origin + cellPath(table, row, column))}`
  }
  const remove = (timestamp?: number) => {
    close()
    act({
      title: timestamp === undefined ? `Delete ${name}` : `Delete one version of ${name}`,
      button: timestamp === undefined ? 'Delete the column' : 'Delete this version',
      danger: true,
      preview: () => [
        timestamp === undefined
          ? { when: 'at once', what: `${name} of row ${key.slice(0, 80)} is gone, with all its versions.`, tone: 'bad' }
          : { when: 'at once', what: `The version ${timestamp} is gone; the next older one, if there is one, is the newest then.`, tone: 'bad' },
        { when: 'for ever', what: 'It cannot be brought back.', tone: 'warn' },
      ],
      command: () => command('del', table, key, name, ...(timestamp === undefined ? [] : ['--timestamp', String(timestamp)])),
      run: async () => {
        await deleteCell(table, row, column, timestamp)
        changed()
        return timestamp === undefined ? `deleted ${name}` : `deleted a version of ${name}`
      },
    })
  }

  return (
    <>
      <div class="bar">
        <label>
          Version
          {shown === undefined ? (
            <b>none</b>
          ) : (
            <select value={at} onChange={(event) => show(Number(event.currentTarget.value))}>
              {versions.map(({ timestamp }, index) => (
                <option key={timestamp} value={index}>
                  {new Date(timestamp / 1000).toLocaleString('sv-SE')} ({timestamp}){index === 0 ? ', the newest' : ''}
                </option>
              ))}
            </select>
          )}
        </label>
        {shown !== undefined && (
          <span class="aside">
            <When at={shown.timestamp / 1000} now={now} /> ago, {size(bytes.length)}
          </span>
        )}
      </div>
      {large ? (
        <>
          <p class="note">
            The value has {size(bytes.length)}: its first {size(EDITED)} are shown, and it is not edited here.{' '}
            <a href={cellPath(table, row, column)} download="value">Download the newest version</a>
          </p>
          <pre class="bytes" tabIndex={0} aria-label="Bytes of the value">{hexdump(bytes.subarray(0, EDITED))}</pre>
        </>
      ) : (
        <>
          <fieldset class="forms">
            <legend class="unseen">Shown as</legend>
            <label class="check">
              <input type="radio" name="form" checked={form === 'text'} disabled={value === null || !isText(value)} onChange={() => turn('text')} /> text
            </label>
            <label class="check">
              <input type="radio" name="form" checked={form === 'hex'} disabled={value === null} onChange={() => turn('hex')} /> bytes
            </label>
            {value !== null && !isText(value) && <span class="age">not plain text, so it is shown as bytes only</span>}
          </fieldset>
          <textarea
            rows={form === 'hex' ? 5 : 7}
            aria-label="Value"
            spellcheck={false}
            value={draft}
            dir="auto"
            onInput={(event) => setDraft(event.currentTarget.value)}
          />
          {form === 'hex' && (
            <pre class="bytes" tabIndex={0} aria-label="Bytes and their letters">{value === null ? 'not hexadecimal digits, two for each byte' : hexdump(value) || 'no bytes'}</pre>
          )}
          <label class="check">
            <input type="checkbox" checked={guarded} disabled={!canCput(column)} onChange={(event) => guard(event.currentTarget.checked)} />
            write only if it still holds {expected === null ? 'nothing' : at === 0 && present === undefined ? 'what is shown' : 'what was seen last'} (cput)
          </label>
          {present !== undefined && (
            <div class="refused" role="alert">
              <p>
                <b>Nothing was written:</b> it holds {present === null ? 'nothing' : 'something else'} now.
              </p>
              {present !== null && (
                <>
                  <pre class="bytes" aria-label="Present value" tabIndex={0}>{escaped(fromJson(present.value)).slice(0, 2000) || 'an empty value'}</pre>
                  <p>
                    <When at={present.timestamp / 1000} now={now} /> ago
                  </p>
                </>
              )}
              <button
                type="button"
                onClick={() => {
                  expect(present?.value ?? null)
                  setPresent(undefined)
                }}
              >
                I have seen that; expect it instead
              </button>
            </div>
          )}
          <Command text={byHand()} />
        </>
      )}
      {failed !== null && <Failed problem={failed} />}
      <p class="buttons">
        <button type="button" class="danger" disabled={shown === undefined} onClick={() => remove(shown!.timestamp)}>Delete this version</button>
        <button type="button" class="danger" disabled={shown === undefined} onClick={() => remove()}>Delete the column</button>
        <button type="button" onClick={close}>Close</button>
        {!large && (
          <button type="button" class="primary" disabled={busy || value === null || (at === 0 && equal(value, bytes))} onClick={() => void save()}>
            Write
          </button>
        )}
      </p>
    </>
  )
}

function written(bytes: Uint8Array, form: 'text' | 'hex'): string {
  if (bytes.length > EDITED) return ''
  const json = toJson(bytes)
  return form === 'text' && typeof json === 'string' ? json : toHex(bytes)
}
