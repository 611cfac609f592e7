/** Embeds, closes nothing, and has nothing more to do. */
import { silentLog } from '../../src/core/log.ts'
import { openLocal } from '../../src/embeddings/local.ts'

const { engine } = JSON.parse(process.argv[2] ?? '')
const embedder = openLocal({ engine, log: silentLog })
const vectors = await embedder.embed(['one', 'two'])
console.log(JSON.stringify({ vectors: vectors.length }))
