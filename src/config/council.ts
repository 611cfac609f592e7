import { checkEndpointUrl } from '../core/network.ts'
import { between, checkKey, listOf, maxLength, type Variable } from './variable.ts'

const MAX_MODELS = 26
const MAX_NAME = 255

/** The models that answer questions together, and where they are. */
export const COUNCIL = {
  OPENROUTER_API_KEY: {
    name: 'OPENROUTER_API_KEY',
    kind: 'secret',
    description:
      'Key of OpenRouter, for the council of those who have no key of their own. Comes before `OPENAI_API_KEY`.',
    check: checkKey,
  },
  OPENAI_API_KEY: {
    name: 'OPENAI_API_KEY',
    kind: 'secret',
    description:
      'Key of OpenAI, or of the endpoint at `OPENAI_BASE_URL`, for the council of those who have no key of their own.',
    check: checkKey,
  },
  OPENROUTER_BASE_URL: {
    name: 'OPENROUTER_BASE_URL',
    kind: 'text',
    default: 'https://openrouter.ai/api/v1',
    description: 'Where keys of OpenRouter are sent, and nothing else.',
    check: checkEndpointUrl,
  },
  OPENAI_BASE_URL: {
    name: 'OPENAI_BASE_URL',
    kind: 'text',
    default: 'https://api.openai.com/v1',
    description:
      "Where keys of OpenAI are sent, those of users too: OpenAI, or any endpoint that speaks its API (vLLM, LiteLLM, Ollama). Set it only to what users' keys may reach.",
    check: checkEndpointUrl,
  },
  COUNCIL_MODELS: {
    name: 'COUNCIL_MODELS',
    kind: 'text',
    description:
      'The models of the council, comma-separated, as the endpoint names them; a user whose own key is for the other kind of endpoint gets the default. Default: on OpenRouter `openai/gpt-5.1,google/gemini-2.5-pro,anthropic/claude-sonnet-4.5,x-ai/grok-4`, else `gpt-5.1,gpt-5-mini,gpt-4.1`.',
    check: (value) =>
      value.split(',').length > MAX_MODELS
        ? `must list ${MAX_MODELS} models at most`
        : listOf((name) => name.length <= MAX_NAME, 'must be a comma-separated list of models')(value),
  },
  CHAIRMAN_MODEL: {
    name: 'CHAIRMAN_MODEL',
    kind: 'text',
    description: 'Who writes the final answer. Default: the first of the council.',
    check: maxLength(MAX_NAME),
  },
  TITLE_MODEL: {
    name: 'TITLE_MODEL',
    kind: 'text',
    description:
      'Who names a conversation after its first message. Default: `google/gemini-2.5-flash` on OpenRouter, else `gpt-5-mini`; with `COUNCIL_MODELS`, its first.',
    check: maxLength(MAX_NAME),
  },
  COUNCIL_MODEL_TIMEOUT_S: {
    name: 'COUNCIL_MODEL_TIMEOUT_S',
    kind: 'number',
    default: '120',
    description: 'Seconds that a model has for one answer, each time it is asked.',
    // the HTTP client gives up then by itself
    check: between(0.1, 300),
  },
  COUNCIL_MODEL_RETRIES: {
    name: 'COUNCIL_MODEL_RETRIES',
    kind: 'integer',
    default: '2',
    description:
      'How often a model is asked again after no answer, a cut connection, 429 (when its `Retry-After` allows) or 5xx.',
    check: between(0, 10),
  },
} as const satisfies Record<string, Variable>
