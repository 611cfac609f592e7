import { ThreadbaseError } from '../core/errors.ts'
import { CONVERSATION_FORMATS, type Conversation, type ConversationFormat, NEW_TITLE } from './schema.ts'

type Fields = Record<string, unknown>

/** The conversation as text: Markdown for people, or its JSON. @throws invalid_input for another format */
export function renderConversation(conversation: Conversation, format: ConversationFormat): string {
  if (!CONVERSATION_FORMATS.includes(format)) {
    const known = CONVERSATION_FORMATS.join(' or ')
    throw new ThreadbaseError('invalid_input', `format must be ${known}`, { field: 'format' })
  }
  return format === 'json' ? `${JSON.stringify(conversation, null, 2)}\n` : toMarkdown(conversation)
}

/**
 * Title, then each question and its three stages. What people and models wrote stands in quotes, line by line: their
 * headings, code blocks that never end and stray HTML stay within them.
 */
function toMarkdown({ id, title, created_at, messages }: Conversation): string {
  const facts = [created_at, `conversation ${id}`].filter((fact) => typeof fact === 'string').join(', ')
  const parts = [`# ${inline(title) || NEW_TITLE}`, `*${inline(facts)}*`]
  let questions = 0
  for (const message of Array.isArray(messages) ? messages : []) {
    const fields = Object(message) as Fields
    if (fields.role === 'user') parts.push(`## Question ${++questions}`)
    else if (fields.role !== 'assistant') parts.push(`## ${inline(fields.role) || 'Message'}`)
    else if (fields.stage1 === undefined && fields.stage3 === undefined) parts.push('## Answer')
    if (fields.content !== undefined) parts.push(quote(fields.content))
    parts.push(...stage1(fields), ...stage2(fields), ...stage3(fields))
  }
  return `${parts.join('\n\n')}\n`
}

function stage1(message: Fields): string[] {
  const answers = listOf(message.stage1)
  return heading(
    '### Stage 1: answers',
    answers.flatMap((one) => [modelHeading(one), quote(one.response)]),
  )
}

function stage2(message: Fields): string[] {
  const metadata = Object(message.metadata) as Fields
  const labels = Object.entries(Object(metadata.label_to_model)).map(
    ([label, model]) => `- ${inline(label)}: ${inline(model)}`,
  )
  const aggregate = listOf(metadata.aggregate_rankings).map(
    ({ model, average_rank, rankings_count }, i) =>
      `${i + 1}. ${inline(model)}: ${inline(average_rank)} on average of ${inline(rankings_count)}`,
  )
  const rankings = listOf(message.stage2).flatMap((one) => [modelHeading(one), quote(one.ranking)])
  return heading('### Stage 2: rankings', [
    ...(labels.length > 0 ? [labels.join('\n')] : []),
    ...rankings,
    ...(aggregate.length > 0 ? ['#### Together', aggregate.join('\n')] : []),
  ])
}

function stage3({ stage3 }: Fields): string[] {
  if (typeof stage3 !== 'object' || stage3 === null) return []
  const { model, response } = stage3 as Fields
  return ['### Stage 3: final answer', `*${inline(model) || 'unknown model'}*`, quote(response)]
}

const heading = (text: string, parts: string[]) => (parts.length > 0 ? [text, ...parts] : [])
const modelHeading = ({ model }: Fields) => `#### ${inline(model) || 'unknown model'}`
const listOf = (value: unknown): Fields[] => (Array.isArray(value) ? value.map((one) => Object(one)) : [])

/** On one line, as it is: nothing in it is markup. */
function inline(value: unknown): string {
  return textOf(value)
    .replace(/[\p{Cc}\s]+/gu, ' ')
    .trim()
    .replace(/[\\`*[\]<&]|#(?=#*$)/g, '\\$&')
}

function quote(value: unknown): string {
  const lines = textOf(value)
    .replace(/\r\n?/g, '\n')
    .replace(/(?![\n\t])\p{Cc}/gu, '\ufffd')
    .trimEnd()
    .split('\n')
  return lines.map((line) => (line === '' ? '>' : `> ${line}`)).join('\n')
}

function textOf(value: unknown): string {
  if (value === undefined || value === null) return ''
  const text = typeof value === 'string' ? value : JSON.stringify(value)
  return text.toWellFormed()
}
