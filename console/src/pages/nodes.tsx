// Nodes and masters as processes: what each is, and what can be done to it.
import type { ComponentChildren } from 'preact'
import { nodeState } from '../cluster'
import type { Cluster, Node, Process } from '../api'
import { useLive } from '../live'
import { act } from '../parts/action'
import { Figure, State, Waiting } from '../parts/small'
import { doToNode, doToMaster, type NodeAction } from './node-actions'
import { age, count, plural, size, time } from '../show'

export function NodesPage() {
  const live = useLive()
  const { cluster, processes } = live
  const process = (id: string) => processes?.processes.find((process) => process.id === id)
  const control = processes?.control === true
  return (
    <>
      <h1>Nodes</h1>
      {cluster === null ? (
        <Waiting problem={live.problem} what="the nodes" />
      ) : (
        <>
          {live.problem !== null && (
            <p class="failed" role="alert">
              <b>{live.problem.message}.</b> Below is what was known before. Processes can be resumed and restarted also now.
            </p>
          )}
          {processes !== null && !control && (
            <p class="note">
              This process did not start the others, so it cannot suspend, resume, kill or restart them: that is possible on the page of{' '}
              <code>diptych up</code>, or by hand on their machines.
            </p>
          )}
          <h2 class="unseen">Storage nodes</h2>
          <div class="cards">
            {cluster.nodes.map((node) => (
              <NodeCard key={node.id} node={node} cluster={cluster} process={process(node.id)} control={control} />
            ))}
          </div>
          <section aria-labelledby="masters-title">
            <h2 id="masters-title">Masters</h2>
            <div class="cards">
              {cluster.masters.map((master) => {
                const alive = master.leads || master.state === 'follows'
                return (
                  <Card key={master.id} title={master.id} address={master.address} process={process(master.id)} state={<State tone={alive ? 'good' : 'bad'} text={master.state} />}>
                    <dl class="facts">
                      <Figure label="Heard ago" value={master.heard_ms_ago === null ? 'never' : age(master.heard_ms_ago)} />
                      <Figure label="Behind" value={master.behind === null ? 'unknown' : count(master.behind)} unit="entries" />
                    </dl>
                    {control && <Buttons id={master.id} process={process(master.id)} act={(action) => act(doToMaster(action, master.id))} />}
                  </Card>
                )
              })}
            </div>
          </section>
          <AddNode cluster={cluster} />
        </>
      )}
    </>
  )
}

function Card(props: {
  title: string
  address: string
  process: Process | undefined
  state: ComponentChildren
  children: ComponentChildren
}) {
  const { process } = props
  return (
    <article class="card" aria-label={props.title}>
      <h3>
        {props.title} {props.state}
      </h3>
      <p class="numbers">
        <code>{props.address}</code>
        {process !== undefined && (
          <span>
            process {process.pid === null ? '' : process.pid} <b>{process.state}</b>
          </span>
        )}
      </p>
      {props.children}
    </article>
  )
}

function NodeCard({ node, cluster, process, control }: { node: Node; cluster: Cluster; process: Process | undefined; control: boolean }) {
  const replicas = cluster.tablets.flatMap((tablet) => tablet.replicas.filter((replica) => replica.node === node.id))
  const stored = replicas.reduce((sum, replica) => sum + replica.bytes, 0)
  const empty = node.primary_of + node.secondary_of === 0
  const start = (action: NodeAction) => act(doToNode(action, node.id))
  return (
    <Card title={node.id} address={node.address} process={process} state={<State {...nodeState(node)} />}>
      <dl class="facts">
        <Figure label="Heard ago" value={node.heard_ms_ago === null ? 'never' : age(node.heard_ms_ago)} />
        <Figure label="Primary of" value={count(node.primary_of)} unit="tablets" />
        <Figure label="Secondary of" value={count(node.secondary_of)} unit="tablets" />
        <Figure label="Stored" value={size(stored)} />
        <Figure label="Load" value={count(replicas.reduce((sum, replica) => sum + replica.load, 0))} unit="requests/s" />
        <Figure label="Starts" value={count(node.incarnation)} />
      </dl>
      <p class="numbers">
        <span>
          {node.scrub.percent > 0
            ? `reads all its files, ${node.scrub.percent} % done`
            : node.scrub.completed === null
              ? 'has not read all its files yet'
              : `read all its files at ${time(Date.parse(`${node.scrub.completed.replace(' ', 'T')}Z`))}`}
          {node.scrub.damage > 0 && <b class="bad">, met damage {plural(node.scrub.damage, 'time')}</b>}
        </span>
      </p>
      <p class="buttons">
        {control && <ProcessButtons process={process} act={start} />}
        {node.draining ? (
          <button type="button" onClick={() => start('undrain')}>Undrain</button>
        ) : (
          <button type="button" onClick={() => start('drain')}>Drain</button>
        )}
        <button type="button" class="danger" disabled={!empty} title={empty ? '' : 'drain it first: it keeps tablets'} onClick={() => start('remove')}>
          Remove
        </button>
      </p>
    </Card>
  )
}

function Buttons({ process, act }: { id: string; process: Process | undefined; act: (action: NodeAction) => void }) {
  return (
    <p class="buttons">
      <ProcessButtons process={process} act={act} />
    </p>
  )
}

function ProcessButtons({ process, act }: { process: Process | undefined; act: (action: NodeAction) => void }) {
  const down = process === undefined || process.state === 'down'
  const suspended = process?.state === 'suspended'
  return (
    <>
      {suspended ? (
        <button type="button" class="primary" onClick={() => act('resume')}>Resume</button>
      ) : (
        <button type="button" disabled={down} onClick={() => act('suspend')}>Suspend</button>
      )}
      <button type="button" disabled={down} onClick={() => act('kill')}>Kill</button>
      <button type="button" class={down ? 'primary' : ''} onClick={() => act('restart')}>{down ? 'Start' : 'Restart'}</button>
    </>
  )
}

function AddNode({ cluster }: { cluster: Cluster }) {
  const next = Math.max(0, ...cluster.nodes.map(({ id }) => Number(id.slice(1)))) + 1
  const masters = cluster.masters.map(({ address }) => address).join(',')
  return (
    <section aria-labelledby="add-title">
      <h2 id="add-title">Add a node</h2>
      <p>
        A node joins by itself when it starts, under an id that no other has had and with a folder of its own. Within seconds the balance
        gives it tablets.
      </p>
      <pre tabIndex={0} aria-label="The command that starts a node">
        diptych node run --id n{next} --master {masters} --data diptych-n{next} --grpc 127.0.0.1:0
      </pre>
      <p>
        Under <code>diptych up</code>: stop it, and start it again with <code>--nodes {cluster.nodes.length + 1}</code>. What keeps the old id of a
        removed node is turned away.
      </p>
    </section>
  )
}
