// The frame: where one can go, how fresh what one sees is, and the page.
import type { ComponentType } from 'preact'
import { Dialogs, Said } from './parts/action'
import { ThemeSwitch } from './parts/theme'
import { useLive, useNow } from './live'
import { ChartsPage } from './pages/charts'
import { ClusterPage } from './pages/cluster'
import { DataPage } from './pages/data'
import { NodesPage } from './pages/nodes'
import { TabletsPage } from './pages/tablets'
import { TheatrePage } from './pages/theatre'
import { usePlace, type Place } from './route'
import { age } from './show'
import { useEffect } from 'preact/hooks'

const PAGES: { id: string; name: string; page: ComponentType<{ place: Place }> }[] = [
  { id: '', name: 'Cluster', page: ClusterPage },
  { id: 'nodes', name: 'Nodes', page: NodesPage },
  { id: 'data', name: 'Data', page: DataPage },
  { id: 'tablets', name: 'Tablets', page: TabletsPage },
  { id: 'charts', name: 'Charts', page: ChartsPage },
  { id: 'theatre', name: 'Theatre', page: TheatrePage },
]

export function App() {
  const place = usePlace()
  const shown = PAGES.find(({ id }) => id === place.page)
  useEffect(() => {
    document.title = shown === undefined ? 'Diptych' : `${shown.name} · Diptych`
  }, [shown])
  return (
    <>
      <a class="skip" href="#main" onClick={(event) => (event.preventDefault(), document.getElementById('main')?.focus())}>
        Skip to the page
      </a>
      <header>
        <a class="brand" href="#/">
          <svg viewBox="0 0 20 20" width="20" height="20" aria-hidden="true">
            <path d="M2 4 L9 2 V18 L2 16 Z M11 2 L18 4 V16 L11 18 Z" />
          </svg>
          Diptych
        </a>
        <nav aria-label="Pages">
          {PAGES.map(({ id, name }) => (
            <a key={id} href={`#/${id}`} aria-current={id === place.page ? 'page' : undefined}>
              {name}
            </a>
          ))}
        </nav>
        <Freshness />
        <ThemeSwitch />
      </header>
      <main id="main" tabIndex={-1}>
        {shown === undefined ? <NoSuchPage /> : <shown.page place={place} />}
      </main>
      <Said />
      <Dialogs />
    </>
  )
}

function NoSuchPage() {
  return (
    <section>
      <h1>Nothing here</h1>
      <p>
        This address names no page of the console. <a href="#/">The cluster</a> is a good place to begin.
      </p>
    </section>
  )
}

/// How old the state on the page is, and why.
function Freshness() {
  const live = useLive()
  const now = useNow()
  const late = live.cluster === null ? live.problem !== null : now - live.at > 3500 || live.problem !== null
  const text = live.cluster === null ? (late ? 'no state' : 'loading') : late ? `${age(now - live.at)} old` : 'live'
  return (
    <p class={`freshness ${late ? 'bad' : live.cluster === null ? '' : 'good'}`}>
      <span class="dot" aria-hidden="true" />
      <span class="fixed">{text}</span>
      {live.cluster !== null && <code title="The cluster's id">{live.cluster.cluster}</code>}
    </p>
  )
}
