// Numbers, times and commands as text. Every number has its unit, and keeps its width.

export function count(number: number): string {
  return Math.round(number).toLocaleString('en').replaceAll(',', '\u202f')
}

export function size(bytes: number): string {
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB']
  let unit = 0
  while (bytes >= 1024 && unit < units.length - 1) {
    bytes /= 1024
    unit++
  }
  return `${unit === 0 ? bytes : bytes.toFixed(1)} ${units[unit]}`
}

export function plural(number: number, one: string, many = `${one}s`): string {
  return `${count(number)} ${number === 1 ? one : many}`
}

/// How long ago, coarser as it gets longer.
export function age(ms: number): string {
  const seconds = Math.max(0, ms) / 1000
  if (seconds < 10) return `${seconds.toFixed(1)} s`
  if (seconds < 100) return `${Math.floor(seconds)} s`
  if (seconds < 6000) return `${Math.floor(seconds / 60)} min`
  if (seconds < 172_800) return `${Math.floor(seconds / 3600)} h`
  return `${count(Math.floor(seconds / 86_400))} d`
}

const day = new Intl.DateTimeFormat('sv-SE', { year: 'numeric', month: '2-digit', day: '2-digit' })
const clock = new Intl.DateTimeFormat('sv-SE', { hour: '2-digit', minute: '2-digit', second: '2-digit' })

/// Local time; with its day only if that is not today.
export function time(ms: number, now = Date.now()): string {
  const date = new Date(ms)
  if (Number.isNaN(date.getTime())) return 'no date'
  const today = day.format(date) === day.format(new Date(now))
  return today ? clock.format(date) : `${day.format(date)} ${clock.format(date)}`
}

/// As a shell takes it.
export function quoted(text: string): string {
  return /^[\w@%+=:,./-]+$/.test(text) ? text : `'${text.replaceAll("'", `'\\''`)}'`
}

let endpoint = ''

/// Where the command line finds this cluster, if not where it looks unless told.
export function setEndpoint(address: string | null): void {
  endpoint = address === null || address === '127.0.0.1:8086' ? '' : ` --endpoint ${quoted(address)}`
}

/// A command that does the same; its words are quoted.
export function command(...words: string[]): string {
  return `diptych${endpoint} ${words.map(quoted).join(' ')}`
}
