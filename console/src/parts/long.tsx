// A table of any length of which only the rows in sight are in the page. All rows are of one height.
import type { ComponentChildren } from 'preact'
import { useEffect, useLayoutEffect, useRef, useState } from 'preact/hooks'

const ROW = 28
const AROUND = 12

export function Long<T>(props: {
  label: string
  rows: T[]
  head: ComponentChildren
  columns: number
  /// The cells of a row.
  children: (row: T) => ComponentChildren
  id: (row: T) => string
  class?: string
  /// Rows in sight at most.
  height?: number
}) {
  const box = useRef<HTMLDivElement>(null)
  const [top, setTop] = useState(0)
  const [inside, setInside] = useState(600)
  useLayoutEffect(() => setInside(box.current?.clientHeight ?? 600), [])
  useEffect(() => {
    const watcher = new ResizeObserver(() => setInside(box.current?.clientHeight ?? 600))
    watcher.observe(box.current!)
    return () => watcher.disconnect()
  }, [])
  const { rows } = props
  const first = Math.max(0, Math.min(Math.floor(top / ROW) - AROUND, rows.length))
  const last = Math.min(rows.length, first + Math.ceil(inside / ROW) + 2 * AROUND)
  const height = Math.min(rows.length, props.height ?? 20) * ROW + 34
  return (
    <div
      ref={box}
      class="scroll long"
      style={{ maxHeight: `${height}px` }}
      tabIndex={0}
      role="region"
      aria-label={props.label}
      onScroll={(event) => setTop(event.currentTarget.scrollTop)}
    >
      <table class={props.class} aria-rowcount={rows.length + 1}>
        <thead>
          <tr aria-rowindex={1}>{props.head}</tr>
        </thead>
        <tbody>
          {first > 0 && (
            <tr aria-hidden="true" style={{ height: `${first * ROW}px` }}>
              <td colSpan={props.columns} />
            </tr>
          )}
          {rows.slice(first, last).map((row, at) => (
            <tr key={props.id(row)} aria-rowindex={first + at + 2}>
              {props.children(row)}
            </tr>
          ))}
          {last < rows.length && (
            <tr aria-hidden="true" style={{ height: `${(rows.length - last) * ROW}px` }}>
              <td colSpan={props.columns} />
            </tr>
          )}
        </tbody>
      </table>
    </div>
  )
}
