// The map: a card for each node, and in it a square for each replica that it keeps.
//
//   ■ primary   ▣ secondary   ▨ learner          amber: it lags; red: not served, stalled or damaged; grey: the node is down
//
// One square is in the tab order at a time; the arrow keys walk over all of them, and what is under the focus is told below.

import { Component } from 'preact'
import { useRef, useState } from 'preact/hooks'
import type { Cluster, Node, Replica, Table, Tablet } from '../api'
import { bytes, isServed, load, nodeState, report, rowsText, trouble } from '../cluster'
import { age, count, plural, size } from '../show'
import { State } from './small'

interface Square {
  tablet: Tablet
  node: Node
  role: 'primary' | 'secondary' | 'learner'
  replica: Replica | undefined
}

function squaresOf(cluster: Cluster): Map<string, Square[]> {
  const nodes = new Map(cluster.nodes.map((node) => [node.id, node]))
  const squares = new Map<string, Square[]>(cluster.nodes.map((node) => [node.id, []]))
  const put = (tablet: Tablet, id: string, role: Square['role']) => {
    const node = nodes.get(id)
    if (node !== undefined) squares.get(id)!.push({ tablet, node, role, replica: report(tablet, id) })
  }
  for (const tablet of cluster.tablets) {
    put(tablet, tablet.primary, 'primary')
    for (const node of tablet.secondaries) put(tablet, node, 'secondary')
    if (tablet.learner !== null) put(tablet, tablet.learner, 'learner')
  }
  return squares
}

function tone(cluster: Cluster, { tablet, node, role, replica }: Square): string {
  if (!node.alive) return 'down'
  if (replica === undefined) return 'unknown'
  if (replica.damaged !== null || replica.stalled) return 'bad'
  if (role === 'primary' && !isServed(cluster, tablet)) return 'bad'
  if (role !== 'learner' && !replica.steady) return 'warn'
  return (replica.lag ?? 0) > 0 ? 'lags' : 'fine'
}

export function TabletMap({ cluster, tables }: { cluster: Cluster; tables: Table[] | null }) {
  const [at, setAt] = useState<string | null>(null)
  const element = useRef<HTMLDivElement>(null)
  const squares = squaresOf(cluster)
  const all = [...squares.values()].flat()
  const key = (square: Square) => `${square.node.id}/${square.tablet.tablet}`
  const current = all.find((square) => key(square) === at) ?? null
  const reachable = current === null ? (all[0] === undefined ? null : key(all[0])) : key(current)

  const walk = (event: KeyboardEvent) => {
    const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key]
    const buttons = [...element.current!.querySelectorAll<HTMLElement>('.square')]
    const here = buttons.indexOf(document.activeElement as HTMLElement)
    const next = event.key === 'Home' ? 0 : event.key === 'End' ? buttons.length - 1 : step === undefined ? -1 : here + step
    if (here < 0 || buttons[next] === undefined) return
    event.preventDefault()
    buttons[next].focus()
  }

  return (
    <>
      <div class="map" ref={element} onKeyDown={walk}>
        {cluster.nodes.map((node) => {
          const kept = squares.get(node.id) ?? []
          return (
            <article key={node.id} class={node.alive ? '' : 'down'} aria-label={`Node ${node.id}`}>
              <h3>
                <a href="#/nodes">{node.id}</a> <State {...nodeState(node)} />
              </h3>
              <p class="numbers">
                <span>{plural(node.primary_of, 'primary', 'primaries')}</span>
                <span>{plural(node.secondary_of, 'secondary', 'secondaries')}</span>
                <span>heard {node.heard_ms_ago === null ? 'never' : `${age(node.heard_ms_ago)} ago`}</span>
              </p>
              {kept.length === 0 ? (
                <p class="none">keeps nothing</p>
              ) : (
                <div class="squares" role="group" aria-label={`Replicas on ${node.id}`}>
                  {kept.map((square) => (
                    <Button
                      key={square.tablet.tablet}
                      label={`${square.tablet.tablet} of ${square.tablet.table}, ${square.role} on ${node.id}, epoch ${square.tablet.epoch}`}
                      look={`square ${square.role} ${tone(cluster, square)} ${at !== null && current?.tablet === square.tablet ? 'same' : ''}`}
                      reachable={key(square) === reachable}
                      focus={() => setAt(key(square))}
                    />
                  ))}
                </div>
              )}
            </article>
          )
        })}
      </div>
      <div class="legend">
        <span><i class="square primary fine" /> primary</span>
        <span><i class="square secondary fine" /> secondary</span>
        <span><i class="square learner fine" /> learner</span>
        <span><i class="square secondary lags" /> lags</span>
        <span><i class="square primary bad" /> not served, stalled or damaged</span>
        <span><i class="square secondary down" /> node down</span>
      </div>
      <Told square={current} cluster={cluster} tables={tables} />
    </>
  )
}

/// Drawn again only if it looks different: there may be thousands.
class Button extends Component<{ label: string; look: string; reachable: boolean; focus: () => void }> {
  override shouldComponentUpdate(next: Readonly<Button['props']>) {
    const { label, look, reachable } = this.props
    return next.label !== label || next.look !== look || next.reachable !== reachable
  }

  override render() {
    const { label, look, reachable } = this.props
    return (
      <button
        type="button"
        class={look}
        tabIndex={reachable ? 0 : -1}
        aria-label={label}
        onFocus={() => this.props.focus()}
        onMouseEnter={() => this.props.focus()}
        onClick={() => this.props.focus()}
      />
    )
  }
}

function Told({ square, cluster, tables }: { square: Square | null; cluster: Cluster; tables: Table[] | null }) {
  if (square === null) {
    return (
      <dl class="told">
        <div class="wide">
          <dt>Replica</dt>
          <dd>point at a square, or walk over them with the arrow keys</dd>
        </div>
      </dl>
    )
  }
  const { tablet, node, role, replica } = square
  const state = trouble(cluster, tablet, tables) ?? { tone: 'good' as const, text: 'served' }
  const facts: [string, preact.ComponentChildren][] = [
    ['Tablet', <b>{tablet.tablet}</b>],
    ['Table', tablet.table],
    ['State', <State {...state} />],
    [`On ${node.id}`, role],
    ['Epoch', count(tablet.epoch)],
    ['Lag', replica?.lag == null ? 'unknown' : plural(replica.lag, 'record')],
    ['Lease', role === 'learner' ? 'none' : replica?.steady && node.alive ? 'held' : 'not held'],
    ['On disk', replica === undefined ? 'unknown' : `lsn ${count(replica.durable)}`],
    ['Size', size(replica?.bytes ?? bytes(tablet))],
    ['Load', `${count(load(tablet))} requests/s`],
    ['Rows', <code>{rowsText(tablet)}</code>],
  ]
  return (
    <dl class="told">
      {facts.map(([name, fact]) => (
        <div key={name.startsWith('On n') ? 'role' : name} class={name === 'Rows' ? 'wide' : ''}>
          <dt>{name}</dt>
          <dd>{fact}</dd>
        </div>
      ))}
    </dl>
  )
}

