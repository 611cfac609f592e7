import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { gunzipSync } from 'node:zlib'

export type SourceMessage = { role: string; content?: unknown; tool_calls?: unknown; tool_call_id?: string }
/** A conversation as its file has it. */
export type Dialogue = { id?: string; title?: string | null; messages: SourceMessage[] }

/** The Schema-Guided Dialogues where they are (.ci/run says where), else a small sample of our own. */
export function dialoguesFile(): string {
  const directory = process.env.THREADBASE_TEST_DATA
  if (directory === undefined || directory === '') {
    return fileURLToPath(new URL('./samples/chat.jsonl', import.meta.url))
  }
  const file = join(directory, 'sgd-chats.jsonl.gz')
  // a directory that was promised and lacks the file must not pass as a small sample
  if (!existsSync(file)) throw new Error(`THREADBASE_TEST_DATA has no ${file}`)
  return file
}

export function readDialogues(file: string): Dialogue[] {
  const bytes = readFileSync(file)
  const text = (file.endsWith('.gz') ? gunzipSync(bytes) : bytes).toString('utf8')
  return text
    .split('\n')
    .filter((line) => line.trim() !== '')
    .map((line) => JSON.parse(line))
}
