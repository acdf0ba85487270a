// Where one is: the part of the address after #, so that one page serves all, and each place can be kept as a link.
import { useEffect, useState } from 'preact/hooks'

export interface Place {
  page: string
  /// What stands after the page's name, decoded.
  path: string[]
  query: URLSearchParams
}

function here(): Place {
  const [path = '', query = ''] = location.hash.replace(/^#\/?/, '').split('?', 2)
  const parts = path.split('/').map((part) => {
    try {
      return decodeURIComponent(part)
    } catch {
      return part
    }
  })
  return { page: parts[0] ?? '', path: parts.slice(1).filter((part) => part !== ''), query: new URLSearchParams(query) }
}

export function usePlace(): Place {
  const [place, set] = useState(here)
  useEffect(() => {
    const moved = () => set(here())
    addEventListener('hashchange', moved)
    return () => removeEventListener('hashchange', moved)
  }, [])
  return place
}

export function link(page: string, path: string[] = [], query: Record<string, string> = {}): string {
  const asked = new URLSearchParams(Object.entries(query).filter(([, value]) => value !== '')).toString()
  return `#/${[page, ...path.map(encodeURIComponent)].join('/')}${asked === '' ? '' : `?${asked}`}`
}

export function go(place: string): void {
  location.hash = place
}
