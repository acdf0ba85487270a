// What can be done to a tablet, and what follows from it.
import { post, type Cluster, type Tablet } from '../api'
import { toJson, unescaped } from '../bytes'
import { bytes, members, rowsText } from '../cluster'
import type { Live } from '../live'
import type { Action } from '../parts/action'
import { command, size } from '../show'

/// The tablet whose rows begin where this one's end; null if there is none.
export function neighbour(cluster: Cluster, { table, rows }: Tablet): Tablet | null {
  if (!('start' in rows) || rows.end === null) return null
  return cluster.tablets.find((other) => other.table === table && 'start' in other.rows && other.rows.start === rows.end) ?? null
}

const now = (live: Live, { tablet }: Tablet): Tablet | undefined => live.cluster?.tablets.find((other) => other.tablet === tablet)

const gone = 'The tablet is not there any more: it was split, merged or dropped.'

export function split(tablet: Tablet): Action {
  const id = tablet.tablet
  return {
    title: `Split ${id}`,
    button: `Split ${id}`,
    fields: () => [{ name: 'at', label: 'First row of the second half', hint: 'empty: where its primary finds its middle; \\xNN is the byte NN' }],
    refuses: (live) => (now(live, tablet) === undefined ? gone : null),
    preview: (_live, { at }) => [
      { when: 'at once', what: `${id} (${rowsText(tablet)}, ${size(bytes(tablet))}) becomes two tablets${at === '' ? ', each with about half of its data' : `, the second from ${at}`}.` },
      { when: 'meanwhile', what: 'Its writes pause for a moment; clients are sent on to the heirs. No row is copied.', tone: 'good' },
      { when: 'later', what: 'The same nodes keep both until the balance or you move one. A merge brings them together again.' },
    ],
    command: ({ at }) => command('tablet', 'split', id, ...(at === '' ? [] : ['--at', at!])),
    run: async ({ at }) => {
      const done = await post<{ left: string; right: string }>(`/v1/tablets/${id}/split`, at === '' ? {} : { at: toJson(unescaped(at!)) })
      return `split ${id} into ${done.left} and ${done.right}`
    },
  }
}

export function merge(cluster: Cluster, tablet: Tablet): Action {
  const id = tablet.tablet
  const other = neighbour(cluster, tablet)
  const next = other?.tablet ?? 'the next'
  return {
    title: `Merge ${id} and ${next}`,
    button: 'Bring them together',
    refuses: (live) => (now(live, tablet) === undefined ? gone : null),
    preview: () => {
      const [here, there] = [members(tablet), other === null ? [] : members(other)]
      const moved = there.filter((node) => !here.includes(node))
      return [
        moved.length > 0
          ? { when: 'first', what: `One of them moves so that the same nodes keep both: ${here.join(', ')} and ${there.join(', ')} do now. That copies up to ${size(bytes(other ?? tablet))}.` }
          : { when: 'first', what: 'The same nodes keep both: nothing is copied.', tone: 'good' as const },
        { when: 'then', what: `${id} and ${next} become one tablet. Their writes pause for a moment; clients are sent on.` },
      ]
    },
    command: () => command('tablet', 'merge', id),
    run: async () => {
      await post(`/v1/tablets/${id}/merge`)
      return `${id} and ${next} are being brought together`
    },
  }
}

export function move(tablet: Tablet): Action {
  const id = tablet.tablet
  const free = (live: Live) => live.cluster?.nodes.filter((node) => node.alive && !node.draining && !members(now(live, tablet) ?? tablet).includes(node.id)) ?? []
  return {
    title: `Move ${id}`,
    button: `Move ${id}`,
    fields: (live) => [
      { name: 'from', label: 'Away from', choices: members(now(live, tablet) ?? tablet).map((node) => ({ value: node, label: node === tablet.primary ? `${node}, the primary` : node })) },
      { name: 'to', label: 'To', choices: free(live).map((node) => ({ value: node.id, label: `${node.id}, which keeps ${node.primary_of + node.secondary_of} tablets` })) },
    ],
    refuses: (live) => (now(live, tablet) === undefined ? gone : free(live).length === 0 ? 'No other living node could keep it: each that is not being emptied does already.' : null),
    preview: (_live, { from, to }) => [
      { when: 'first', what: `${to || 'The other node'} gets a copy of ${size(bytes(tablet))}, and what is written meanwhile. Reads and writes go on.`, tone: 'good' },
      ...(from === tablet.primary ? [{ when: 'then', what: `${from} hands over the primary's place: writes pause for a moment.` }] : []),
      { when: 'in the end', what: `${to || 'The other node'} is a member, and ${from} forgets the tablet.` },
    ],
    command: ({ from, to }) => command('tablet', 'move', id, '--from', from!, '--to', to || 'NODE'),
    run: async ({ from, to }) => {
      await post(`/v1/tablets/${id}/move`, { from, to })
      return `${id} moves from ${from} to ${to}`
    },
  }
}

export function transfer(tablet: Tablet): Action {
  const id = tablet.tablet
  return {
    title: `Hand over ${id}`,
    button: `Hand over ${id}`,
    fields: (live) => [{ name: 'to', label: 'To', choices: (now(live, tablet) ?? tablet).secondaries.map((node) => ({ value: node, label: node })) }],
    refuses: (live) => {
      const present = now(live, tablet)
      return present === undefined ? gone : present.secondaries.length === 0 ? 'It has no secondary to take it.' : null
    },
    preview: (live, { to }) => [
      { when: 'at once', what: `${(now(live, tablet) ?? tablet).primary} holds its writes until ${to} has all of them, for a moment. None fails.`, tone: 'good' },
      { when: 'then', what: `${to} is the primary in the next epoch, and ${(now(live, tablet) ?? tablet).primary} follows it.` },
    ],
    command: ({ to }) => command('tablet', 'transfer', id, '--to', to!),
    run: async ({ to }) => {
      await post(`/v1/tablets/${id}/transfer`, { to })
      return `${id} is handed over to ${to}`
    },
  }
}
