import { expect, test, vi } from 'vitest'
import { TEST_AUTH } from '../../test/harness.ts'
import { describeApi } from '../../test/http.ts'

const ROOT = { userId: 'root', via: 'cli' } as const
const PASSWORD = 'correct horse'
const LIMITS = { perUser: 5, perAddress: 12 }
const limited = { code: 'rate_limited', details: { retryAfterS: expect.any(Number) } }
const wrong = { code: 'unauthorized', message: 'the username or the password is wrong' }

let count = 0
const newAddress = () => `192.0.2.${++count}`

describeApi(
  'signing in',
  (api) => {
    const identity = () => api.opened.tb.identity
    const newUser = async () => {
      const username = `user${++count}`
      return identity().users.create(ROOT, { username, email: `${username}@example.com`, password: PASSWORD })
    }
    const signIn = (login: unknown, password = PASSWORD, address = newAddress()) =>
      identity().signIn.signIn({ login: String(login), password }, { address })
    const times = async (n: number, act: (i: number) => Promise<unknown>) => {
      for (let i = 0; i < n; i++) await act(i)
    }

    test('an unknown user and a wrong password are told in the same words', async () => {
      const { username } = await newUser()
      const logins = [username, 'nobody', 'nobody@example.com', '', 'a\0b', '\ud800', 'x'.repeat(1_000)]
      for (const login of logins)
        await expect(signIn(login, 'wrong one'), String(login)).rejects.toMatchObject(wrong)
    })

    test('wrong passwords for a user are counted from wherever they come; then the right one waits, too', async () => {
      const { username } = await newUser()
      await times(LIMITS.perUser, () => expect(signIn(username, 'wrong one')).rejects.toMatchObject(wrong))
      for (const login of [username, username?.toUpperCase()])
        await expect(signIn(login)).rejects.toMatchObject(limited)
      // others are not held up
      await signIn((await newUser()).username)
    })

    test('so are those for a user who does not exist', async () => {
      const login = `nobody${++count}`
      await times(LIMITS.perUser, () => expect(signIn(login)).rejects.toMatchObject(wrong))
      await expect(signIn(login)).rejects.toMatchObject(limited)
    })

    test('attempts from one address are counted for whomever they are; other addresses go on', async () => {
      const { username } = await newUser()
      const address = newAddress()
      await times(LIMITS.perAddress, (i) =>
        expect(signIn(`guess${count}-${i}`, PASSWORD, address)).rejects.toMatchObject(wrong),
      )
      await expect(signIn(username, PASSWORD, address)).rejects.toMatchObject(limited)
      await expect(signIn(username, PASSWORD, `::ffff:${address}`)).rejects.toMatchObject(limited)
      await signIn(username)
    })

    test('an address that is refused uses up nobody’s attempts', async () => {
      const { username } = await newUser()
      const address = newAddress()
      await times(LIMITS.perAddress, (i) =>
        expect(signIn(`guess${count}-${i}`, PASSWORD, address)).rejects.toMatchObject(wrong),
      )
      await times(LIMITS.perUser + 1, () =>
        expect(signIn(username, 'wrong one', address)).rejects.toMatchObject(limited),
      )
      await signIn(username)
    })

    test('a household’s IPv6 addresses are one, the neighbours’ are others', async () => {
      const { username } = await newUser()
      const network = `2001:db8:0:${++count}`
      await times(LIMITS.perAddress, (i) =>
        expect(signIn(`guess${count}-${i}`, PASSWORD, `${network}:${i}::1`)).rejects.toMatchObject(wrong),
      )
      await expect(signIn(username, PASSWORD, `${network}::ffff`)).rejects.toMatchObject(limited)
      await signIn(username, PASSWORD, `2001:db8:1:${count}::1`)
    })

    test('a right password was no attempt', async () => {
      const { username } = await newUser()
      const address = newAddress()
      await times(LIMITS.perUser - 1, () =>
        expect(signIn(username, 'wrong one', address)).rejects.toMatchObject(wrong),
      )
      await times(LIMITS.perAddress + 3, () => signIn(username, PASSWORD, address))
    })

    test('of many guesses at once no more than the limit are looked at', async () => {
      const { username } = await newUser()
      const all = await Promise.allSettled(
        Array.from({ length: 30 }, (_, i) => signIn(username, `wrong one ${i}`)),
      )
      const codes = all.map((one) => (one.status === 'rejected' ? one.reason.code : 'signed in'))
      expect(codes.filter((code) => code === 'unauthorized')).toHaveLength(LIMITS.perUser)
      expect(codes.filter((code) => code === 'rate_limited')).toHaveLength(30 - LIMITS.perUser)
    })

    test('who guesses at names holds up nobody’s change of password, nor their registration', async () => {
      const user = await newUser()
      const { tokens } = await signIn(user.username)
      const other = `user${++count}`
      for (const login of [`id:${user.id}`, `ID:${user.id}`, `new:${other}`, `NEW:${other}`, other])
        await times(LIMITS.perUser + 1, () => signIn(login).catch(() => {}))
      const headers = { authorization: `Bearer ${tokens.accessToken}` }
      const change = { current_password: PASSWORD, new_password: 'another horse' }
      expect((await api.call('POST', '/api/me/password', change, headers)).status).toBe(204)
      const account = { username: other, password: PASSWORD }
      expect((await api.call('POST', '/api/register', account)).status).toBe(201)
    })

    test('wrong guesses at the current password are counted', async () => {
      const user = await newUser()
      const { tokens } = await signIn(user.username)
      const headers = { authorization: `Bearer ${tokens.accessToken}` }
      const change = (current: string) =>
        api.call(
          'POST',
          '/api/me/password',
          { current_password: current, new_password: 'another horse' },
          headers,
        )
      await times(LIMITS.perUser, async () => expect((await change('wrong one')).status).toBe(401))
      const refused = await change(PASSWORD)
      expect(refused.status).toBe(429)
      expect(Number(refused.headers['retry-after'])).toBeGreaterThan(0)
    })

    test('after the window it may be tried again', async () => {
      const { username } = await newUser()
      await times(LIMITS.perUser, () => signIn(username, 'wrong one').catch(() => {}))
      await expect(signIn(username)).rejects.toMatchObject(limited)
      const later = performance.now() + 901_000
      vi.useFakeTimers({ toFake: ['performance'] }).advanceTimersByTime(later)
      try {
        await signIn(username)
      } finally {
        vi.useRealTimers()
      }
    })
  },
  { auth: { ...TEST_AUTH, mode: 'accounts', registration: true, loginLimits: LIMITS } },
)
