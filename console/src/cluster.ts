// What follows from the cluster's state: the same rules as `diptych status` has.
import type { Cluster, Node, Replica, Tablet, Table } from './api'
import type { Tone } from './parts/action'

export const primaryReport = (tablet: Tablet): Replica | undefined => report(tablet, tablet.primary)

export const report = (tablet: Tablet, node: string): Replica | undefined =>
  tablet.replicas.find((replica) => replica.node === node)

export const members = (tablet: Tablet): string[] => [tablet.primary, ...tablet.secondaries]

export const load = (tablet: Tablet): number => tablet.replicas.reduce((sum, replica) => sum + replica.load, 0)

export const bytes = (tablet: Tablet): number => primaryReport(tablet)?.bytes ?? 0

/// Does its primary hold its leases, so that it can serve?
export function isServed(cluster: Cluster, tablet: Tablet): boolean {
  const primary = primaryReport(tablet)
  const node = cluster.nodes.find(({ id }) => id === tablet.primary)
  return node?.alive === true && primary?.role === 'primary' && primary.steady
}

/// The most records that a member lacks on its disk; null if a member has not said.
export function lag(tablet: Tablet): number | null {
  let most = 0
  for (const node of members(tablet)) {
    const behind = report(tablet, node)?.lag
    if (behind === undefined || behind === null) return null
    most = Math.max(most, behind)
  }
  return most
}

export function isShort(tablet: Tablet, tables: Table[] | null): boolean {
  const table = tables?.find(({ name }) => name === tablet.table)
  return table !== undefined && members(tablet).length < table.replicas
}

/// What is wrong with a tablet, the worst first; null if nothing is.
export function trouble(cluster: Cluster, tablet: Tablet, tables: Table[] | null): { tone: Tone; text: string } | null {
  const damaged = tablet.replicas.find((replica) => replica.damaged !== null)
  if (!isServed(cluster, tablet)) {
    const down = cluster.nodes.find(({ id }) => id === tablet.primary)?.alive !== true
    return { tone: 'bad', text: down ? 'primary down' : 'no lease' }
  }
  if (damaged !== undefined) return { tone: 'bad', text: `damaged on ${damaged.node}` }
  if (primaryReport(tablet)?.stalled) return { tone: 'bad', text: 'writes stalled' }
  if (isShort(tablet, tables)) return { tone: 'warn', text: 'lacks replicas' }
  if (tablet.learner !== null) return { tone: 'warn', text: `${tablet.learner} learns` }
  return null
}

export function nodeState(node: Node): { tone: Tone; text: string } {
  const keeps = node.primary_of + node.secondary_of
  if (!node.alive) return { tone: 'bad', text: node.heard_ms_ago === null ? 'not heard' : 'down' }
  if (node.draining) return { tone: 'warn', text: keeps === 0 ? 'drained' : 'draining' }
  if (node.disk_full) return { tone: 'bad', text: 'disk full' }
  if (node.stalled > 0) return { tone: 'bad', text: 'stalled' }
  return { tone: 'good', text: 'alive' }
}

export const number = (id: string): number => Number(id.slice(1))

export function rowsText(tablet: Tablet): string {
  if ('hash' in tablet.rows) return `hash ${tablet.rows.hash} of ${tablet.rows.of}`
  const { start, end } = tablet.rows
  return `${start === '' ? 'the first' : start} … ${end === null ? 'the last' : `< ${end}`}`
}
