// Changes keys as `threadbase keys rotate` does, and says after each batch how far it is, until it is killed.
import { encryptedCheckpointTables } from '../../src/checkpoints/service.ts'
import { parseConfig } from '../../src/config.ts'
import { createKeySource, encryptedSecretTables, rotateKeys } from '../../src/credentials/service.ts'
import { openThreadbase } from '../../src/open-threadbase.ts'

const { env, batch } = JSON.parse(process.argv[2] ?? '{}')
const ring = await createKeySource(parseConfig(env)).get()
const tb = await openThreadbase({ env })
const tables = [...encryptedSecretTables(ring), ...encryptedCheckpointTables(ring)]
const { left } = await rotateKeys(tb.database, tables, ring, {
  batch,
  onProgress: (done) => console.log(JSON.stringify({ done })),
})
console.log(JSON.stringify({ left }))
await tb.close()
