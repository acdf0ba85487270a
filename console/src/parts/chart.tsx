// Lines over time, drawn as SVG: a scale that begins at zero, a value at the pointer, and a table for those who do not see.
import { useState } from 'preact/hooks'
import type { Curve } from '../history'
import { time } from '../show'

const [WIDTH, HEIGHT, LEFT, BOTTOM, TOP] = [560, 170, 64, 20, 8]
const DASHES = ['', '6 3', '2 3', '8 3 2 3']

/// A round number that is not less.
function ceiling(value: number): number {
  if (value <= 0) return 1
  const power = 10 ** Math.floor(Math.log10(value))
  return [1, 2, 2.5, 5, 10].map((step) => step * power).find((step) => step >= value * 0.999)!
}

export function Chart(props: { title: string; curves: Curve[]; from: number; to: number; show: (value: number) => string; empty: string }) {
  const { curves, from, to, show } = props
  const [pointed, point] = useState<number | null>(null)
  const inside = curves.map(({ name, points }) => ({ name, points: points.filter(({ at }) => at >= from) }))
  const values = inside.flatMap(({ points }) => points.flatMap(({ value }) => (value === null ? [] : [value])))
  const top = ceiling(Math.max(0, ...values))
  const x = (at: number) => LEFT + ((at - from) / (to - from)) * (WIDTH - LEFT)
  const y = (value: number) => TOP + (1 - value / top) * (HEIGHT - TOP - BOTTOM)
  const at = pointed ?? to
  const near = ({ points }: Curve) => points.findLast((point) => point.at <= at + 2500 && point.at > at - 20_000)?.value ?? null
  return (
    <figure class="chart">
      <figcaption>
        <b>{props.title}</b>
        <span class="key">
          {inside.map((curve, index) => (
            <span key={curve.name} class={`curve c${index % 4}`}>
              <svg width="18" height="8" aria-hidden="true"><line x1="0" y1="4" x2="18" y2="4" stroke-dasharray={DASHES[index % 4]} /></svg>
              {curve.name} <span class="value">{near(curve) === null ? 'none' : show(near(curve)!)}</span>
            </span>
          ))}
        </span>
      </figcaption>
      {values.length === 0 ? (
        <p class="nothing">{props.empty}</p>
      ) : (
        <svg
          viewBox={`0 0 ${WIDTH} ${HEIGHT}`}
          role="img"
          aria-label={`${props.title}. ${inside.map((curve) => `${curve.name} now ${near(curve) === null ? 'none' : show(near(curve)!)}`).join(', ')}. At most ${show(Math.max(...values))} in this time.`}
          onMouseMove={(event) => {
            const box = event.currentTarget.getBoundingClientRect()
            const part = (((event.clientX - box.left) / box.width) * WIDTH - LEFT) / (WIDTH - LEFT)
            point(from + Math.max(0, Math.min(1, part)) * (to - from))
          }}
          onMouseLeave={() => point(null)}
        >
          {[0, 0.5, 1].map((part) => (
            <g key={part}>
              <line class="rule" x1={LEFT} x2={WIDTH} y1={y(part * top)} y2={y(part * top)} />
              <text class="scale" x={LEFT - 6} y={y(part * top) + 4} text-anchor="end">{show(part * top)}</text>
            </g>
          ))}
          {[0, 1 / 3, 2 / 3].map((part) => (
            <text key={part} class="scale" x={LEFT + part * (WIDTH - LEFT)} y={HEIGHT - 4}>{time(from + part * (to - from)).slice(-8)}</text>
          ))}
          {inside.map(({ name, points }, index) => (
            <path key={name} class={`curve c${index % 4}`} stroke-dasharray={DASHES[index % 4]} d={drawn(points, x, y)} />
          ))}
          {pointed !== null && <line class="pointer" x1={x(pointed)} x2={x(pointed)} y1={TOP} y2={HEIGHT - BOTTOM} />}
        </svg>
      )}
      <p class="at">{pointed === null ? 'now' : time(pointed)}</p>
    </figure>
  )
}

/// A line that is lifted where nothing is known.
function drawn(points: Curve['points'], x: (at: number) => number, y: (value: number) => number): string {
  let path = ''
  let before: number | null = null
  for (const { at, value } of points) {
    if (value === null) {
      before = null
      continue
    }
    const place = `${x(at).toFixed(1)} ${y(value).toFixed(1)}`
    // A point that stands alone is seen, too.
    path += before === null || at - before > 16_000 ? `M${place}h0.1` : `L${place}`
    before = at
  }
  return path
}
