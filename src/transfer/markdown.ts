import type { Message } from '../messages/schema.ts'
import type { Thread } from '../threads/schema.ts'
import type { ThreadWriter } from './export.ts'

const HEADINGS = { user: 'User', assistant: 'Assistant', system: 'System', tool: 'Tool' } as const

/** A thread for people: its title, a heading for each message, its text, and tool calls as JSON. */
export function createMarkdownWriter(thread: Thread, isFirst: boolean): ThreadWriter {
  return {
    begin: () =>
      `${isFirst ? '' : '\n---\n\n'}# ${oneLine(thread.title ?? '') || 'Untitled'}\n\n*${thread.createdAt.toISOString()}, thread ${thread.id}*\n`,
    message: (message) => writeMessage(message),
    end: () => '',
  }
}

function writeMessage(message: Message): string {
  const { role, content, text, toolName, toolInput, toolOutput } = message
  const parts = [`## ${HEADINGS[role]}${toolName === null ? '' : ` (${oneLine(toolName)})`}`]
  if (text.trim() !== '') parts.push(role === 'tool' ? fence(text, '') : text.trimEnd())
  else if (content !== null && content !== '') parts.push(json(content))
  if (toolInput !== null) parts.push(json(toolInput))
  if (toolOutput !== null) parts.push(json(toolOutput))
  return `\n${parts.join('\n\n')}\n`
}

const oneLine = (text: string) => text.replace(/[\p{Cc}\s]+/gu, ' ').trim()

const json = (value: unknown) => fence(JSON.stringify(value, null, 2), 'json')

/** A code block whose fence is longer than any in the text. */
function fence(text: string, language: string): string {
  const longest = Math.max(2, ...(text.match(/`+/g) ?? []).map((run) => run.length))
  const mark = '`'.repeat(longest + 1)
  return `${mark}${language}\n${text}\n${mark}`
}
