// One watches a failover: a load from this page, a primary that is killed or suspended, the gap, and the proof that nothing was lost.
import { useEffect, useReducer, useRef, useState } from 'preact/hooks'
import { isServed } from '../cluster'
import { useLive } from '../live'
import { act, Failed } from '../parts/action'
import { Figure, State, Waiting } from '../parts/small'
import { age, count, plural, time } from '../show'
import { begin, end, leave, mark, SPAN, stage, type Play } from '../theatre'
import { doToNode } from './node-actions'

export function TheatrePage() {
  const live = useLive()
  const play = stage.use()
  const [, draw] = useReducer<number, void>((turn) => turn + 1, 0)
  useEffect(() => {
    const timer = setInterval(() => draw(), 200)
    return () => clearInterval(timer)
  }, [])
  const { cluster, processes } = live
  const tablet = cluster?.tablets.find(({ table }) => table === play.table)
  const served = cluster !== null && tablet !== undefined && isServed(cluster, tablet)
  const leads = tablet === undefined ? null : `${tablet.primary} leads, epoch ${tablet.epoch}`
  const before = useRef<string | null>(null)
  useEffect(() => {
    if (leads !== null && before.current !== null && leads !== before.current) mark(leads)
    before.current = leads
  }, [leads])
  if (cluster === null) {
    return (
      <>
        <h1>Failover theatre</h1>
        <Waiting problem={live.problem} what="the cluster's state" />
      </>
    )
  }
  const control = processes?.control === true
  const hurt = processes?.processes.filter(({ state, role }) => role === 'node' && state !== 'running') ?? []
  const strike = (action: 'kill' | 'suspend', node: string) => {
    const plan = doToNode(action, node)
    act({
      ...plan,
      run: async (values) => {
        mark(`${action} ${node}`)
        return plan.run(values)
      },
    })
  }
  const running = play.state === 'running'
  return (
    <>
      <h1>Failover theatre</h1>
      <p>
        Three writers on this page write row after row to a new table with one tablet; each goes on only when its row is
        acknowledged. Hurt the primary, and watch: writes stop, a secondary takes over, writes go on. In the end everything is read, and what was
        acknowledged must be there.
      </p>
      <p class="buttons apart">
        {(play.state === 'idle' || play.state === 'checked') && (
          <button type="button" class="primary" onClick={() => void begin()}>
            {play.state === 'idle' ? 'Make the table and begin' : 'Begin anew'}
          </button>
        )}
        {running && tablet !== undefined && (
          <>
            <button type="button" class="danger" disabled={!control || !served} onClick={() => strike('kill', tablet.primary)}>Kill the primary</button>
            <button type="button" class="danger" disabled={!control || !served} onClick={() => strike('suspend', tablet.primary)}>Suspend the primary</button>
          </>
        )}
        {hurt.map(({ id, state }) => {
          const action = state === 'suspended' ? 'resume' : 'restart'
          return <button key={id} type="button" onClick={() => act(doToNode(action, id))}>{action === 'resume' ? 'Resume' : 'Start'} {id}</button>
        })}
        {running && <button type="button" class="primary" onClick={() => void end()}>Stop and check</button>}
        {play.state === 'checked' && <button type="button" onClick={() => void leave()}>Drop the table</button>}
      </p>
      {!control && <p class="note">This process did not start the nodes, so it can hurt none. Kill one by hand, or use the page of <code>diptych up</code>.</p>}
      {play.problem !== null && <Failed problem={play.problem} />}
      {play.state !== 'idle' && <Scene play={play} leads={leads} served={served} />}
    </>
  )
}

function Scene({ play, leads, served }: { play: Play; leads: string | null; served: boolean }) {
  const now = play.ended === 0 ? Date.now() : play.ended
  const open = play.state === 'running' ? now - play.last : 0
  const gap = Math.max(play.gap.to - play.gap.from, open)
  const second = play.spans.slice(Math.max(0, Math.floor((now - play.begun) / SPAN) - 10)).reduce((sum, part) => sum + (part ?? 0), 0)
  return (
    <>
      <dl class="figures apart">
        <Figure label="The tablet" value={leads ?? 'not yet'} tone={served ? 'good' : 'bad'} />
        <Figure label="Acknowledged" value={count(play.acknowledged)} unit="writes" />
        <Figure label="Now" value={play.state === 'running' ? count(second) : '0'} unit="writes/s" />
        <Figure label="Repeated" value={count(play.repeated)} unit="attempts" />
        <Figure label="Without a write since" value={play.state === 'running' ? age(open) : 'stopped'} tone={open > 400 ? 'warn' : 'plain'} />
        <Figure label="Longest gap" value={`${count(gap)} ms`} tone={gap > 400 ? 'warn' : 'plain'} />
      </dl>
      <Timeline play={play} now={now} />
      {play.state === 'ending' && <p class="waiting">Waiting for the last answers …</p>}
      {play.state === 'checking' && <p class="waiting">Reading everything …</p>}
      {play.verdict !== null && <Told play={play} />}
      {play.marks.length > 0 && (
        <ol class="plain marks">
          {play.marks.map(({ at, text }) => (
            <li key={`${at} ${text}`}>
              {time(at)} <span class="age">{((at - play.begun) / 1000).toFixed(1)} s after the beginning</span> {text}
            </li>
          ))}
        </ol>
      )}
    </>
  )
}

function Told({ play }: { play: Play }) {
  const { acknowledged, missing, wrong } = play.verdict!
  const lost = missing.length + wrong.length
  const { from, to } = play.gap
  return (
    <div class={lost === 0 ? 'verdict good' : 'verdict bad'} role="status">
      <p>
        <State
          tone={lost === 0 ? 'good' : 'bad'}
          text={lost === 0 ? `All ${plural(acknowledged, 'acknowledged write')} are there, each as it was written.` : `${count(lost)} of ${plural(acknowledged, 'acknowledged write')} are lost or changed: ${[...missing, ...wrong].slice(0, 10).join(', ')}`}
        />
      </p>
      <p>
        The longest time without a write was <b>{count(to - from)} ms</b>, from {((from - play.begun) / 1000).toFixed(1)} s to {((to - play.begun) / 1000).toFixed(1)} s after the beginning.
      </p>
    </div>
  )
}

const SECONDS = 30
const HEIGHT = 130

/// The last half minute: a bar for each tenth of a second, as high as writes were acknowledged in it, and what was done.
function Timeline({ play, now }: { play: Play; now: number }) {
  const canvas = useRef<HTMLCanvasElement>(null)
  const [, drawAgain] = useState(0)
  // After the last act nothing else would draw it in another width.
  useEffect(() => {
    const watch = new ResizeObserver(() => drawAgain((times) => times + 1))
    watch.observe(canvas.current!)
    return () => watch.disconnect()
  }, [])
  useEffect(() => {
    const element = canvas.current!
    element.width = element.clientWidth
    element.height = HEIGHT
    const pen = element.getContext('2d')!
    const style = getComputedStyle(element)
    pen.clearRect(0, 0, element.width, HEIGHT)
    const bars = (SECONDS * 1000) / SPAN
    const wide = element.width / bars
    const last = Math.floor((now - play.begun) / SPAN)
    const shown = Array.from({ length: bars }, (_, at) => play.spans[last - bars + 1 + at] ?? 0)
    const most = Math.max(10, ...shown)
    pen.fillStyle = style.color
    for (const [at, writes] of shown.entries()) {
      const high = (writes / most) * (HEIGHT - 24)
      pen.fillRect(at * wide, HEIGHT - high, Math.max(1, wide - 1), high)
    }
    pen.font = `12px ${style.fontFamily}`
    pen.textBaseline = 'top'
    for (const [index, { at, text }] of play.marks.entries()) {
      const x = (bars - (last - (at - play.begun) / SPAN)) * wide
      if (x < 0) continue
      pen.fillStyle = style.borderTopColor
      pen.fillRect(x, 0, 1.5, HEIGHT)
      pen.fillStyle = style.outlineColor
      const width = pen.measureText(text).width
      pen.fillText(text, x + 5 + width > element.width ? x - 5 - width : x + 5, 2 + (index % 2) * 14)
    }
  })
  return (
    <>
      <canvas ref={canvas} class="heat timeline" role="img" aria-label={`Acknowledged writes in each tenth of the last ${SECONDS} seconds`} />
      <p class="aside">writes acknowledged in each {SPAN} ms of the last {SECONDS} s; the present is on the right</p>
    </>
  )
}
