// What can be done to nodes and masters, and what follows from it. The times are those of docs/operations.md.
import { post, type Cluster, type Table, type Tablet } from '../api'
import { isServed, members, report } from '../cluster'
import type { Live } from '../live'
import type { Action, Line } from '../parts/action'
import { command, plural } from '../show'

export type NodeAction = 'suspend' | 'resume' | 'kill' | 'restart' | 'drain' | 'undrain' | 'remove'

const LEASE = 'within 0.5 s'
const TAKEOVER = 'after about 0.7 s'
const DOWN = 'after 3 s'
const REPLACED = 'after 30 s'

/// Some of many, by name.
function named(tablets: Tablet[]): string {
  const names = tablets.slice(0, 6).map(({ tablet, table }) => `${tablet} (${table})`)
  const more = tablets.length - names.length
  return names.join(', ') + (more > 0 ? ` and ${more} more` : '')
}

/// What its tablets do without the node. Exported for the dialog that only asks.
export function without(cluster: Cluster, tables: Table[] | null, node: string): Line[] {
  const lines: Line[] = []
  const alive = (id: string) => cluster.nodes.some((other) => other.id === id && other.alive)
  const leads = cluster.tablets.filter(({ primary }) => primary === node)
  const others = (tablet: Tablet) => members(tablet).filter((id) => id !== node && alive(id))
  const lost = leads.filter((tablet) => others(tablet).length === 0)
  const inherited = leads.filter((tablet) => others(tablet).length > 0)
  const follows = cluster.tablets.filter(({ secondaries }) => secondaries.includes(node))
  if (inherited.length > 0) {
    lines.push({ when: 'at once', what: `Reads and writes wait of ${plural(inherited.length, 'tablet')} that it leads: ${named(inherited)}.`, tone: 'warn' })
  }
  if (lost.length > 0) {
    lines.push({ when: 'at once', what: `No other living node keeps ${named(lost)}: ${lost.length === 1 ? 'it is' : 'they are'} not served until this one is back.`, tone: 'bad' })
  }
  if (follows.length > 0) {
    lines.push({ when: LEASE, what: `Writes wait of ${plural(follows.length, 'tablet')} that it follows, then go on without it: ${named(follows)}.`, tone: 'warn' })
  }
  const refusing = cluster.tablets.filter((tablet) => {
    const table = tables?.find(({ name }) => name === tablet.table)
    return members(tablet).includes(node) && table !== undefined && others(tablet).length < table.min_replicas
  })
  const refusingOnly = refusing.filter((tablet) => !lost.includes(tablet))
  if (refusingOnly.length > 0) {
    lines.push({ when: LEASE, what: `Fewer replicas than their table's least: writes are refused, reads go on, of ${named(refusingOnly)}.`, tone: 'bad' })
  }
  if (inherited.length > 0) {
    const heirs = [...new Set(inherited.flatMap(others))].sort()
    lines.push({ when: TAKEOVER, what: `${heirs.join(', ')} ${heirs.length === 1 ? 'takes' : 'take'} over and answer${heirs.length === 1 ? 's' : ''} what has waited. Nothing acknowledged is lost.`, tone: 'good' })
  }
  if (leads.length + follows.length === 0) lines.push({ when: 'at once', what: 'It keeps no tablet, so no reads or writes notice.', tone: 'good' })
  return lines
}

function gone(live: Live, node: string, back: string): Line[] {
  if (live.cluster === null) return []
  const cluster = live.cluster
  const lines = without(cluster, live.tables, node)
  lines.push({ when: DOWN, what: 'The master calls it down.' })
  if (cluster.tablets.some((tablet) => members(tablet).includes(node))) {
    const spare = cluster.nodes.some(
      (other) => other.id !== node && other.alive && !other.draining && cluster.tablets.some((tablet) => members(tablet).includes(node) && !members(tablet).includes(other.id)),
    )
    lines.push(
      spare
        ? { when: REPLACED, what: 'Other nodes get copies of what it kept, two tablets a node at a time (5 min where the masters were not started by `up`).' }
        : { when: REPLACED, what: 'No other node is free to take copies: its tablets stay with fewer replicas.', tone: 'warn' },
    )
  }
  lines.push({ when: 'later', what: back })
  return lines
}

export function doToNode(action: NodeAction, node: string): Action {
  const run = (path: string, done: string) => async () => {
    await post(`/v1/nodes/${node}/${path}`)
    return `${done} ${node}`
  }
  const by = (...words: string[]) => () => command('node', ...words)
  switch (action) {
    case 'suspend':
      return {
        title: `Suspend ${node}`,
        button: `Suspend ${node}`,
        danger: true,
        preview: (live) => gone(live, node, `Resumed, it serves nothing until it knows the present configuration, and learns what it missed.`),
        command: by('suspend', node),
        run: run('suspend', 'suspended'),
      }
    case 'kill':
      return {
        title: `Kill ${node}`,
        button: `Kill ${node}`,
        danger: true,
        preview: (live) => gone(live, node, 'Started again, it reads its log, learns what it missed while writes go on, and is a member again.'),
        command: by('kill', node),
        run: run('kill', 'killed'),
      }
    case 'resume':
      return {
        title: `Resume ${node}`,
        button: `Resume ${node}`,
        preview: () => [
          { when: 'at once', what: 'Its process goes on where it stood. Its leases are over, so it answers no read from old state.' },
          { when: 'within a second', what: 'It hears the present configuration. What it kept and was taken from it, it forgets or learns anew.', tone: 'good' },
        ],
        command: by('resume', node),
        run: run('resume', 'resumed'),
      }
    case 'restart':
      return {
        title: `Restart ${node}`,
        button: `Restart ${node}`,
        preview: (live) => {
          const process = live.processes?.processes.find(({ id }) => id === node)
          const runs = process?.state !== 'down'
          const before = runs && live.cluster !== null ? without(live.cluster, live.tables, node) : []
          return [
            ...(runs ? [{ when: 'at once', what: 'It is asked to end, and is killed after 0.6 s if it has not.' }] : []),
            ...before,
            { when: runs ? 'within 1 s' : 'at once', what: 'It starts, reads its log, and joins under a new life.' },
            { when: 'then', what: 'It learns what it missed while writes go on, and is a member again.', tone: 'good' },
          ]
        },
        command: by('restart', node),
        run: run('restart', 'restarted'),
      }
    case 'drain':
      return {
        title: `Drain ${node}`,
        button: `Drain ${node}`,
        preview: (live) => drained(live, node),
        command: by('drain', node),
        run: run('drain', 'drains'),
      }
    case 'undrain':
      return {
        title: `Undrain ${node}`,
        button: `Let ${node} be filled again`,
        preview: () => [{ when: 'from now on', what: 'It may be given tablets again. The balance does so while tablets are at rest.' }],
        command: by('drain', node, '--undo'),
        run: run('undrain', 'may be filled again:'),
      }
    case 'remove':
      return {
        title: `Remove ${node}`,
        button: `Remove ${node}`,
        danger: true,
        confirm: node,
        preview: (live) => {
          const alive = live.cluster?.nodes.find(({ id }) => id === node)?.alive
          return [
            { when: 'at once', what: `${node} is struck off the list. It keeps no tablet, so no data goes.` },
            ...(alive ? [{ when: 'at once', what: 'Its process runs still: it is turned away, and ends.', tone: 'warn' as const }] : []),
            { when: 'for ever', what: `The id ${node} is not used again.`, tone: 'warn' },
          ]
        },
        command: by('remove', node),
        run: run('remove', 'removed'),
      }
  }
}

function drained({ cluster }: Live, node: string): Line[] {
  if (cluster === null) return []
  const leads = cluster.tablets.filter(({ primary }) => primary === node)
  const keeps = cluster.tablets.filter((tablet) => members(tablet).includes(node))
  const homes = cluster.nodes.filter((other) => other.id !== node && other.alive && !other.draining && !other.disk_full)
  const stuck = keeps.filter((tablet) => homes.every(({ id }) => members(tablet).includes(id)))
  const heirs = leads.filter((tablet) => tablet.secondaries.some((id) => report(tablet, id)?.steady))
  const lines: Line[] = []
  if (heirs.length > 0) {
    lines.push({ when: 'at once', what: `It hands over ${plural(heirs.length, 'tablet')} that it leads to secondaries: writes pause for a moment each, none fails.` })
  }
  if (keeps.length > stuck.length) {
    lines.push({ when: 'then', what: `${plural(keeps.length - stuck.length, 'replica')} move to ${homes.map(({ id }) => id).join(', ')}, two tablets a node at a time.`, tone: 'good' })
  }
  if (stuck.length > 0) {
    lines.push({ when: 'and', what: `There is no other node for ${named(stuck)}: ${stuck.length === 1 ? 'it stays' : 'they stay'} here as ${stuck.length === 1 ? 'a secondary' : 'secondaries'}.`, tone: 'warn' })
  }
  const unserved = keeps.filter((tablet) => !isServed(cluster, tablet))
  if (unserved.length > 0) lines.push({ when: 'not yet', what: `${named(unserved)} cannot move before they are served.`, tone: 'warn' })
  if (keeps.length === 0) lines.push({ when: 'at once', what: 'It keeps nothing, and is given nothing any more.', tone: 'good' })
  else lines.push({ when: 'in the end', what: 'It keeps nothing, and may be stopped and removed.' })
  return lines
}

export function doToMaster(action: NodeAction, master: string): Action {
  const stops = action === 'suspend' || action === 'kill' || action === 'restart'
  const done = { suspend: 'suspended', resume: 'resumed', kill: 'killed', restart: 'restarted' }[action as 'suspend']
  const name = action[0]!.toUpperCase() + action.slice(1)
  return {
    title: `${name} ${master}`,
    button: `${name} ${master}`,
    danger: action === 'suspend' || action === 'kill',
    preview: ({ cluster }) => {
      const lines: Line[] = []
      const masters = cluster?.masters ?? []
      const leads = masters.some(({ id, leads }) => id === master && leads)
      const left = masters.filter(({ id, leads, state }) => id !== master && (leads || state === 'follows')).length
      const majority = left > masters.length / 2
      if (stops) {
        lines.push({ when: 'at once', what: 'Reads and writes go on.', tone: 'good' })
        if (!majority) {
          lines.push({ when: 'at once', what: 'No majority of the masters is left: no tablet changes hands, no table is made, and this page shows old state until one is back.', tone: 'bad' })
        } else if (leads) {
          lines.push({ when: 'within 1 s', what: 'Another master is elected. A failover that falls into it takes a second longer.', tone: 'warn' })
        } else lines.push({ when: 'at once', what: 'It follows: nobody notices.', tone: 'good' })
      }
      if (action === 'resume') lines.push({ when: 'within 1 s', what: 'It goes on, and follows whoever leads.', tone: 'good' })
      if (action === 'restart') lines.push({ when: 'within 1 s', what: 'It starts again, and knows all that was decided.', tone: 'good' })
      return lines
    },
    command: () => command('node', action, master),
    run: async () => {
      await post(`/v1/nodes/${master}/${action}`)
      return `${done} ${master}`
    },
  }
}
