/**
 * Writes the reference pages of docs/ from the code: `npm run docs`. `npm run docs -- --check` writes nothing and
 * ends with 1 when a page is out of date.
 */
import { existsSync, readFileSync, writeFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { referencePages } from './reference.ts'

const docs = fileURLToPath(new URL('../docs/', import.meta.url))
const check = process.argv.includes('--check')

for (const [file, text] of Object.entries(await referencePages())) {
  const path = `${docs}${file}`
  if (existsSync(path) && readFileSync(path, 'utf8') === text) continue
  if (check) {
    console.error(`docs/${file} is out of date: run npm run docs`)
    process.exitCode = 1
  } else {
    writeFileSync(path, text)
    console.log(`wrote docs/${file}`)
  }
}
