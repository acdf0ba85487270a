// A value that several parts of the page share.
import { useEffect, useReducer } from 'preact/hooks'

export function signalled<T>(first: T) {
  let value = first
  const readers = new Set<() => void>()
  return {
    set(next: T) {
      value = next
      for (const read of readers) read()
    },
    use(): T {
      const [, again] = useReducer<number, void>((turn) => turn + 1, 0)
      useEffect(() => {
        const read = () => again()
        readers.add(read)
        return () => void readers.delete(read)
      }, [])
      return value
    },
  }
}
