import { checkEndpointUrl } from '../core/network.ts'
import { between, checkKey, maxLength, oneOf, type Variable } from './variable.ts'

export const EMBEDDING_ENGINES = ['auto', 'wasm', 'onnx'] as const
export type EmbeddingEngine = (typeof EMBEDDING_ENGINES)[number]

/** What gives texts their vectors. */
export type EmbeddingSettings =
  | { kind: 'none' }
  /** `isDefault`: nobody has chosen it. */
  | { kind: 'local'; engine: EmbeddingEngine; isDefault: boolean }
  | {
      kind: 'endpoint'
      model: string
      url: string
      /** Undefined: the endpoint wants none. */
      key: string | undefined
      timeoutMs: number
    }

/** The model that search by meaning stands on. */
export const EMBEDDINGS = {
  EMBEDDING_MODEL: {
    name: 'EMBEDDING_MODEL',
    kind: 'text',
    default: 'local',
    description:
      'What makes texts into vectors for search by meaning. `local`: all-MiniLM-L6-v2, which is part of the package and runs in a thread of the process; it knows English best, and reads the first 256 tokens of a text, about 1,000 letters. `none`: nothing does, and search is by words. Else the name of a model at `EMBEDDING_URL`, such as `text-embedding-3-small`; it must give vectors of 384 numbers, by itself or because it is asked to (`dimensions`). After a change all texts are given vectors of the new model in the background.',
    check: maxLength(255),
  },
  EMBEDDING_ENGINE: {
    name: 'EMBEDDING_ENGINE',
    kind: 'text',
    default: 'auto',
    description:
      'What runs the local model: `onnx`, which needs the package `onnxruntime-node` and is several times as fast, or `wasm`; both give the same vectors. `auto`: the first where that package is installed, else the second.',
    check: oneOf(...EMBEDDING_ENGINES),
  },
  EMBEDDING_URL: {
    name: 'EMBEDDING_URL',
    kind: 'text',
    description:
      'Any endpoint with the embeddings of the OpenAI API, without `/embeddings`: `http://localhost:11434/v1` for Ollama. Default: that of `OPENAI_BASE_URL`, which is OpenAI.',
    check: checkEndpointUrl,
  },
  EMBEDDING_API_KEY: {
    name: 'EMBEDDING_API_KEY',
    kind: 'secret',
    description:
      'Key for `EMBEDDING_URL`. Default: `OPENAI_API_KEY`, unless `EMBEDDING_URL` is set to another place than `OPENAI_BASE_URL`.',
    check: checkKey,
  },
  EMBEDDING_TIMEOUT_S: {
    name: 'EMBEDDING_TIMEOUT_S',
    kind: 'number',
    default: '30',
    description: 'Seconds that the endpoint has for an answer.',
    check: between(0.1, 300),
  },
} as const satisfies Record<string, Variable>

/** Search by words. */
export const SEARCH = {
  SEARCH_LANGUAGE: {
    name: 'SEARCH_LANGUAGE',
    kind: 'text',
    description:
      'The language of texts, by which words are found in all their forms: a text search configuration of PostgreSQL, such as `english`, `german`, `spanish`, or `simple` for words as they are. Default: that of the database, which is `english` until somebody sets another. After a change `threadbase search reindex` does the same for what was stored before.',
    check: (value) =>
      /^[a-z_][a-z0-9_]{0,62}(\.[a-z_][a-z0-9_]{0,62})?$/.test(value)
        ? undefined
        : 'must be the name of a text search configuration, such as english, german or simple',
  },
} as const satisfies Record<string, Variable>
