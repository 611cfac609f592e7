import { readFileSync } from 'node:fs'
import { canonicalJson, parseJson } from '../src/core/json.ts'
import type { Threadbase } from '../src/threadbase.ts'
import type { ExportOptions, ImportOptions } from '../src/transfer/schema.ts'

export const SAMPLE_LINES = new URL('./samples/chat.jsonl', import.meta.url)
export const SAMPLE_CHATGPT = new URL('./samples/conversations.json', import.meta.url)

/** A source of bytes in chunks of a size, so that what is cut in the wrong place shows. */
export async function* bytesOf(data: string | Buffer, chunkSize = 65_536): AsyncGenerator<Buffer> {
  const bytes = Buffer.from(data)
  for (let from = 0; from < bytes.length; from += chunkSize) yield bytes.subarray(from, from + chunkSize)
}

export const toLines = (...values: unknown[]) => values.map((value) => `${JSON.stringify(value)}\n`).join('')

export function importText(
  tb: Threadbase,
  userId: string,
  text: string | Buffer,
  options: ImportOptions = {},
) {
  return tb.transfer.import({ userId }, bytesOf(text), options)
}

export async function exportAll(
  tb: Threadbase,
  userId: string,
  options: ExportOptions = {},
): Promise<string> {
  let text = ''
  for await (const piece of tb.transfer.export({ userId }, options)) text += piece
  return text
}

/** Each line in a form in which equal JSON is equal text. */
export function canonicalLines(text: string | Buffer): string[] {
  return text
    .toString()
    .split('\n')
    .filter((line) => line.trim() !== '')
    .map((line) => canonicalJson(parseJson(line)))
}

export const readSample = (url: URL) => readFileSync(url, 'utf8')
