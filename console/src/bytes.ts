// Bytes as people read and write them. Nothing of what a value holds is ever more than text here.

import type { Json } from './api'

const utf8 = new TextEncoder()
const strict = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true })

export function fromJson(json: Json): Uint8Array {
  if (typeof json === 'string') return utf8.encode(json)
  return Uint8Array.from(atob(json.base64), (letter) => letter.charCodeAt(0))
}

export function toJson(bytes: Uint8Array): Json {
  try {
    return strict.decode(bytes)
  } catch {
    let letters = ''
    for (const byte of bytes) letters += String.fromCharCode(byte)
    return { base64: btoa(letters) }
  }
}

/// Text that is no control character: those, and what would turn the direction of the line or hide itself.
const strange = /[\p{Cc}\p{Cf}\p{Zl}\p{Zp}\p{Co}\p{Cn}\\]/u

const hexOf = (byte: number) => `\\x${byte.toString(16).padStart(2, '0')}`

/// As every output of `diptych` shows bytes: UTF-8 as it is; all else, and what is strange, as `\xNN`.
export function escaped(bytes: Uint8Array): string {
  let text = ''
  for (let at = 0; at < bytes.length; ) {
    const length = lengthOfLetter(bytes, at)
    const piece = bytes.subarray(at, at + length)
    try {
      const letter = strict.decode(piece)
      text += strange.test(letter) ? Array.from(piece, hexOf).join('') : letter
    } catch {
      text += Array.from(piece, hexOf).join('')
    }
    at += length
  }
  return text
}

function lengthOfLetter(bytes: Uint8Array, at: number): number {
  const first = bytes[at]!
  const wanted = first < 0x80 ? 1 : first >> 5 === 6 ? 2 : first >> 4 === 14 ? 3 : first >> 3 === 30 ? 4 : 1
  for (let next = 1; next < wanted; next++) {
    if (((bytes[at + next] ?? 0) & 0xc0) !== 0x80) return 1
  }
  return wanted
}

/// The reverse: text in which `\xNN` is the byte NN. `\\` is not special: a backslash shows itself as \x5c.
export function unescaped(text: string): Uint8Array {
  const bytes: number[] = []
  for (const piece of text.split(/(\\x[0-9a-fA-F]{2})/)) {
    if (/^\\x[0-9a-fA-F]{2}$/.test(piece)) bytes.push(parseInt(piece.slice(2), 16))
    else bytes.push(...utf8.encode(piece))
  }
  return Uint8Array.from(bytes)
}

/// For a path or a query: every byte that is not plain, with a percent sign.
export function encoded(bytes: Uint8Array): string {
  let text = ''
  for (const byte of bytes) {
    const letter = String.fromCharCode(byte)
    text += /[A-Za-z0-9_.~-]/.test(letter) ? letter : `%${byte.toString(16).padStart(2, '0').toUpperCase()}`
  }
  return text
}

export function equal(a: Uint8Array, b: Uint8Array): boolean {
  return a.length === b.length && a.every((byte, at) => byte === b[at])
}

/// Offset, sixteen bytes, and their letters, a line for each sixteen.
export function hexdump(bytes: Uint8Array): string {
  const lines = []
  for (let at = 0; at < bytes.length; at += 16) {
    const piece = Array.from(bytes.subarray(at, at + 16))
    const hex = piece.map((byte) => byte.toString(16).padStart(2, '0')).join(' ')
    const letters = piece.map((byte) => (byte > 0x1f && byte < 0x7f ? String.fromCharCode(byte) : '·')).join('')
    lines.push(`${at.toString(16).padStart(6, '0')}  ${hex.padEnd(47)}  ${letters}`)
  }
  return lines.join('\n')
}

export function toHex(bytes: Uint8Array): string {
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join(' ')
}

/// Bytes from hexadecimal digits with any space between them; null if they are something else.
export function fromHex(text: string): Uint8Array | null {
  const digits = text.replace(/\s+/g, '')
  if (digits.length % 2 !== 0 || !/^[0-9a-fA-F]*$/.test(digits)) return null
  return Uint8Array.from(digits.match(/../g) ?? [], (pair) => parseInt(pair, 16))
}

/// The first key after all that begin with these bytes; null if there is none.
export function after(prefix: Uint8Array): Uint8Array | null {
  let end = prefix.length
  while (end > 0 && prefix[end - 1] === 0xff) end--
  if (end === 0) return null
  const next = prefix.slice(0, end)
  next[end - 1]!++
  return next
}

/// Can it be edited as text without losing anything?
export function isText(bytes: Uint8Array): boolean {
  try {
    return !/[\p{Cc}\p{Cn}]/u.test(strict.decode(bytes).replace(/[\n\t]/g, ''))
  } catch {
    return false
  }
}
