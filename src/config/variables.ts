import { ACCESS } from './access.ts'
import { BYTES } from './bytes.ts'
import { COUNCIL } from './council.ts'
import { EMBEDDINGS, SEARCH } from './search.ts'
import { SERVER } from './server.ts'
import { STORAGE } from './storage.ts'
import { USAGE } from './usage.ts'
import { between, maxLength, type Variable } from './variable.ts'
import { VECTORS } from './vectors.ts'

/** Every environment variable that Threadbase reads. docs/configuration.md is generated from this. */
export const VARIABLES = {
  ...STORAGE,
  ...BYTES,
  ...ACCESS,
  ...SERVER,
  ...COUNCIL,
  ...EMBEDDINGS,
  ...SEARCH,
  ...VECTORS,
  ...USAGE,
  DEFAULT_MODEL: {
    name: 'DEFAULT_MODEL',
    kind: 'text',
    description: 'Model of threads that set none.',
    check: maxLength(255),
  },
  DEFAULT_TEMPERATURE: {
    name: 'DEFAULT_TEMPERATURE',
    kind: 'number',
    description: 'Temperature of threads that set none.',
    check: between(0, 2),
  },
  DEFAULT_SYSTEM_PROMPT: {
    name: 'DEFAULT_SYSTEM_PROMPT',
    kind: 'text',
    description: 'System prompt of threads that set none.',
    check: maxLength(100_000),
  },
  CONTEXT_WINDOW: {
    name: 'CONTEXT_WINDOW',
    kind: 'integer',
    description: 'Context window, in tokens, of threads that set none.',
    check: between(1, 2_147_483_647),
  },
  NODE_ENV: {
    name: 'NODE_ENV',
    kind: 'text',
    description:
      '`production` refuses to start without `DATABASE_URL` or `ENCRYPTION_KEY`, and in mode `accounts` without `AUTH_SECRET`.',
  },
} as const satisfies Record<string, Variable>
