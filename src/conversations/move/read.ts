import { isUtf8 } from 'node:buffer'
import { closeSync, fstatSync, open as openWithCallback, readFileSync } from 'node:fs'
import { readFile } from 'node:fs/promises'
import { setTimeout } from 'node:timers/promises'
import { promisify } from 'node:util'
import { isThreadbaseError } from '../../core/errors.ts'
import { isRawNumber, parseJson } from '../../core/json.ts'
import { findJsonError, type TextPosition } from '../../core/json-position.ts'

/** Why a file cannot be taken, and where in it. */
export class Refusal extends Error {
  readonly at: TextPosition | undefined
  readonly other: string | undefined
  /** The file ends too early: perhaps somebody writes it at this moment. */
  readonly unfinished: boolean

  constructor(reason: string, more: { at?: TextPosition; other?: string; unfinished?: boolean } = {}) {
    super(reason)
    this.unfinished = more.unfinished ?? false
    this.at = more.at
    this.other = more.other
  }
}

export type ReadFile = {
  value: unknown
  bytes: number
  /** When it was written last, and when it was made (as far as the file system knows). */
  mtime: Date
  birthtime: Date
}

// a text of this size with a few times as much for its values still fits into memory
const MAX_FILE_BYTES = 256 * 1024 * 1024
const LARGE_BYTES = 8 * 1024 * 1024
// existing councils write in place: a file that is cut may be one that is being written
const TRIES = 3
const FRESH_MS = 5_000
const RETRY_AFTER_MS = 150

/**
 * Reads a file whole, as JSON with every digit.
 * @param onLarge waited for before the content of a large one is read
 * @throws Refusal
 */
export async function readJsonFile(path: string, onLarge?: () => Promise<void>): Promise<ReadFile> {
  for (let tries = 1; ; tries++) {
    const { content, ...facts } = await readBytes(path, onLarge)
    try {
      return { ...facts, value: parse(content) }
    } catch (error) {
      const fresh = Math.abs(Date.now() - facts.mtime.getTime()) < FRESH_MS
      if (tries >= TRIES || !fresh || !(error as Partial<Refusal>).unfinished) throw error
      await setTimeout(RETRY_AFTER_MS)
    }
  }
}

const openFile = promisify(openWithCallback)

/** Waits for the disk where it looks the file up; what it then reads is small, or waited for. */
async function readBytes(path: string, onLarge?: () => Promise<void>) {
  let fd: number | undefined
  try {
    fd = await openFile(path, 'r')
    const { size, mtime, birthtime } = fstatSync(fd)
    if (size > MAX_FILE_BYTES) throw new Refusal(`is larger than ${MAX_FILE_BYTES / 1024 / 1024} MB`)
    if (size > LARGE_BYTES) await onLarge?.()
    const content = size > LARGE_BYTES ? await readFile(path) : readFileSync(fd)
    return { content, bytes: content.length, mtime, birthtime }
  } catch (error) {
    if (error instanceof Refusal) throw error
    throw new Refusal(`cannot be read (${(error as { code?: string }).code ?? String(error)})`)
  } finally {
    if (fd !== undefined) closeSync(fd)
  }
}

function parse(content: Buffer): unknown {
  if (!isUtf8(content)) throw notUtf8(content)
  const text = content.toString('utf8')
  try {
    // editors of some systems put a mark in front
    return parseJson(text.startsWith('\ufeff') ? text.slice(1) : text)
  } catch (error) {
    if (isThreadbaseError(error)) throw new Refusal(error.message)
    throw notJson(text)
  }
}

const PYTHON_NUMBER = /^(NaN|Infinity)/

function notJson(text: string): Refusal {
  if (text.trim() === '')
    return new Refusal('is empty', { at: { position: 0, line: 1, column: 1 }, unfinished: true })
  const bom = text.startsWith('\ufeff') ? 1 : 0
  const found = findJsonError(text.slice(bom))
  if (found === undefined) return new Refusal('is no JSON')
  const at = { ...found, position: found.position + bom }
  if (at.position >= text.trimEnd().length)
    return new Refusal('is cut off: the JSON does not end', { at, unfinished: true })
  const python = PYTHON_NUMBER.exec(text.slice(at.position, at.position + 8))?.[1]
  if (python === undefined) return new Refusal('is no JSON', { at })
  return new Refusal(`is no JSON: ${python} is a number to Python only`, { at })
}

function notUtf8(content: Buffer): Refusal {
  const text = content.toString('utf8')
  const again = Buffer.from(text)
  let position = 0
  while (position < content.length && content[position] === again[position]) position++
  const before = content.subarray(0, position).toString('utf8')
  const line = before.split('\n').length
  const column = before.length - before.lastIndexOf('\n')
  return new Refusal('is not UTF-8', { at: { position: before.length, line, column } })
}

export type Fields = Record<string, unknown>

/** A JSON object: no array, no null, no number that only its text holds. */
export function isObject(value: unknown): value is Fields {
  return typeof value === 'object' && value !== null && !Array.isArray(value) && !isRawNumber(value)
}

/** The document of a conversation. @throws Refusal */
export function requireConversation(value: unknown): Fields & { messages: Fields[] } {
  if (!isObject(value)) throw new Refusal('is no JSON object')
  const { messages } = value
  if (!Array.isArray(messages)) throw new Refusal('has no array `messages`')
  const wrong = messages.findIndex((message) => !isObject(message))
  if (wrong >= 0) throw new Refusal(`message ${wrong + 1} is no JSON object`)
  return value as Fields & { messages: Fields[] }
}
