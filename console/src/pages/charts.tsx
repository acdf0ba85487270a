// The last hour, from the processes' own metrics: no database keeps them, and a process that starts anew begins anew.
import { useEffect, useState } from 'preact/hooks'
import { problem, type Problem } from '../api'
import { counted, each, percentile, refresh, together } from '../history'
import { useLive } from '../live'
import { Chart } from '../parts/chart'
import { Failed } from '../parts/action'
import { count, size } from '../show'

const SPANS = [
  { minutes: 5, name: '5 minutes' },
  { minutes: 15, name: '15 minutes' },
  { minutes: 60, name: 'hour' },
]

const duration = (seconds: number): string =>
  seconds === 0 ? '0' : seconds < 0.001 ? `${Math.round(seconds * 1e6)} µs` : seconds < 1 ? `${Number((seconds * 1e3).toPrecision(3))} ms` : `${Number(seconds.toPrecision(3))} s`
const rate = (value: number): string => `${value < 10 ? Number(value.toPrecision(2)) : count(value)}/s`
const percent = (value: number): string => `${Math.round(value * 100)} %`

export function ChartsPage() {
  const live = useLive()
  const [minutes, setMinutes] = useState(5)
  const [now, setNow] = useState(Date.now)
  const [failed, setFailed] = useState<Problem | null>(null)
  const [loaded, setLoaded] = useState(false)
  useEffect(() => {
    const ask = () => {
      if (document.hidden) return
      void refresh().then(
        () => (setFailed(null), setLoaded(true), setNow(Date.now())),
        (error) => setFailed(problem(error)),
      )
    }
    ask()
    const timer = setInterval(ask, 2500)
    return () => clearInterval(timer)
  }, [])

  // The page of a single node knows only itself.
  const alone = live.processes !== null && !live.processes.control
  const node = (id: string) => (alone ? id === 'here' : id.startsWith('n'))
  const any = () => true
  const frame = { from: now - minutes * 60_000, to: now }
  const sums = (name: string, what: Parameters<typeof each>[0]) => together(name, each(what, node), 'sum')
  return (
    <>
      <div class="title">
        <h1>Charts</h1>
        <label class="span">
          The last{' '}
          <select value={minutes} onChange={(event) => setMinutes(Number(event.currentTarget.value))}>
            {SPANS.map(({ minutes, name }) => <option key={minutes} value={minutes}>{name}</option>)}
          </select>
        </label>
      </div>
      {failed !== null && <Failed problem={failed} />}
      {alone && <p class="note">This is the page of one node, and these are its figures. The page of <code>diptych up</code> has those of all its processes.</p>}
      {!loaded ? (
        failed === null && <p class="waiting">Asking for the last hour …</p>
      ) : (
        <div class="charts">
          <Chart {...frame} title="Requests to tablets" show={rate} empty="No request in this time" curves={[sums('all nodes', (now) => now.load)]} />
          <Chart
            {...frame}
            title="How long requests over HTTP take"
            show={duration}
            empty="No request for rows over HTTP in this time"
            curves={[percentile('p50', 'http', 0.5, any), percentile('p99', 'http', 0.99, any)]}
          />
          <Chart
            {...frame}
            title="How long reads over gRPC take"
            show={duration}
            empty="No timed read over gRPC in this time; what comes in pipelines is not timed"
            curves={[percentile('p50', 'reads', 0.5, any), percentile('p99', 'reads', 0.99, any)]}
          />
          <Chart
            {...frame}
            title="How long writes over gRPC take"
            show={duration}
            empty="No timed write over gRPC in this time; what comes in pipelines is not timed"
            curves={[percentile('p50', 'writes', 0.5, any), percentile('p99', 'writes', 0.99, any)]}
          />
          <Chart {...frame} title="Syncs of the log" show={rate} empty="No sync in this time" curves={each(counted('syncs'), node)} />
          <Chart
            {...frame}
            title="How long a sync takes"
            show={duration}
            empty="No sync in this time"
            curves={[percentile('p50', 'syncs', 0.5, node), percentile('p99', 'syncs', 0.99, node)]}
          />
          <Chart {...frame} title="Written to the log" show={(value) => `${size(value)}/s`} empty="Nothing was written in this time" curves={[sums('all nodes', (now, before, seconds) => (now.logged - before.logged) / seconds)]} />
          <Chart {...frame} title="How far the oldest secondary is behind" show={duration} empty="No secondary has said" curves={each((now) => now.lag, node)} />
          <Chart
            {...frame}
            title="Blocks found in the cache"
            show={percent}
            empty="No block was read in this time"
            curves={each((now, before) => {
              const [hits, misses] = [now.hits - before.hits, now.misses - before.misses]
              return hits + misses > 0 ? hits / (hits + misses) : null
            }, node)}
          />
          <Chart {...frame} title="What merges have to write yet" show={size} empty="No node has said" curves={each((now) => now.pending, node)} />
          <Chart {...frame} title="Memory" show={size} empty="No process has said" curves={each((now) => now.memory, any)} />
        </div>
      )}
    </>
  )
}
