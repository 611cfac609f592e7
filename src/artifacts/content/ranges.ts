/** Both included. */
export type ByteRange = { start: number; end: number }

const RANGE = /^bytes=(\d*)-(\d*)$/i

/**
 * The one range that a `range` header asks for of `size` bytes (RFC 9110, section 14). Undefined for the whole: no header,
 * one of another form, or several ranges, which a server may ignore. `none`: there are no such bytes.
 */
export function readRange(header: string | undefined, size: number): ByteRange | 'none' | undefined {
  const [, first = '', last = ''] = RANGE.exec(header?.replaceAll(' ', '') ?? '') ?? []
  if (first === '' && last === '') return undefined
  if (first === '') {
    const count = Math.min(Number(last), size)
    return count === 0 ? 'none' : { start: size - count, end: size - 1 }
  }
  if (last !== '' && Number(last) < Number(first)) return undefined
  const start = Number(first)
  if (start >= size) return 'none'
  return { start, end: last === '' ? size - 1 : Math.min(Number(last), size - 1) }
}
