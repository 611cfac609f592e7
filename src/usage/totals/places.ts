/*
 * Where a call of a model says what it took: in an entry of `meta.usage` (a list, or the one object) or in
 * `meta.usage_metadata`. Our own names, those of OpenAI's API, and those of LangChain's messages.
 */

/** A path in the call, or in the metadata of its message. */
export type Place = { of: 'call' | 'meta'; path: readonly string[] }

const inCall = (...path: string[]): Place => ({ of: 'call', path })
const inMeta = (...path: string[]): Place => ({ of: 'meta', path })

/** The first that has a value counts. */
export const PLACES = {
  model: [
    inCall('model'),
    inCall('model_name'),
    inMeta('model'),
    inMeta('response_metadata', 'model_name'),
    inMeta('response_metadata', 'model'),
  ],
  input: [inCall('input_tokens'), inCall('prompt_tokens'), inCall('usage_metadata', 'input_tokens')],
  output: [inCall('output_tokens'), inCall('completion_tokens'), inCall('usage_metadata', 'output_tokens')],
  cost: [inCall('cost')],
} as const satisfies Record<string, readonly Place[]>

/** More than this is no count of tokens. */
export const MAX_TOKENS = 1_000_000_000_000
