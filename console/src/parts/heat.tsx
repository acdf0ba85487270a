// A picture of key × time: a column for each tablet, a line for each sample, the brighter the busier.
import { useEffect, useRef, useState } from 'preact/hooks'
import { sampled, SAMPLES, seconds } from '../heat'
import { useNow } from '../live'
import { age, count } from '../show'

const HEIGHT = 150

export function HeatMap({ tablets }: { tablets: { id: string; text: string }[] }) {
  const canvas = useRef<HTMLCanvasElement>(null)
  const [at, setAt] = useState<{ x: number; y: number } | null>(null)
  useNow()
  const samples = sampled()
  const most = Math.max(0, ...tablets.map(({ id }) => samples.reduce((most, sample) => Math.max(most, sample.get(id) ?? 0), 0)))

  useEffect(() => {
    const element = canvas.current
    if (element === null) return
    const width = element.clientWidth
    element.width = width
    element.height = HEIGHT
    const pen = element.getContext('2d')!
    pen.clearRect(0, 0, width, HEIGHT)
    pen.fillStyle = getComputedStyle(element).color
    const [wide, high] = [width / tablets.length, HEIGHT / SAMPLES]
    for (const [line, sample] of samples.entries()) {
      for (const [column, { id }] of tablets.entries()) {
        const heat = sample.get(id) ?? 0
        if (heat === 0) continue
        // The logarithm: a tablet with a tenth of the load can be seen.
        pen.globalAlpha = 0.15 + 0.85 * (Math.log1p(heat) / Math.log1p(most))
        const top = HEIGHT - (samples.length - line) * high
        pen.fillRect(column * wide, top, Math.max(1, wide - (wide > 8 ? 1 : 0)), high + 0.5)
      }
    }
  })

  if (tablets.length === 0) return <p class="note">There are no tablets.</p>
  const column = at === null ? null : tablets[Math.floor(at.x * tablets.length)]
  const back = at === null ? 0 : Math.floor((1 - at.y) * SAMPLES)
  const found = column == null ? undefined : samples[samples.length - 1 - back]?.get(column.id)
  return (
    <>
      <canvas
        ref={canvas}
        class="heat"
        role="img"
        aria-label={`Load of ${tablets.length} tablets over ${age(seconds(samples.length) * 1000)}; at most ${count(most)} requests per second`}
        onMouseMove={(event) => {
          const box = event.currentTarget.getBoundingClientRect()
          setAt({ x: Math.min(0.9999, (event.clientX - box.left) / box.width), y: Math.min(0.9999, (event.clientY - box.top) / box.height) })
        }}
        onMouseLeave={() => setAt(null)}
      />
      <p class="aside">
        {column == null
          ? `since this page was opened, at most ${age(seconds(SAMPLES) * 1000)}; the busiest had ${count(most)} requests/s`
          : `${column.text}: ${found === undefined ? 'not sampled' : `${count(found)} requests/s`}, ${age(seconds(back) * 1000)} ago`}
      </p>
    </>
  )
}
