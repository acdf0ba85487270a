// The cluster at a glance: figures, the masters, the map of nodes and tablets, what lacks something, and what happened.
import { useState } from 'preact/hooks'
import type { Cluster, Master, Table, Tablet } from '../api'
import { bytes, lag, load, members, number, primaryReport, rowsText, trouble } from '../cluster'
import { useLive, useNow } from '../live'
import { Long } from '../parts/long'
import { TabletMap } from '../parts/map'
import { Empty, Events, Figure, State, Waiting } from '../parts/small'
import { age, count, plural, size } from '../show'

export function ClusterPage() {
  const live = useLive()
  const now = useNow()
  const { cluster, tables } = live
  return (
    <>
      <h1>Cluster</h1>
      {cluster === null ? (
        <Waiting problem={live.problem} what="the cluster's state" />
      ) : (
        <>
          {live.problem !== null && (
            <p class="failed" role="alert">
              <b>{live.problem.message}.</b> Below is the state of {age(now - live.at)} ago.
            </p>
          )}
          <Figures cluster={cluster} tables={tables} />
          <Masters masters={cluster.masters} />
          <section aria-labelledby="map-title">
            <h2 id="map-title">Nodes and their tablets</h2>
            <TabletMap cluster={cluster} tables={tables} />
          </section>
          <Tablets cluster={cluster} tables={tables} />
        </>
      )}
      <section aria-labelledby="events-title">
        <h2 id="events-title">
          Events{' '}
          <span class="aside">
            {live.following ? 'as they come' : 'the stream is interrupted; it goes on by itself'}
          </span>
        </h2>
        <Events events={live.events.slice(0, 200)} now={now} empty="Nothing has happened yet" />
      </section>
    </>
  )
}

function Figures({ cluster, tables }: { cluster: Cluster; tables: Table[] | null }) {
  const alive = cluster.nodes.filter((node) => node.alive).length
  const troubled = cluster.tablets.filter((tablet) => trouble(cluster, tablet, tables)?.tone === 'bad').length
  const short = cluster.tablets.filter((tablet) => {
    const table = tables?.find(({ name }) => name === tablet.table)
    return table !== undefined && members(tablet).length < table.replicas
  }).length
  const leader = cluster.masters.find((master) => master.leads)
  const requests = cluster.tablets.reduce((sum, tablet) => sum + load(tablet), 0)
  const stored = cluster.tablets.reduce((sum, tablet) => sum + bytes(tablet), 0)
  const behind = cluster.tablets.reduce((most, tablet) => Math.max(most, lag(tablet) ?? 0), 0)
  return (
    <dl class="figures">
      <Figure
        label="Nodes alive"
        value={`${alive} of ${cluster.nodes.length}`}
        tone={alive === cluster.nodes.length ? 'good' : 'bad'}
      />
      <Figure label="Leading master" value={leader === undefined ? 'none' : `${leader.id} of ${cluster.masters.length}`} tone={leader ? 'good' : 'bad'} />
      <Figure
        label="Tablets served"
        value={`${count(cluster.tablets.length - troubled)} of ${count(cluster.tablets.length)}`}
        tone={troubled === 0 ? 'good' : 'bad'}
      />
      <Figure label="Under-replicated" value={count(short)} unit="tablets" tone={short === 0 ? 'good' : 'warn'} />
      <Figure label="Greatest lag" value={count(behind)} unit="records" />
      <Figure label="Load" value={count(requests)} unit="requests/s" />
      <Figure label="Stored, once" value={size(stored)} />
    </dl>
  )
}

function Masters({ masters }: { masters: Master[] }) {
  return (
    <section aria-labelledby="masters-title">
      <h2 id="masters-title">Masters</h2>
      <div class="scroll" tabIndex={0} role="region" aria-label="Table of masters">
        <table class="masters">
          <thead>
            <tr>
              <th scope="col" class="id">
                Master
              </th>
              <th scope="col" class="status">
                State
              </th>
              <th scope="col" class="number">
                Heard ago
              </th>
              <th scope="col" class="number wide">
                Behind, entries
              </th>
              <th scope="col">Address</th>
            </tr>
          </thead>
          <tbody>
            {masters.map((master) => (
              <tr key={master.id}>
                <th scope="row">{master.id}</th>
                <td>
                  <State tone={master.leads || master.state === 'follows' ? 'good' : 'bad'} text={master.state} />
                </td>
                <td class="number">{master.heard_ms_ago === null ? 'never' : age(master.heard_ms_ago)}</td>
                <td class="number">{master.behind === null ? 'unknown' : count(master.behind)}</td>
                <td>
                  <code>{master.address}</code>
                </td>
              </tr>
            ))}
          </tbody>
        </table>
      </div>
    </section>
  )
}

function Tablets({ cluster, tables }: { cluster: Cluster; tables: Table[] | null }) {
  const [only, setOnly] = useState(false)
  const rank = { bad: 0, warn: 1, good: 2, plain: 2 }
  const found = cluster.tablets.map((tablet) => ({ tablet, wrong: trouble(cluster, tablet, tables) }))
  const rows = found
    .filter(({ wrong }) => !only || wrong !== null)
    .sort((a, b) => rank[a.wrong?.tone ?? 'good'] - rank[b.wrong?.tone ?? 'good'] || number(a.tablet.tablet) - number(b.tablet.tablet))
  const wrong = found.filter(({ wrong }) => wrong !== null).length
  return (
    <section aria-labelledby="tablets-title">
      <h2 id="tablets-title">
        Tablets <span class="aside">{plural(wrong, 'needs attention', 'need attention')}</span>
      </h2>
      {cluster.tablets.length === 0 ? (
        <Empty title="No tables yet">
          <p>
            Make one: <code>diptych table create users --family name</code>
          </p>
        </Empty>
      ) : (
        <>
          <label class="check">
            <input type="checkbox" checked={only} onChange={(event) => setOnly(event.currentTarget.checked)} /> only those that need attention
          </label>
          {rows.length === 0 ? (
            <Empty title="Every tablet is served and has all its replicas" />
          ) : (
            <Long
              label="Table of tablets"
              class="tablets"
              rows={rows}
              id={({ tablet }) => tablet.tablet}
              columns={9}
              height={14}
              head={
                <>
                  <th scope="col" class="id">Tablet</th>
                  <th scope="col" class="table">Table</th>
                  <th scope="col" class="rows">Rows</th>
                  <th scope="col" class="number short">Epoch</th>
                  <th scope="col" class="status">State</th>
                  <th scope="col" class="id">Primary</th>
                  <th scope="col" class="followers">Secondaries</th>
                  <th scope="col" class="number">Lag, records</th>
                  <th scope="col" class="status">Lease</th>
                </>
              }
            >
              {({ tablet, wrong }) => <TabletCells cluster={cluster} tablet={tablet} wrong={wrong} />}
            </Long>
          )}
        </>
      )}
    </section>
  )
}

function TabletCells({ cluster, tablet, wrong }: { cluster: Cluster; tablet: Tablet; wrong: ReturnType<typeof trouble> }) {
  const behind = lag(tablet)
  const primary = primaryReport(tablet)
  const alive = cluster.nodes.find(({ id }) => id === tablet.primary)?.alive
  return (
    <>
      <th scope="row">{tablet.tablet}</th>
      <td>{tablet.table}</td>
      <td>
        <code>{rowsText(tablet)}</code>
      </td>
      <td class="number">{count(tablet.epoch)}</td>
      <td>{wrong === null ? <State tone="good" text="served" /> : <State {...wrong} />}</td>
      <td>{tablet.primary}</td>
      <td>{tablet.secondaries.join(' ') || 'none'}</td>
      <td class="number">{behind === null ? 'unknown' : count(behind)}</td>
      <td>{alive && primary?.steady ? 'held' : 'not held'}</td>
    </>
  )
}
