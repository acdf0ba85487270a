// Small things that every page has.
import type { ComponentChildren } from 'preact'
import type { Happening, Problem } from '../api'
import type { Tone } from './action'
import { age, count, time } from '../show'

/// A state in words and colour; the mark before it tells tones apart without colour.
export function State({ tone, text }: { tone: Tone; text: string }) {
  const mark = { good: '●', warn: '▲', bad: '■', plain: '○' }[tone]
  return (
    <span class={`state ${tone}`}>
      <span aria-hidden="true">{mark}</span> {text}
    </span>
  )
}

/// A number under its name and unit. The unit stands with the name, so that nothing moves when the number grows.
export function Figure({ label, value, unit = '', tone = 'plain' }: { label: string; value: string; unit?: string; tone?: Tone }) {
  return (
    <div class={`figure ${tone}`}>
      <dt>
        {label}
        {unit !== '' && `, ${unit}`}
      </dt>
      <dd>{value}</dd>
    </div>
  )
}

export function Empty({ title, children }: { title: string; children?: ComponentChildren }) {
  return (
    <div class="empty">
      <p>
        <b>{title}</b>
      </p>
      {children}
    </div>
  )
}

/// In place of what could not be had yet.
export function Waiting({ problem, what }: { problem: Problem | null; what: string }) {
  if (problem === null) return <p class="waiting">Asking for {what} …</p>
  return (
    <Empty title={problem.message}>
      <p>{problem.hint}</p>
      <p>This page asks again each second.</p>
    </Empty>
  )
}

/// Local time and how long ago that is.
export function When({ at, now }: { at: number; now: number }) {
  return (
    <time dateTime={new Date(at).toISOString()}>
      {time(at, now)} <span class="age">{age(now - at)}</span>
    </time>
  )
}

export function Events({ events, now, empty }: { events: Happening[]; now: number; empty: string }) {
  if (events.length === 0) return <Empty title={empty} />
  return (
    <div class="scroll" tabIndex={0} role="region" aria-label="Table of events">
      <table class="events">
        <thead>
          <tr>
            <th scope="col" class="when">
              When, and how long ago
            </th>
            <th scope="col" class="source">
              Source
            </th>
            <th scope="col" class="name">
              Event
            </th>
            <th scope="col" class="subject">
              Of
            </th>
            <th scope="col">What</th>
          </tr>
        </thead>
        <tbody>
          {events.map((event) => (
            <tr key={event.seq}>
              <td class="when">
                <When at={event.at / 1000} now={now} />
              </td>
              <td>{event.source}</td>
              <td>
                <code>{event.name}</code>
              </td>
              <td>{[event.table, event.tablet, event.node].filter((part) => part !== null).join(' ')}</td>
              <td class="what">
                {event.what}
                {event.count > 1 && <span class="age"> {count(event.count)} times</span>}
              </td>
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  )
}
