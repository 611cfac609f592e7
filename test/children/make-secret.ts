// Reads the secret of a file, or makes it, at a given moment, and says what it got.
import { setTimeout as delay } from 'node:timers/promises'
import { readOrMakeSecret } from '../../src/identity/secret-file.ts'

const { file, startAt } = JSON.parse(process.argv[2] ?? '{}')
await delay(startAt - Date.now())
console.log(JSON.stringify(await readOrMakeSecret(file)))
