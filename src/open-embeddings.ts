import type { Config } from './config.ts'
import type { Logger } from './core/log.ts'
import type { Embedder } from './embeddings/embedder.ts'
import { openEndpoint } from './embeddings/endpoint.ts'
import { openLocal } from './embeddings/local.ts'

/**
 * The model of a configuration; undefined where there is none. Opening loads no model and asks no endpoint: one that does
 * not answer makes calls `unavailable`, not the start.
 */
export function openEmbeddings(
  { embeddings }: Pick<Config, 'embeddings'>,
  log: Logger,
): Embedder | undefined {
  switch (embeddings.kind) {
    case 'none':
      return undefined
    case 'local':
      return openLocal({ engine: embeddings.engine, log })
    case 'endpoint':
      return openEndpoint(embeddings)
  }
}
