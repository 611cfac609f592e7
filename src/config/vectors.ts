import { between, oneOf, type Variable } from './variable.ts'

/** How vectors are found in PostgreSQL; see docs/search-by-meaning.md. */
export const VECTORS = {
  VECTOR_INDEX: {
    name: 'VECTOR_INDEX',
    kind: 'text',
    default: 'hnsw',
    description:
      'The index of embeddings that is made on PostgreSQL: `hnsw`, or `ivfflat`, which is made faster and smaller and finds less. `threadbase embeddings index` replaces one by the other.',
    check: oneOf('hnsw', 'ivfflat'),
  },
  VECTOR_LISTS: {
    name: 'VECTOR_LISTS',
    kind: 'integer',
    description:
      'Into how many lists an IVFFlat index divides the embeddings. Default: a thousandth of their number, and its square root beyond a million.',
    check: between(1, 32_768),
  },
  VECTOR_PROBES: {
    name: 'VECTOR_PROBES',
    kind: 'integer',
    description:
      'How many of the lists of an IVFFlat index a search looks at: more find more and take longer. Default: the square root of the lists.',
    check: between(1, 32_768),
  },
} as const satisfies Record<string, Variable>
