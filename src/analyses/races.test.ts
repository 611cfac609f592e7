import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { engines, type TestDatabase } from '../../test/harness.ts'
import { isThreadbaseError } from '../core/errors.ts'
import type { Analysis } from './schema.ts'

const WRITERS = 12

for (const engine of engines) {
  describe.skipIf(!engine.available)(`writers at the same time on ${engine.name}`, () => {
    let opened: TestDatabase
    beforeAll(async () => {
      opened = await engine.open()
    })
    afterAll(() => opened?.close())
    const scope = { userId: 'u' }
    const newSession = async () => (await opened.tb.sessions.create(scope)).id
    const crowd = <T>(work: (n: number) => Promise<T>) =>
      Promise.all(Array.from({ length: WRITERS }, (_, n) => work(n)))
    /** What a write made; undefined when another one was first. */
    const tried = (write: Promise<Analysis>) =>
      write.catch((error) => {
        if (isThreadbaseError(error, 'conflict')) return undefined
        throw error
      })
    const contents = async (id: string) => {
      const { items } = await opened.tb.analyses.listVersions(scope, id, { limit: 100 })
      const versions = items.map(({ version }) => opened.tb.analyses.getVersion(scope, id, version))
      return new Map(
        (await Promise.all(versions)).map(({ version, analysis }) => [version, analysis.summary]),
      )
    }

    test('one makes the first version, and one each of those after it; what they wrote is all kept', async () => {
      const id = await newSession()
      const { analyses } = opened.tb
      const won = new Map<number, string | null>()
      for (let version = 0; version < 8; version++) {
        const ifVersion = version > 0 ? version : undefined
        const made = await crowd((n) => {
          const content = { summary: `${version} by ${n}` }
          return tried(
            n % 2 === 0 || version === 0
              ? analyses.put(scope, id, content, { ifVersion })
              : analyses.patch(scope, id, content, { ifVersion }),
          )
        })
        const winners = made.filter((analysis) => analysis !== undefined)
        expect(winners.map((analysis) => analysis.version)).toEqual([version + 1])
        won.set(version + 1, winners[0]?.summary ?? null)
      }
      expect(new Map([...(await contents(id))].sort(([a], [b]) => a - b))).toEqual(won)
    })

    test('who reads again and repeats loses nothing', async () => {
      const id = await newSession()
      const { analyses } = opened.tb
      await analyses.put(scope, id, { solutions: ['start'] })
      await crowd(async (n) => {
        for (let mine = 0; mine < 3; ) {
          const { version, solutions } = await analyses.getAnalysis(scope, id)
          const patch = { solutions: [...solutions, `${n}.${mine}`] }
          if ((await tried(analyses.patch(scope, id, patch, { ifVersion: version }))) !== undefined) mine++
        }
      })
      const { version, solutions } = await analyses.getAnalysis(scope, id)
      expect([version, new Set(solutions).size]).toEqual([1 + 3 * WRITERS, 1 + 3 * WRITERS])
    })

    test('among deletions no version ever means two things', async () => {
      const id = await newSession()
      const { analyses } = opened.tb
      // there is something to delete, whoever comes first
      const { version, summary } = await analyses.put(scope, id, { summary: 'first' })
      const said = new Map([[version, new Set([summary])]])
      let deletions = 0
      await crowd(async (n) => {
        for (let i = 0; i < 6; i++) {
          if (n % 4 === 0) {
            // the sum is read when the answer is there, not before
            const isDeleted = await analyses.delete(scope, id)
            deletions += Number(isDeleted)
            continue
          }
          const ifVersion = n % 4 === 1 ? ('none' as const) : ('*' as const)
          const made = await tried(analyses.put(scope, id, { summary: `${n}.${i}` }, { ifVersion }))
          if (made !== undefined)
            said.set(made.version, (said.get(made.version) ?? new Set()).add(made.summary))
        }
      })
      expect(deletions).toBeGreaterThan(0)
      expect(said.size).toBeGreaterThan(deletions - 1)
      for (const [version, summaries] of said) expect([version, summaries.size]).toEqual([version, 1])
      const numbers = [...said.keys()].sort((a, b) => a - b)
      expect(numbers).toEqual(numbers.map((_, i) => i + 1))
    })

    test('appends, state of graphs and the deletion of the thread go on meanwhile', async () => {
      const id = await newSession()
      const { analyses, messages, threads } = opened.tb
      const outcomes = await Promise.all([
        crowd((n) =>
          analyses
            .put(scope, id, { summary: `${n}` }, n === 0 ? {} : { ifVersion: '*' })
            .catch((error) => error.code),
        ),
        crowd((n) =>
          messages.append(scope, id, [{ role: 'user', content: `${n}` }]).catch((error) => error.code),
        ),
        threads.delete(scope, id),
      ])
      for (const outcome of outcomes[0])
        expect(typeof outcome === 'string' ? ['conflict', 'not_found'] : [outcome]).toContain(outcome)
      for (const outcome of outcomes[1]) if (typeof outcome === 'string') expect(outcome).toBe('not_found')
      expect(outcomes[2]).toBe(true)
      await expect(analyses.findAnalysis(scope, id)).rejects.toMatchObject({ code: 'not_found' })
    })
  })
}
