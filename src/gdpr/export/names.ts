const MAX_BYTES = 120
// what Windows keeps for itself, with any extension
const DEVICE = /^(con|prn|aux|nul|com\d|lpt\d)(\.|$)/i
// separators, what Windows refuses, and what controls terminals or the direction of text
const UNSAFE = /[<>:"/\\|?*\p{Cc}\p{Cf}\p{Cs}\p{Zl}\p{Zp}\ufffd\uffff]+/gu

/** A name under which a file can be unpacked anywhere: of the last part of what the user calls it. Never empty. */
export function safeName(name: string): string {
  const last =
    name
      .toWellFormed()
      .split(/[/\\]/)
      .findLast((part) => part.trim() !== '') ?? ''
  const plain = last
    .replace(UNSAFE, '_')
    .replace(/^[\s.]+/, '')
    .replace(/[\s.]+$/, '')
  const short = shorten(plain)
  if (short === '') return 'file'
  return DEVICE.test(short) ? `_${short}` : short
}

/** The id in a name of a file: what is not plain is left out, and no id becomes a path. */
export function idInName(id: string): string {
  const plain = id.replace(/[^A-Za-z0-9._@-]+/g, '_').replace(/^[._]+/, '')
  return plain.slice(0, 64) || 'user'
}

/** Within so many bytes of UTF-8, by code points; a short extension stays. */
function shorten(name: string): string {
  if (Buffer.byteLength(name) <= MAX_BYTES) return name
  const extension = /\.[A-Za-z0-9]{1,10}$/.exec(name)?.[0] ?? ''
  let short = ''
  for (const character of name.slice(0, name.length - extension.length)) {
    if (Buffer.byteLength(short + character + extension) > MAX_BYTES) break
    short += character
  }
  return short + extension
}
