import { create } from 'content-disposition'
import { fileTypeFromBuffer } from 'file-type'
import mime from 'mime'
import { BEGINNING_BYTES } from '../blobs/blobs.ts'

const BINARY = 'application/octet-stream'
const TEXT = 'text/plain'
const TEXTUAL =
  /^(text\/[\w.+-]+|image\/svg\+xml|application\/([\w.+-]+\+)?(json|xml|ndjson|x-ndjson|jsonl|yaml|x-yaml|toml|javascript|sql|graphql|x-sh|rtf|x-tex|x-ipynb\+json))$/
/** Tabs, ends of lines and pages, and the escape of terminals: of what is below a space, what texts hold. */
const IN_TEXTS = new Set([9, 10, 11, 12, 13, 27])

/** Types whose files are a container of another type: which one it holds is not to be seen from the beginning. */
const WITHIN: Record<string, RegExp> = {
  'application/zip':
    /^application\/(vnd\.openxmlformats-officedocument\.[\w.]+|vnd\.oasis\.opendocument\.[\w-]+|epub\+zip|vnd\.google-earth\.kmz)$/,
  'application/x-cfb': /^application\/(msword|vnd\.ms-(excel|powerpoint|outlook))$/,
  'application/xml': TEXTUAL,
}

/** What browsers show and do not run. All else is served for download. */
const SHOWN =
  /^(image\/(png|apng|jpeg|gif|webp|avif|bmp|x-icon|vnd\.microsoft\.icon|tiff)|audio\/[\w.+-]+|video\/[\w.+-]+|application\/pdf|text\/plain)$/

/**
 * The media type of bytes, from their first 4,100: what the client says or the name ends with decides only which kind of
 * text it is, or what a container holds. `application/octet-stream` when nothing tells.
 */
export async function detectType(
  beginning: Uint8Array,
  claims: { mime?: string; filename?: string },
): Promise<string> {
  const claimed = [essence(claims.mime), mime.getType(claims.filename ?? '')].filter(
    (type) => typeof type === 'string',
  )
  const found = (await fileTypeFromBuffer(beginning).catch(() => undefined))?.mime
  if (found !== undefined) return claimed.find((type) => WITHIN[found]?.test(type)) ?? essence(found) ?? found
  if (!isText(beginning)) return BINARY
  return claimed.find((type) => TEXTUAL.test(type)) ?? TEXT
}

/** In lower case, without parameters. */
function essence(type: string | undefined): string | undefined {
  return type?.split(';')[0]?.trim().toLowerCase()
}

function isText(beginning: Uint8Array): boolean {
  // at the end of a beginning a character may be cut; at the end of a file none is
  const isCut = beginning.length >= BEGINNING_BYTES
  try {
    new TextDecoder('utf-8', { fatal: true }).decode(beginning, { stream: isCut })
  } catch {
    return false
  }
  return beginning.every((byte) => byte >= 32 || IN_TEXTS.has(byte))
}

/** A name for bytes that have none. */
export function nameFor(type: string): string {
  const extension = mime.getExtension(type)
  return extension === null ? 'file' : `file.${extension}`
}

/** Text is read as UTF-8, which all of it is. */
export function contentTypeOf(type: string): string {
  return type.startsWith('text/') ? `${type}; charset=utf-8` : type
}

/**
 * The header `content-disposition` (RFC 6266): `inline` for what browsers show and do not run, else `attachment`. No name
 * can end the header or lead out of a directory.
 */
export function dispositionOf(type: string, filename: string, options: { download?: boolean } = {}): string {
  const kind = options.download !== true && SHOWN.test(type) ? 'inline' : 'attachment'
  return create(safeName(filename), { type: kind })
}

/** The last part of the name, without what controls a terminal or the direction of text. */
function safeName(filename: string): string {
  const last =
    filename
      .toWellFormed()
      .split(/[/\\]/)
      .findLast((part) => part !== '') ?? ''
  const clean = last
    .replace(/[\p{Cc}\p{Bidi_Control}]/gu, '_')
    .replace(/^\.+/, '')
    .trim()
  return clean === '' ? 'file' : Array.from(clean).slice(-255).join('')
}
