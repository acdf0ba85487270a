// The console takes the place of the page that is complete without a script (crates/diptych/src/http/page.rs).
import { render } from 'preact'
import { App } from './app'
import './console.css'
import { begin } from './live'
import { wear } from './parts/theme'

wear()
document.documentElement.classList.add('runs')
const place = document.getElementById('console')!
place.replaceChildren()
render(<App />, place)
begin()
