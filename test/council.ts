import {
  type Answer,
  type ChatRequest,
  type OpenAiServer,
  type Script,
  startOpenAiServer,
  textOf,
} from './openai-server.ts'

export type Stage = 'stage1' | 'stage2' | 'stage3' | 'title'

export const MODELS = ['alpha', 'beta', 'gamma']
export const KEY = 'sk-of-the-installation'

/** What a request of the council is for. */
export function stageOf({ messages }: ChatRequest): Stage {
  const prompt = textOf(messages.at(-1) ?? { role: 'user' })
  if (prompt.includes('You are the chairman of a council')) return 'stage3'
  if (prompt.includes('Then rank them.')) return 'stage2'
  return prompt.startsWith('Name a conversation') ? 'title' : 'stage1'
}

type Reply = Answer | undefined | Promise<Answer | undefined>
/** What goes otherwise than {@link usualAnswer}. `times`: how often the model was asked in this stage before. */
export type Exception = (asked: { model: string; stage: Stage; times: number; request: ChatRequest }) => Reply

/** A council in which each answers in its stage; the answers are ranked in the order of their texts. */
export function councilScript(exception: Exception = () => undefined): Script {
  const counts = new Map<string, number>()
  return async (request) => {
    const { model } = request
    const stage = stageOf(request)
    const times = counts.get(`${model} ${stage}`) ?? 0
    counts.set(`${model} ${stage}`, times + 1)
    return (await exception({ model, stage, times, request })) ?? usualAnswer(request, stage)
  }
}

function usualAnswer(request: ChatRequest, stage: Stage): Answer {
  const prompt = textOf(request.messages.at(-1) ?? { role: 'user' })
  switch (stage) {
    case 'stage1':
      return { text: `${request.model} says: ${prompt.slice(0, 100)} é\u2028😀`, cost: 0.01 }
    case 'stage2':
      return { text: `All are fine.\n\nFINAL RANKING:\n${rankByText(prompt)}`, cost: 0.02 }
    case 'stage3':
      return { text: `${request.model} concludes`, cost: 0.03 }
    case 'title':
      return { text: '"About rivers"' }
  }
}

/** The labels of a ranking prompt, in the order of the answers that they stand for. */
function rankByText(prompt: string): string {
  const answers = [...prompt.matchAll(/^----- \w+ begin: (Response \w+) -----\n([^\n]*)/gm)]
  const sorted = answers.toSorted(([, , a = ''], [, , b = '']) => (a < b ? -1 : 1))
  return sorted.map(([, label], i) => `${i + 1}. ${label}`).join('\n')
}

export const startCouncilServer = (exception?: Exception): Promise<OpenAiServer> =>
  startOpenAiServer(councilScript(exception))

/** Settings of a council whose models are at this server, for one key of the installation. */
export function councilAt({ url }: Pick<OpenAiServer, 'url'>) {
  return {
    keys: { openrouter: undefined, openai: KEY },
    urls: { openrouter: 'http://127.0.0.1:9/nobody', openai: url },
    models: MODELS,
    chairman: 'alpha',
    titleModel: 'namer',
    timeoutMs: 5_000,
    retries: 2,
  }
}

/** The same as variables of the environment. */
export function councilEnv({ url }: Pick<OpenAiServer, 'url'>): Record<string, string> {
  return {
    OPENAI_API_KEY: KEY,
    OPENAI_BASE_URL: url,
    COUNCIL_MODELS: MODELS.join(),
    CHAIRMAN_MODEL: 'alpha',
    TITLE_MODEL: 'namer',
    COUNCIL_MODEL_TIMEOUT_S: '5',
  }
}

/** How often each model was asked in each stage, as `alpha stage1`. */
export function countAsked({ requests }: OpenAiServer): Record<string, number> {
  const counts: Record<string, number> = {}
  for (const request of requests) {
    const name = `${request.model} ${stageOf(request)}`
    counts[name] = (counts[name] ?? 0) + 1
  }
  return counts
}
