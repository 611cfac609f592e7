import { sql } from 'kysely'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { engines, recordingLog, type TestDatabase } from '../../../test/harness.ts'
import { silentLog } from '../../core/log.ts'
import { prepareLanguage, readWordState, reindexWords } from './service.ts'

const A = { userId: 'alice' }

for (const engine of engines) {
  describe.skipIf(!engine.available)(`the language of search on ${engine.name}`, () => {
    let opened: TestDatabase
    let thread: string
    const say = (content: string) => opened.tb.messages.append(A, thread, [{ role: 'user', content }])
    const speak = (language: string, log = silentLog) =>
      prepareLanguage(opened.database, { language, change: true }, log)
    const count = async (q: string) => {
      const { items, method } = await opened.tb.search.messages(A, { q, mode: 'text', limit: 100 })
      return method === 'words' ? items.length : 0
    }
    beforeAll(async () => {
      opened = await engine.open()
      thread = (await opened.tb.threads.create(A, { kind: 'chain_analysis' })).id
    })
    afterAll(() => opened?.close())

    test('where nothing is stored, a change needs nothing more', async () => {
      await speak('german')
      expect(await readWordState(opened.database)).toEqual({ language: 'pg_catalog.german', others: [] })
      await speak('english')
      expect(await readWordState(opened.database)).toEqual({ language: 'pg_catalog.english', others: [] })
    })

    test('a change is seen by connections that are open and have their plans', async () => {
      for (let i = 0; i < 8; i++) {
        await say('die Häuser')
        expect(await count('Häuser')).toBe(i + 1)
        expect(await count('Häusern')).toBe(0)
      }
      const { log, logged } = recordingLog()
      await speak('german', log)
      expect(logged).toMatchObject([
        { level: 'warn', facts: { language: 'pg_catalog.german', others: ['pg_catalog.english'] } },
      ])
      await say('die Häuser')
      expect(await count('Häusern')).toBe(1)
    })

    test('what was stored before is found after the reindex, while others write', async () => {
      await opened.database.db
        .insertInto('chain_analysis_results')
        .values({
          ...{ user_id: A.userId, session_id: thread, text: 'zwei Häuser' },
          ...{ vulnerabilities: '[]', chain_links: '[]', solutions: '[]' },
        })
        .execute()
      await sql`update ${sql.table('chain_analysis_results')} set words = '' `.execute(opened.database.db)
      const seen: number[] = []
      const [report] = await Promise.all([
        reindexWords(opened.database, { batch: 3, onProgress: ({ rows }) => void seen.push(rows) }),
        say('viele Häuser'),
      ])
      expect(report.changed).toBe(9)
      expect(report.rows).toBeGreaterThanOrEqual(10)
      expect(seen.length).toBeGreaterThan(3)
      expect(await count('Häusern')).toBe(11)
      expect(await readWordState(opened.database)).toEqual({ language: 'pg_catalog.german', others: [] })
      expect(await reindexWords(opened.database)).toEqual({ rows: 11, changed: 0 })
    })

    test('one that is interrupted leaves the warning', async () => {
      await speak('simple')
      await reindexWords(opened.database, { signal: AbortSignal.abort() })
      expect((await readWordState(opened.database)).others).toEqual(['pg_catalog.german'])
    })

    test('a language that the database does not have is refused', async () => {
      for (const language of ['klingon', "x'; drop table messages; --"])
        await expect(speak(language)).rejects.toMatchObject({
          code: 'invalid_input',
          message: expect.stringContaining('SEARCH_LANGUAGE'),
        })
    })

    test('without the right to change the schema it stays as it is', async () => {
      const { log, logged } = recordingLog()
      await prepareLanguage(opened.database, { language: 'french', change: false }, log)
      expect(logged[0]).toMatchObject({ level: 'warn', message: expect.stringContaining('db upgrade') })
      expect((await readWordState(opened.database)).language).toBe('pg_catalog.simple')
      // who sets none takes what is there
      await prepareLanguage(opened.database, { language: undefined, change: true }, silentLog)
      expect((await readWordState(opened.database)).language).toBe('pg_catalog.simple')
    })
  })
}
