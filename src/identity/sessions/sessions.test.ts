import { sql } from 'kysely'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { engines, openServices, type TestDatabase } from '../../../test/harness.ts'
import type { Threadbase } from '../../threadbase.ts'
import type { User } from '../schema.ts'

const ROOT = { userId: 'root', via: 'cli' } as const
const FROM = { address: '192.0.2.1', requestId: 'r1' }
const PASSWORD = 'correct horse'
const refused = (reason: string) => ({ code: 'unauthorized', details: { reason } })

for (const engine of engines) {
  describe.skipIf(!engine.available)(`sessions on ${engine.name}`, () => {
    let opened: TestDatabase
    let tb: Threadbase
    let count = 0
    beforeAll(async () => {
      opened = await engine.open({
        auth: { mode: 'accounts', loginLimits: { perUser: 1_000, perAddress: 100_000 } },
      })
      tb = opened.tb
    })
    afterAll(() => opened?.close())

    const newUser = () => tb.identity.users.create(ROOT, { username: `user${++count}`, password: PASSWORD })
    const signIn = async (user: User, password = PASSWORD) =>
      (await tb.identity.signIn.signIn({ login: String(user.username), password }, FROM)).tokens
    const newSession = async () => {
      const user = await newUser()
      return { user, tokens: await signIn(user) }
    }
    const refresh = (token: string, on = tb) => on.identity.sessions.refresh(token, FROM)
    const authenticate = (token: string) => tb.identity.ofAccessToken(token)
    const expire = (id: string) =>
      sql`update ${sql.table('sessions')} set expires_at = now() - interval '2 hours' where id = ${id}::uuid`.execute(
        opened.database.db,
      )
    const entries = async ({ id }: User) => (await tb.audit.list({ userId: id })).items

    test('a refresh token is good once, and the tokens that follow are of the same session', async () => {
      const { user, tokens } = await newSession()
      const next = await refresh(tokens.refreshToken)
      expect(next).toMatchObject({
        userId: user.id,
        sessionId: tokens.sessionId,
        csrfToken: tokens.csrfToken,
      })
      expect(await authenticate(next.accessToken)).toMatchObject({ userId: user.id, via: 'session' })
      // the access token of before is good until it expires
      await authenticate(tokens.accessToken)
      await refresh(next.refreshToken)
    })

    test('one that comes again ends the session, also for whoever has the newest', async () => {
      const { user, tokens } = await newSession()
      const other = await signIn(user)
      const next = await refresh(tokens.refreshToken)
      await expect(refresh(tokens.refreshToken)).rejects.toMatchObject(refused('reused'))
      await expect(refresh(next.refreshToken)).rejects.toMatchObject(refused('ended'))
      for (const { accessToken } of [tokens, next])
        await expect(authenticate(accessToken)).rejects.toMatchObject(refused('ended'))
      await authenticate(other.accessToken)
      expect(await entries(user)).toContainEqual(
        expect.objectContaining({
          action: 'refresh_token_reused',
          target: `session ${tokens.sessionId}`,
          address: FROM.address,
          requestId: FROM.requestId,
        }),
      )
    })

    test('of fifty refreshes at once, on two servers, exactly one wins, and the session ends', async () => {
      const { user, tokens } = await newSession()
      const second = await openServices(opened.database, { auth: { mode: 'accounts' } })
      const all = await Promise.allSettled(
        Array.from({ length: 50 }, (_, i) => refresh(tokens.refreshToken, i % 2 === 0 ? tb : second)),
      )
      const won = all.filter((one) => one.status === 'fulfilled')
      expect(won).toHaveLength(1)
      for (const one of all)
        if (one.status === 'rejected') expect(one.reason).toMatchObject({ code: 'unauthorized' })
      await expect(refresh(String(won[0]?.value.refreshToken))).rejects.toMatchObject(refused('ended'))
      const reused = (await entries(user)).filter(({ action }) => action === 'refresh_token_reused')
      expect(reused).toHaveLength(1)
    })

    test('a session that has expired is neither refreshed nor believed, and is no theft', async () => {
      const { user, tokens } = await newSession()
      await expire(tokens.sessionId)
      await expect(authenticate(tokens.accessToken)).rejects.toMatchObject(refused('ended'))
      await expect(refresh(tokens.refreshToken)).rejects.toMatchObject(refused('ended'))
      expect((await entries(user)).map(({ action }) => action)).not.toContain('refresh_token_reused')
    })

    test('rows of sessions are removed once their every token has expired', async () => {
      const { tokens } = await newSession()
      const { tokens: old } = await newSession()
      await expire(old.sessionId)
      expect(await tb.identity.sessions.sweep()).toBeGreaterThanOrEqual(1)
      await expect(refresh(old.refreshToken)).rejects.toMatchObject(refused('ended'))
      await refresh(tokens.refreshToken)
      expect(await tb.identity.sessions.sweep()).toBe(0)
    })

    test('a sign-out ends one session or all, and again changes nothing', async () => {
      const { user, tokens } = await newSession()
      const [second, third] = [await signIn(user), await signIn(user)]
      const actor = { userId: user.id, via: 'session' } as const
      await tb.identity.sessions.signOut(actor, tokens.sessionId)
      await tb.identity.sessions.signOut(actor, tokens.sessionId)
      await expect(authenticate(tokens.accessToken)).rejects.toMatchObject(refused('ended'))
      await expect(refresh(tokens.refreshToken)).rejects.toMatchObject(refused('ended'))
      // one that has ended already ends no others
      await tb.identity.sessions.signOutAll(actor, tokens.sessionId)
      await authenticate(second.accessToken)
      await tb.identity.sessions.signOutAll(actor, second.sessionId)
      for (const { accessToken } of [second, third])
        await expect(authenticate(accessToken)).rejects.toMatchObject(refused('ended'))
      expect((await entries(user)).map(({ action, target }) => [action, target]).slice(0, 2)).toEqual([
        ['sign_out', 'all sessions'],
        ['sign_out', `session ${tokens.sessionId}`],
      ])
    })

    test('a session of another user is not believed', async () => {
      const [one, two] = [await newSession(), await newSession()]
      const actor = { userId: one.user.id, via: 'session' } as const
      await tb.identity.sessions.signOut(actor, two.tokens.sessionId)
      await authenticate(two.tokens.accessToken)
    })

    test('a sign-in at the moment of a new password or a deactivation leaves no live session', async () => {
      for (let round = 0; round < 15; round++) {
        const user = await newUser()
        const change =
          round % 2 === 0
            ? tb.identity.users.resetPassword(ROOT, user.id, 'another horse')
            : tb.identity.users.update(ROOT, user.id, { isActive: false })
        const signIns = await Promise.allSettled([signIn(user), signIn(user), signIn(user), change])
        await tb.identity.users.update(ROOT, user.id, { isActive: true })
        for (const one of signIns) {
          if (one.status === 'rejected') expect(one.reason).toMatchObject({ code: 'unauthorized' })
          else if (one.value !== undefined && 'accessToken' in one.value)
            await expect(authenticate(one.value.accessToken)).rejects.toMatchObject(refused('ended'))
        }
      }
    })

    test('a change that fails ends no session, and one that cannot end sessions is not made', async () => {
      const { user, tokens } = await newSession()
      const failing = () => Promise.reject(new Error('not now'))
      await expect(tb.identity.sessions.revokeAlong(user.id, failing)).rejects.toThrow('not now')
      await authenticate(tokens.accessToken)
      const { db } = opened.database
      await sql.raw(`alter table ${opened.database.schema}.sessions rename to sessions_away`).execute(db)
      try {
        await expect(tb.identity.users.resetPassword(ROOT, user.id, 'another horse')).rejects.toThrow()
        await expect(tb.identity.users.update(ROOT, user.id, { isActive: false })).rejects.toThrow()
      } finally {
        await sql.raw(`alter table ${opened.database.schema}.sessions_away rename to sessions`).execute(db)
      }
      await signIn(user)
    })

    test('no token, key or password is in the audit log', async () => {
      const { user, tokens } = await newSession()
      const { key } = await tb.identity.keys.create({ userId: user.id }, ROOT, { name: 'secret name' })
      await expect(signIn(user, 'wrong password')).rejects.toThrow()
      await expect(
        tb.identity.signIn.signIn({ login: 'my password by mistake', password: PASSWORD }, FROM),
      ).rejects.toThrow()
      await refresh(tokens.refreshToken)
      await expect(refresh(tokens.refreshToken)).rejects.toThrow()
      await tb.identity.users.resetPassword(ROOT, user.id, 'another horse')
      const { rows } = await sql<{ line: string }>`
        select row_to_json(a)::text as line from ${sql.table('audit_log')} a`.execute(opened.database.db)
      const log = rows.map(({ line }) => line).join('\n')
      const secrets = [
        PASSWORD,
        'another horse',
        'wrong password',
        'by mistake',
        key,
        key.slice(3),
        'secret name',
      ]
      for (const secret of [...secrets, tokens.accessToken, tokens.refreshToken, '$2b$'])
        expect(log.includes(secret), secret).toBe(false)
      expect(opened.logged.map(({ facts }) => JSON.stringify(facts)).join()).not.toContain(PASSWORD)
    })
  })
}
