// One dialog for every action: what will happen and when, the command that does the same, and then it is done.
//
//   act({ title, fields, preview, command, run }) ─▶ Dialog ─▶ run ─▶ a line at the foot of the page, or the problem in place
//
// The preview is made anew whenever the cluster changes, so it is true at the moment of the click.

import { signalled } from './signalled'
import { useEffect, useRef, useState } from 'preact/hooks'
import { problem, type Problem } from '../api'
import { refresh, useLive, type Live } from '../live'

export type Values = Record<string, string>
export type Tone = 'good' | 'warn' | 'bad' | 'plain'

export interface Line {
  /// When it happens: `at once`, `after 0.7 s`.
  when: string
  what: string
  tone?: Tone
}

export interface Field {
  name: string
  label: string
  /// The choices; without them it is text.
  choices?: { value: string; label: string }[]
  rows?: number
  hint?: string
  initial?: string
}

export interface Action {
  title: string
  button: string
  danger?: boolean
  /// What is asked for; it may depend on what was answered.
  fields?: (live: Live, typed: Values) => Field[]
  preview: (live: Live, values: Values) => Line[]
  command: (values: Values) => string
  /// What has to be typed before it can be done.
  confirm?: string
  /// Why it cannot be done with these values; null if it can.
  refuses?: (live: Live, values: Values) => string | null
  /// Does it, and says what is done.
  run: (values: Values) => Promise<string>
}

const asked = signalled<Action | null>(null)
const said = signalled<{ text: string; command: string } | null>(null)

export function act(action: Action): void {
  asked.set(action)
}

export function say(text: string, command = ''): void {
  said.set({ text, command })
}

export function Said() {
  const news = said.use()
  useEffect(() => {
    if (news === null) return
    const timer = setTimeout(() => said.set(null), 8000)
    return () => clearTimeout(timer)
  }, [news])
  return (
    <div class="said" role="status">
      {news !== null && (
        <p>
          {news.text}
          {news.command !== '' && <code>{news.command}</code>}
        </p>
      )}
    </div>
  )
}

export function Dialogs() {
  const action = asked.use()
  return action === null ? null : <Dialog key={action.title} action={action} close={() => asked.set(null)} />
}

/// What keeps the place of the focus, and closes by Escape.
export function useModal(close: () => void) {
  const element = useRef<HTMLDialogElement>(null)
  useEffect(() => {
    const dialog = element.current!
    const before = document.activeElement
    dialog.showModal()
    dialog.addEventListener('close', close)
    return () => {
      dialog.removeEventListener('close', close)
      dialog.close()
      if (before instanceof HTMLElement) before.focus()
    }
  }, [])
  return element
}

function Dialog({ action, close }: { action: Action; close: () => void }) {
  const live = useLive()
  const element = useModal(close)
  const [typed, type] = useState<Values>({})
  const fields = action.fields?.(live, typed) ?? []
  const [word, setWord] = useState('')
  const [busy, setBusy] = useState(false)
  const [failed, setFailed] = useState<Problem | null>(null)
  const values: Values = {}
  for (const field of fields) values[field.name] = typed[field.name] ?? field.initial ?? field.choices?.[0]?.value ?? ''
  const refused = action.refuses?.(live, values) ?? null
  const ready = !busy && refused === null && (action.confirm === undefined || word === action.confirm)

  const submit = async (event: Event) => {
    event.preventDefault()
    if (!ready) return
    setBusy(true)
    setFailed(null)
    try {
      const text = await action.run(values)
      say(text, action.command(values))
      void refresh()
      close()
    } catch (error) {
      setFailed(problem(error))
      setBusy(false)
    }
  }

  return (
    <dialog ref={element} aria-labelledby="action-title">
      <form onSubmit={submit}>
        <h2 id="action-title">{action.title}</h2>
        {fields.map((field) => (
          <FieldInput
            key={field.name}
            field={field}
            value={values[field.name]!}
            change={(value) => type({ ...typed, [field.name]: value })}
          />
        ))}
        <Preview lines={action.preview(live, values)} />
        <Command text={action.command(values)} />
        {action.confirm !== undefined && (
          <div class="field">
            <label>
              <span>
                Type <b>{action.confirm}</b> to confirm
              </span>
              <input value={word} autocomplete="off" spellcheck={false} onInput={(event) => setWord(event.currentTarget.value)} />
            </label>
          </div>
        )}
        {refused !== null && <p class="refused">{refused}</p>}
        {failed !== null && <Failed problem={failed} />}
        <p class="buttons">
          <button type="button" onClick={close}>
            Cancel
          </button>
          <button type="submit" class={action.danger ? 'danger' : 'primary'} disabled={!ready}>
            {busy ? 'Waiting for the answer …' : action.button}
          </button>
        </p>
      </form>
    </dialog>
  )
}

export function FieldInput({ field, value, change }: { field: Field; value: string; change: (value: string) => void }) {
  const hint = field.hint === undefined ? undefined : `hint-${field.name}`
  const plain = { value, spellcheck: false, 'aria-describedby': hint }
  return (
    <div class="field">
      <label>
        <span>{field.label}</span>
        {field.choices !== undefined ? (
          <select value={value} onChange={(event) => change(event.currentTarget.value)}>
            {field.choices.map(({ value, label }) => (
              <option key={value} value={value}>
                {label}
              </option>
            ))}
          </select>
        ) : field.rows !== undefined ? (
          <textarea rows={field.rows} {...plain} onInput={(event) => change(event.currentTarget.value)} />
        ) : (
          <input autocomplete="off" {...plain} onInput={(event) => change(event.currentTarget.value)} />
        )}
      </label>
      {hint !== undefined && <small id={hint}>{field.hint}</small>}
    </div>
  )
}

export function Preview({ lines }: { lines: Line[] }) {
  if (lines.length === 0) return null
  return (
    <table class="preview">
      <caption>What will happen</caption>
      <tbody>
        {lines.map(({ when, what, tone = 'plain' }, at) => (
          <tr key={at} class={tone}>
            <th scope="row">{when}</th>
            <td>{what}</td>
          </tr>
        ))}
      </tbody>
    </table>
  )
}

export function Command({ text }: { text: string }) {
  const [copied, set] = useState(false)
  const copy = async () => {
    await navigator.clipboard.writeText(text)
    set(true)
    setTimeout(() => set(false), 2000)
  }
  return (
    <div class="command">
      <span>The same by hand</span>
      <code>{text}</code>
      <button type="button" class="small" onClick={() => void copy().catch(() => undefined)}>
        {copied ? 'Copied' : 'Copy'}
      </button>
    </div>
  )
}

export function Failed({ problem }: { problem: Problem }) {
  return (
    <p class="failed" role="alert">
      <b>{problem.message}</b> {problem.hint}
    </p>
  )
}
