import { readdirSync, readFileSync } from 'node:fs'
import { dirname, join, resolve } from 'node:path'
import { fileURLToPath } from 'node:url'
import { describe, expect, test } from 'vitest'
import { referencePages } from '../scripts/reference.ts'
import { ERROR_CODES, EXIT_CODE, HTTP_STATUS } from '../src/core/errors.ts'

const root = fileURLToPath(new URL('..', import.meta.url))
const read = (file: string) => readFileSync(join(root, file), 'utf8')
const pages = [
  'README.md',
  'CONTRIBUTING.md',
  'CHANGELOG.md',
  ...readdirSync(join(root, 'docs')).map((file) => `docs/${file}`),
]

describe('the documentation', () => {
  test('the reference pages are those that the code makes (npm run docs)', async () => {
    for (const [file, text] of Object.entries(await referencePages()))
      expect(read(`docs/${file}`), file).toBe(text)
  })

  test('docs/errors.md and the tables of codes say the same', () => {
    const rows = [...read('docs/errors.md').matchAll(/^\| `(\w+)` \| (\d+) \| (\d+) \| .+ \|$/gm)]
    const documented = rows.map(([, code, status, exit]) => [code, Number(status), Number(exit)])
    expect(documented).toEqual(ERROR_CODES.map((code) => [code, HTTP_STATUS[code], EXIT_CODE[code]]))
  })

  test.each(pages)('every link of %s leads somewhere', (page) => {
    const links = [...read(page).matchAll(/\]\(([^)#]+)(?:#[^)]*)?\)/g)].map(([, link]) => link as string)
    const local = links.filter((link) => !/^[a-z]+:/.test(link))
    const known = new Set(pages.map((file) => resolve(root, file)))
    for (const link of local) expect(known, `${page}: ${link}`).toContain(resolve(root, dirname(page), link))
  })

  test('every page of docs/ is linked from the README', () => {
    const readme = read('README.md')
    for (const page of pages.filter((file) => file.startsWith('docs/')))
      expect(readme, page).toContain(`(${page})`)
  })
})
