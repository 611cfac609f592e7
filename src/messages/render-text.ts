import { MAX_JSON_DEPTH, toStorableText } from '../core/json.ts'

/**
 * The text that a person would read in a message's content, as LangChain, OpenAI and Anthropic write it: a string,
 * or blocks with `text`, tool results with nested content, refusals. Images, audio, tool calls and reasoning have
 * none; of the stages of a council their answers. Blocks are separated by a line break. What lies deeper than JSON may be nested is left out.
 */
export function renderText(content: unknown): string {
  return toStorableText(render(content, 0))
}

function render(content: unknown, depth: number): string {
  if (typeof content === 'string') return content
  if (typeof content !== 'object' || content === null || depth > MAX_JSON_DEPTH) return ''
  if (Array.isArray(content))
    return content
      .map((item) => render(item, depth + 1))
      .filter(Boolean)
      .join('\n')
  const block = content as Record<string, unknown>
  if (block.type === 'thinking' || block.type === 'reasoning') return ''
  const { text, refusal, content: inner, parts, stage1, stage3 } = block
  // an answer of a council: the chairman's first, then those of its models
  if (Array.isArray(stage1) || isAnswer(stage3)) {
    const answers = [stage3, ...(Array.isArray(stage1) ? stage1 : [])].filter(isAnswer)
    const said = typeof inner === 'string' ? [inner] : []
    return [...said, ...answers.map(({ response }) => response)].join('\n')
  }
  if (typeof text === 'string') return text
  // OpenAI's assistants nest it: { type: 'text', text: { value } }
  if (typeof text === 'object' && text !== null) return render((text as { value?: unknown }).value, depth + 1)
  if (typeof refusal === 'string') return refusal
  return render(inner ?? parts, depth + 1)
}

function isAnswer(value: unknown): value is { response: string } {
  return typeof (value as { response?: unknown } | null | undefined)?.response === 'string'
}
