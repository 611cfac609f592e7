import { ThreadbaseError } from '../../core/errors.ts'
import { fitsHeader } from '../../core/network.ts'
import type { Scope } from '../../core/scope.ts'

/** What an endpoint calls its models, and whose keys it takes. */
export const ENDPOINT_KINDS = ['openrouter', 'openai'] as const
export type EndpointKind = (typeof ENDPOINT_KINDS)[number]

export type ModelSettings = {
  /** Of the installation, for users without keys of their own. */
  keys: Record<EndpointKind, string | undefined>
  /** Where keys of each kind are sent. */
  urls: Record<EndpointKind, string>
  /** Undefined: those that suit the endpoint. */
  models: readonly string[] | undefined
  chairman: string | undefined
  titleModel: string | undefined
}

/** Finds the keys of users, by provider: `tb.credentials`. */
export type UserKeys = { forUser(userId: string): { find(provider: string): Promise<string | undefined> } }

/** Whom to ask, with which key, and where. */
export type Endpoint = {
  kind: EndpointKind
  url: string
  key: string
  /** Each once, in order. */
  models: string[]
  chairman: string
  titleModel: string
}

const DEFAULTS: Record<EndpointKind, { models: string[]; titleModel: string }> = {
  openrouter: {
    models: ['openai/gpt-5.1', 'google/gemini-2.5-pro', 'anthropic/claude-sonnet-4.5', 'x-ai/grok-4'],
    titleModel: 'google/gemini-2.5-flash',
  },
  openai: { models: ['gpt-5.1', 'gpt-5-mini', 'gpt-4.1'], titleModel: 'gpt-5-mini' },
}

/**
 * The endpoint for a user: by a key of their own, OpenRouter's before OpenAI's, else by one of the installation. A key goes
 * to the URL of its kind alone.
 * @throws unavailable when there is no key, which names the variables, and when the user's cannot be read or sent
 */
export async function findEndpoint(
  { userId }: Scope,
  settings: ModelSettings,
  userKeys: UserKeys | undefined,
): Promise<Endpoint> {
  const own = userKeys?.forUser(userId)
  for (const kind of ENDPOINT_KINDS) {
    const key = await own?.find(kind)
    if (key === undefined) continue
    // stored by a version that took any
    if (!fitsHeader(key))
      throw new ThreadbaseError(
        'unavailable',
        `your key for ${kind} has characters that cannot be sent: store it again`,
        { provider: kind },
      )
    return toEndpoint(kind, key, settings)
  }
  for (const kind of ENDPOINT_KINDS) {
    const key = settings.keys[kind]
    if (key !== undefined) return toEndpoint(kind, key, settings)
  }
  throw new ThreadbaseError(
    'unavailable',
    'there is no key for models: set OPENROUTER_API_KEY or OPENAI_API_KEY, or store a key of your own for openrouter or openai',
    { variables: ['OPENROUTER_API_KEY', 'OPENAI_API_KEY'] },
  )
}

function toEndpoint(kind: EndpointKind, key: string, settings: ModelSettings): Endpoint {
  const named = kind === kindOfNames(settings) ? settings : undefined
  const { models: fallback, titleModel } = DEFAULTS[kind]
  const models = [...new Set(named?.models ?? fallback)]
  const [first = ''] = models
  return {
    kind,
    url: settings.urls[kind],
    key,
    models,
    chairman: named?.chairman ?? first,
    titleModel: named?.titleModel ?? (named?.models === undefined ? titleModel : first),
  }
}

/** Which kind of endpoint the configured names are for: that of the installation's key, else OpenRouter's have a slash. */
function kindOfNames({ keys, models, chairman, titleModel }: ModelSettings): EndpointKind {
  const keyed = ENDPOINT_KINDS.find((kind) => keys[kind] !== undefined)
  if (keyed !== undefined) return keyed
  const names = [...(models ?? []), chairman ?? '', titleModel ?? '']
  return names.some((name) => name.includes('/')) ? 'openrouter' : 'openai'
}
