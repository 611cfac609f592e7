import { hash } from '@node-rs/bcrypt'
import { sql } from 'kysely'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { engines, openServices, type TestDatabase } from '../../../test/harness.ts'
import type { Threadbase } from '../../threadbase.ts'
import type { NewAccount, User } from '../schema.ts'

const ROOT = { userId: 'root', via: 'cli' } as const
const FROM = { address: '192.0.2.1', requestId: 'r1' }
const PASSWORD = 'correct horse'

for (const engine of engines) {
  describe.skipIf(!engine.available)(`users on ${engine.name}`, () => {
    let opened: TestDatabase
    let tb: Threadbase
    let users: Threadbase['identity']['users']
    let count = 0
    beforeAll(async () => {
      opened = await engine.open({ auth: { mode: 'accounts' } })
      tb = opened.tb
      users = tb.identity.users
    })
    afterAll(() => opened?.close())

    const newName = () => `user${++count}`
    const create = (more: Partial<NewAccount> = {}) =>
      users.create(ROOT, { username: newName(), password: PASSWORD, ...more })
    const signIn = (login: string | null, password = PASSWORD) =>
      tb.identity.signIn.signIn({ login: String(login), password }, FROM)
    const actions = async (user: User) =>
      (await tb.audit.list({ userId: user.id })).items.map(({ action }) => action).reverse()
    const setHash = (id: string, text: string) =>
      sql`update ${sql.table('users')} set password_hash = ${text} where id = ${id}`.execute(
        opened.database.db,
      )

    test('are made with what was given, and hold no password', async () => {
      const name = newName()
      const user = await create({
        username: name,
        email: `${name}@Example.COM`,
        name: 'Änna',
        isSuperuser: true,
      })
      expect(user).toEqual({
        id: expect.stringMatching(/^[0-9a-f-]{36}$/),
        provider: 'local',
        username: name,
        email: `${name}@example.com`,
        name: 'Änna',
        profileImage: null,
        isActive: true,
        isSuperuser: true,
        createdAt: expect.any(Date),
        updatedAt: expect.any(Date),
        lastLoginAt: null,
      })
      expect(await users.getUser(user.id)).toEqual(user)
      expect(await actions(user)).toEqual(['user_created'])
    })

    test.each([
      ['the same', 'anna1', 'anna1'],
      ['in capitals', 'anna2', 'ANNA2'],
      ['in another form', 'änna3', 'änna3'.normalize('NFD')],
      ['as a ligature', 'fine4', 'ﬁne4'],
      ['in full width', 'anna5', 'Ａｎｎａ５'],
    ])('a username is taken once (%s)', async (_, first, second) => {
      const user = await create({ username: first })
      await expect(create({ username: second })).rejects.toMatchObject({ code: 'conflict' })
      expect((await signIn(second)).user.id).toBe(user.id)
      expect((await users.find(second)).id).toBe(user.id)
    })

    test('an email is taken once, in whatever form, when it is given and when it is changed', async () => {
      const user = await create({ email: 'Bär@example.com' })
      const taken = 'BÄR@EXAMPLE.COM'.normalize('NFD')
      await expect(create({ email: taken })).rejects.toMatchObject({ code: 'conflict' })
      const other = await create({ email: 'other@example.com' })
      await expect(users.update(ROOT, other.id, { email: taken })).rejects.toMatchObject({ code: 'conflict' })
      await expect(users.updateProfile(ROOT, other.id, { email: taken })).rejects.toMatchObject({
        code: 'conflict',
      })
      expect((await signIn(taken)).user.id).toBe(user.id)
      // given up, it is free
      await users.updateProfile(ROOT, user.id, { email: null })
      expect((await users.updateProfile(ROOT, other.id, { email: taken })).email).toBe('bär@example.com')
    })

    test('of many who ask for one name at once one gets it', async () => {
      const username = newName()
      const all = await Promise.allSettled(Array.from({ length: 8 }, () => create({ username })))
      expect(all.filter(({ status }) => status === 'fulfilled')).toHaveLength(1)
      for (const one of all)
        if (one.status === 'rejected') expect(one.reason).toMatchObject({ code: 'conflict' })
    })

    test.each([
      ['an @', { username: 'a@b' }],
      ['a character that becomes an @', { username: 'a＠b' }],
      ['a space', { username: 'a b' }],
      ['a character that becomes a space and more', { username: 'a¨b' }],
      ['a text that becomes too long', { username: 'ﷺ'.repeat(255) }],
      ['nothing', { username: '' }],
      ['a NUL', { username: 'a\0b' }],
      ['half a pair', { username: 'a\ud800b' }],
      ['an email that becomes two', { email: 'a＠b@example.com' }],
      ['an email that is too long', { email: `${'ﷺ'.repeat(64)}@example.com` }],
      ['an email without a host', { email: 'anna@' }],
      ['a short password', { password: '1234567' }],
      ['an endless password', { password: 'x'.repeat(1_025) }],
      ['an unknown field', { isAdmin: true }],
    ])('one with %s is refused in words', async (_, wrong) => {
      const making = create(wrong as Partial<NewAccount>)
      await expect(making).rejects.toMatchObject({ code: 'invalid_input' })
      await expect(making).rejects.toThrow(/^user/)
      await expect(making).rejects.not.toThrow(/constraint|1234567/)
      const user = await create()
      if ('email' in wrong)
        for (const change of [users.update, users.updateProfile])
          await expect(change(ROOT, user.id, wrong)).rejects.toMatchObject({ code: 'invalid_input' })
    })

    test('are found by id, username and email, and by nothing else', async () => {
      const user = await create({ email: `find${++count}@example.com` })
      for (const name of [user.id, user.username, user.username?.toUpperCase(), user.email])
        expect((await users.find(String(name))).id).toBe(user.id)
      for (const name of ['', 'nobody', user.id.slice(1), '%', `${user.username}%`])
        await expect(users.find(name), name).rejects.toMatchObject({ code: 'not_found' })
    })

    test('a name that is the id of another names both', async () => {
      const id = newName()
      await users.ensure({ id, provider: 'proxy' })
      const user = await create({ username: id })
      await expect(users.find(id)).rejects.toMatchObject({
        code: 'conflict',
        details: { ids: [id, user.id] },
      })
    })

    test('are listed newest first, page by page, also when made in the same millisecond', async () => {
      const mark = `page${++count}`
      const made: User[] = []
      for (let i = 0; i < 7; i++) made.push(await create({ name: mark }))
      await sql`update ${sql.table('users')} set created_at = '2020-01-01' where name = ${mark}`.execute(
        opened.database.db,
      )
      const found: string[] = []
      let cursor: string | undefined
      do {
        const page = await users.list({ limit: 3, cursor, q: mark })
        expect(page.items.length).toBeLessThanOrEqual(3)
        found.push(...page.items.map(({ id }) => id))
        cursor = page.nextCursor
      } while (cursor !== undefined)
      expect(found).toEqual(
        made
          .map(({ id }) => id)
          .sort()
          .reverse(),
      )
      const all = (await users.list({ limit: 200 })).items.map(({ createdAt }) => createdAt.getTime())
      expect(all).toEqual(all.toSorted((a, b) => b - a))
    })

    test('are found by a part of what they are called, whatever its characters mean elsewhere', async () => {
      const user = await create({ name: `100%_Underscored ${++count}` })
      for (const q of ['100%_un', String(user.username).toUpperCase(), user.id])
        expect(
          (await users.list({ q })).items.map(({ id }) => id),
          q,
        ).toContain(user.id)
      expect((await users.list({ q: '100__' })).items).toEqual([])
      await users.update(ROOT, user.id, { isActive: false })
      expect((await users.list({ q: '100%_un', isActive: true })).items).toEqual([])
    })

    test.each(['', 'x', 'WyJ1c2VycyJd', Buffer.from('["users",1e300,"x"]').toString('base64url')])(
      'a cursor that is none (%j) is refused',
      async (cursor) => {
        await expect(users.list({ cursor })).rejects.toMatchObject({ code: 'invalid_input' })
      },
    )

    test('a cursor of a time that no row can have is refused', async () => {
      const cursor = Buffer.from(JSON.stringify(['users', -8.64e15, 'x'])).toString('base64url')
      await expect(users.list({ cursor })).rejects.toThrow(/cursor is not one/)
    })

    test('one who is deactivated is out, and stays out of the sessions of before when activated again', async () => {
      const user = await create()
      const { tokens } = await signIn(user.username)
      const { key } = await tb.identity.keys.create({ userId: user.id }, ROOT, { name: 'k' })
      expect(await tb.identity.ofAccessToken(tokens.accessToken)).toMatchObject({ userId: user.id })
      await tb.identity.ofKey(key)
      expect((await users.update(ROOT, user.id, { isActive: false })).isActive).toBe(false)
      await expect(tb.identity.ofAccessToken(tokens.accessToken)).rejects.toMatchObject({
        code: 'unauthorized',
      })
      await expect(tb.identity.ofKey(key)).rejects.toMatchObject({ details: { reason: 'deactivated' } })
      await expect(tb.identity.sessions.refresh(tokens.refreshToken, FROM)).rejects.toMatchObject({
        code: 'unauthorized',
      })
      await expect(signIn(user.username)).rejects.toMatchObject({ details: { reason: 'deactivated' } })
      await expect(signIn(user.username, 'wrong one')).rejects.toThrow(/username or the password/)

      await users.update(ROOT, user.id, { isActive: true })
      await expect(tb.identity.ofAccessToken(tokens.accessToken)).rejects.toMatchObject({
        code: 'unauthorized',
      })
      await tb.identity.ofKey(key)
      await signIn(user.username)
      expect(await actions(user)).toEqual([
        'user_created',
        'sign_in',
        'api_key_created',
        'user_deactivated',
        'sign_in_failed',
        'sign_in_failed',
        'user_activated',
        'sign_in',
      ])
    })

    test('one who is promoted or demoted is so with the next request', async () => {
      const user = await create()
      const { tokens } = await signIn(user.username)
      const isSuperuser = async () => (await tb.identity.ofAccessToken(tokens.accessToken)).isSuperuser
      expect(await isSuperuser()).toBe(false)
      for (const wanted of [true, true, false]) {
        await users.update(ROOT, user.id, { isSuperuser: wanted })
        expect(await isSuperuser()).toBe(wanted)
      }
      expect((await actions(user)).slice(2)).toEqual(['user_promoted', 'user_demoted'])
    })

    test('a change of nothing, or of nobody, is refused', async () => {
      const user = await create()
      await expect(users.update(ROOT, user.id, {})).rejects.toMatchObject({ code: 'invalid_input' })
      for (const id of ['nobody', MISSING]) {
        await expect(users.getUser(id)).rejects.toMatchObject({ code: 'not_found' })
        for (const patch of [{ isActive: false }, { name: 'x' }])
          await expect(users.update(ROOT, id, patch)).rejects.toMatchObject({ code: 'not_found' })
        await expect(users.resetPassword(ROOT, id, PASSWORD)).rejects.toMatchObject({ code: 'not_found' })
      }
      for (const id of ['', 'x'.repeat(256), 'a\0b'])
        await expect(users.getUser(id)).rejects.toMatchObject({ code: 'invalid_input' })
    })

    test('a new password ends the sessions of the old one', async () => {
      const user = await create()
      const before = await signIn(user.username)
      await users.resetPassword(ROOT, user.id, 'another horse')
      await expect(tb.identity.ofAccessToken(before.tokens.accessToken)).rejects.toMatchObject({
        code: 'unauthorized',
      })
      await expect(signIn(user.username)).rejects.toMatchObject({ code: 'unauthorized' })
      const [one, two] = [
        await signIn(user.username, 'another horse'),
        await signIn(user.username, 'another horse'),
      ]
      const { sessionId: keepSession } = two.tokens
      const change = { current: 'another horse', next: PASSWORD, keepSession }
      await users.changePassword({ userId: user.id, via: 'session' }, user.id, change)
      await expect(tb.identity.ofAccessToken(one.tokens.accessToken)).rejects.toMatchObject({
        code: 'unauthorized',
      })
      await tb.identity.ofAccessToken(two.tokens.accessToken)
      await signIn(user.username)
      expect(await actions(user)).toContain('password_reset')
      expect(await actions(user)).toContain('password_changed')
    })

    test('a password is changed by whom knows the old one, once', async () => {
      const user = await create()
      const change = (current: string, next: string) => users.changePassword(ROOT, user.id, { current, next })
      await expect(change('wrong one', 'another horse')).rejects.toMatchObject({ code: 'unauthorized' })
      await expect(change(PASSWORD, 'short')).rejects.toMatchObject({ code: 'invalid_input' })
      const all = await Promise.allSettled(
        Array.from({ length: 5 }, (_, i) => change(PASSWORD, `new password ${i}`)),
      )
      expect(all.filter(({ status }) => status === 'fulfilled')).toHaveLength(1)
    })

    test('nobody else vouches for an account that signs in with a password', async () => {
      const { id } = await create()
      for (const provider of ['jwt', 'proxy'] as const)
        await expect(users.ensure({ id, provider })).rejects.toMatchObject({ code: 'unauthorized' })
      expect((await users.getUser(id)).provider).toBe('local')
    })

    test('users of a provider have no password here', async () => {
      const id = newName()
      await users.ensure({ id, provider: 'jwt', email: 'p@example.com', name: 'P' })
      await expect(users.resetPassword(ROOT, id, PASSWORD)).rejects.toMatchObject({ code: 'conflict' })
      await expect(users.changePassword(ROOT, id, { current: '', next: PASSWORD })).rejects.toMatchObject({
        code: 'unauthorized',
      })
      for (const login of [id, 'p@example.com'])
        await expect(signIn(login)).rejects.toMatchObject({ code: 'unauthorized' })
      // and their address is nobody's to sign in with
      expect((await create({ email: 'p@example.com' })).provider).toBe('local')
    })

    test('users of a provider get one row, however many requests come first', async () => {
      const id = newName()
      const others = await openServices(opened.database, { auth: { mode: 'jwt' } })
      const all = await Promise.all(
        [users, others.identity.users, users].map((each) =>
          each.ensure({ id, provider: 'jwt', name: 'first' }),
        ),
      )
      expect(all).toEqual(Array(3).fill({ isActive: true, isSuperuser: false, provider: 'jwt' }))
      expect(await users.getUser(id)).toMatchObject({ provider: 'jwt', name: 'first', username: null })
      await users.ensure({ id, provider: 'jwt', name: 'second' })
      expect((await users.getUser(id)).name).toBe('first')
    })

    test('a hash of another cost, or made elsewhere, is made anew with the next sign-in', async () => {
      const user = await create()
      await setHash(user.id, (await hash(PASSWORD, { cost: 5 })).replace('$2b$', '$2y$'))
      await expect(signIn(user.username, 'wrong one')).rejects.toMatchObject({ code: 'unauthorized' })
      const hashOf = async () => {
        const { rows } = await sql<{ h: string }>`
          select password_hash as h from ${sql.table('users')} where id = ${user.id}`.execute(
          opened.database.db,
        )
        return rows[0]?.h
      }
      expect(await hashOf()).toMatch(/^\$2y\$05\$/)
      const { tokens } = await signIn(user.username)
      expect(await hashOf()).toMatch(/^\$2b\$04\$/)
      await tb.identity.ofAccessToken(tokens.accessToken)
      await signIn(user.username)
    })

    test('a hash that is none lets nobody in', async () => {
      const user = await create()
      await setHash(user.id, 'not bcrypt')
      for (const password of ['not bcrypt', PASSWORD, ''])
        await expect(signIn(user.username, password)).rejects.toMatchObject({ code: 'unauthorized' })
    })
  })
}

const MISSING = '00000000-0000-7000-8000-000000000000'
