// Takes the lock of a directory, says how that went, and holds it until its input ends.
import { setTimeout as delay } from 'node:timers/promises'
import { isThreadbaseError } from '../../src/core/errors.ts'
import { lockDirectory } from '../../src/db/directory-lock.ts'

const { directory, startAt } = JSON.parse(process.argv[2] ?? '{}')
// so that all racers start together, whatever their start-up took
await delay(startAt - Date.now() - 20)
while (Date.now() < startAt);
try {
  const lock = await lockDirectory(directory)
  console.log(JSON.stringify({ won: true, pid: process.pid }))
  process.stdin.resume()
  process.stdin.on('end', () => void lock.release())
} catch (error) {
  if (!isThreadbaseError(error)) throw error
  console.log(
    JSON.stringify({ won: false, code: error.code, message: error.message, details: error.details }),
  )
}
