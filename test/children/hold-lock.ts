// Works under a lock, adding one to a number in a file so many times; or holds the lock until its input ends.
import { readFile, writeFile } from 'node:fs/promises'
import { withFileLock } from '../../src/files/lock.ts'

const { lock, file, times } = JSON.parse(process.argv[2] ?? '{}')
const say = (facts: object) => console.log(JSON.stringify(facts))
if (times === undefined) {
  await withFileLock(lock, async () => {
    say({ held: process.pid })
    process.stdin.resume()
    await new Promise((done) => process.stdin.on('end', done))
  })
} else {
  const add = () =>
    withFileLock(lock, async () => writeFile(file, String(Number(await readFile(file, 'utf8')) + 1)))
  say({ ready: true })
  await Promise.all(Array.from({ length: times }, add))
  say({ done: true })
}
