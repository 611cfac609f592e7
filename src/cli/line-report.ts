import { closeSync, createReadStream, fsyncSync, openSync, renameSync, rmSync, writeSync } from 'node:fs'
import { basename, dirname, join } from 'node:path'
import { createInterface } from 'node:readline'
import { ThreadbaseError } from '../core/errors.ts'

export type LineReport<T> = {
  add(line: T): void
  /**
   * Writes the report, JSON and text, each at once: `facts` with all lines as `files`, and `heading` with the lines that
   * have a text, those for which `first` holds before the others.
   * @throws unavailable when the disk is full, for one; then there is no report, and nothing is left of it
   */
  end(facts: object, heading: string, text: (line: T) => string, first: (line: T) => boolean): Promise<void>
}

/** The text of the report that is beside the JSON: `report.json`, `report.txt`. */
export const textFileOf = (file: string) => `${file.replace(/\.json$/, '')}.txt`

/**
 * A report of any number of lines. They are kept in a hidden file beside it until the end, which a process that is killed
 * leaves behind.
 * @throws invalid_input when it cannot be written there
 */
export function createLineReport<T>(file: string): LineReport<T> {
  const lines = join(dirname(file), `.${basename(file)}.${process.pid}.part`)
  const fd = openToWrite(lines, file)
  return {
    add: (line) => writeAll(fd, `${oneLine(line)}\n`, file),
    async end(facts, heading, text, first) {
      closeSync(fd)
      try {
        await writeWhole(file, async (write) => {
          write(`${JSON.stringify(facts, null, 2).slice(0, -2)},\n  "files": [`)
          let count = 0
          for await (const line of readLines(lines)) write(`${count++ === 0 ? '' : ','}\n    ${line}`)
          write('\n  ]\n}\n')
        })
        await writeWhole(textFileOf(file), async (write) => {
          write(heading)
          for (const wanted of [true, false]) {
            for await (const json of readLines(lines)) {
              const line = JSON.parse(json) as T
              if (first(line) === wanted) write(`${printable(text(line))}\n`)
            }
          }
        })
      } finally {
        rmSync(lines)
      }
    },
  }
}

/** JSON without the line separators of Unicode, at which readline would cut it. */
const oneLine = (line: unknown) =>
  JSON.stringify(line).replace(/[\u2028\u2029]/g, (char) => `\\u${char.charCodeAt(0).toString(16)}`)

async function* readLines(file: string): AsyncGenerator<string> {
  const input = createReadStream(file)
  try {
    yield* createInterface({ input, crlfDelay: Infinity })
  } finally {
    input.destroy()
  }
}

async function writeWhole(
  file: string,
  make: (write: (text: string) => void) => Promise<void>,
): Promise<void> {
  const part = join(dirname(file), `.${basename(file)}.${process.pid}.tmp`)
  const fd = openToWrite(part, file)
  let held = ''
  try {
    await make((text) => {
      held += text
      if (held.length < 65_536) return
      writeAll(fd, held, file)
      held = ''
    })
    writeAll(fd, held, file)
    fsyncSync(fd)
  } catch (error) {
    rmSync(part, { force: true })
    throw error
  } finally {
    closeSync(fd)
  }
  renameSync(part, file)
}

function openToWrite(part: string, file: string): number {
  try {
    return openSync(part, 'w')
  } catch (error) {
    const { code } = error as { code?: string }
    throw new ThreadbaseError('invalid_input', `the report ${file} cannot be written (${code})`, { file })
  }
}

/** A disk that is nearly full takes a part, and says so only the next time. @throws unavailable */
function writeAll(fd: number, text: string, file: string): void {
  const bytes = Buffer.from(text)
  try {
    for (let done = 0; done < bytes.length; ) done += writeSync(fd, bytes, done)
  } catch (error) {
    const { code } = error as { code?: string }
    const message = `the report ${file} cannot be written (${code})`
    throw new ThreadbaseError('unavailable', message, { file }, { cause: error })
  }
}

/** Names of files may hold what a terminal takes for a command. */
export const printable = (text: string) => text.replace(/\p{Cc}/gu, '\ufffd')
