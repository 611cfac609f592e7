import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest'
import { newRedisPrefix, recordingLog, redisUrl } from '../../test/harness.ts'
import type { Bus } from './bus.ts'
import { createLocalBus } from './local.ts'
import { openRedisBus } from './redis.ts'

type Opened = { bus: Bus; logged: ReturnType<typeof recordingLog>['logged'] }
const prefix = newRedisPrefix()

async function openRedis(): Promise<Opened> {
  const { log, logged } = recordingLog()
  return { bus: await openRedisBus({ url: redisUrl as string, prefix, log }), logged }
}
async function openLocal(): Promise<Opened> {
  const { log, logged } = recordingLog()
  return { bus: createLocalBus(log), logged }
}
const engines: [name: Bus['engine'], available: boolean, open: () => Promise<Opened>][] = [
  ['local', true, openLocal],
  ['redis', redisUrl !== null, openRedis],
]

/** What a subscription was told; `reaches` waits for as many messages. */
async function listen(bus: Bus, channel: string) {
  const messages: string[] = []
  const end = await bus.subscribe(channel, (message) => void messages.push(message))
  const reaches = async (count: number) => {
    await vi.waitFor(() => expect(messages.length).toBeGreaterThanOrEqual(count), { timeout: 10_000 })
    return messages
  }
  return { messages, end, reaches }
}

for (const [engine, available, open] of engines) {
  describe.skipIf(!available)(`the wake-up port on ${engine}`, () => {
    let opened: Opened
    let bus: Bus
    let channels = 0
    const newChannel = () => `channel-${engine}-${++channels}`
    beforeAll(async () => {
      opened = await open()
      bus = opened.bus
    })
    afterAll(() => bus?.close())

    test('says what it is, and is connected', () => {
      expect(bus.engine).toBe(engine)
      expect(bus.shared).toBe(engine === 'redis')
      expect(bus.description).toMatch(
        engine === 'local' ? /^in this process$/ : /^Redis at [\w.]+:\d+(\/\d+)?$/,
      )
      expect(bus.connected()).toBe(true)
    })

    test('tells every subscriber of the channel, those of this process too, and no other', async () => {
      const [channel, other] = [newChannel(), newChannel()]
      const [first, second, stranger] = await Promise.all([
        listen(bus, channel),
        listen(bus, channel),
        listen(bus, other),
      ])
      await bus.publish(channel, 'hello')
      await bus.publish(other, 'end')
      expect(await first.reaches(1)).toEqual(['hello'])
      expect(await second.reaches(1)).toEqual(['hello'])
      expect(await stranger.reaches(1)).toEqual(['end'])
    })

    test('publishing where nobody listens is no error', async () => {
      await bus.publish(newChannel(), 'anyone?')
    })

    test('keeps the order of 500 messages', async () => {
      const channel = newChannel()
      const { reaches } = await listen(bus, channel)
      const sent = Array.from({ length: 500 }, (_, n) => `message ${n}`)
      await Promise.all(sent.map((message) => bus.publish(channel, message)))
      expect(await reaches(500)).toEqual(sent)
    })

    test('whoever has ended hears nothing more, and ends nobody else', async () => {
      const channel = newChannel()
      const [first, second] = [await listen(bus, channel), await listen(bus, channel)]
      await first.end()
      await first.end()
      await bus.publish(channel, 'one')
      expect(await second.reaches(1)).toEqual(['one'])
      expect(first.messages).toEqual([])
      await second.end()
      const third = await listen(bus, channel)
      await bus.publish(channel, 'two')
      expect(await third.reaches(1)).toEqual(['two'])
      expect(second.messages).toEqual(['one'])
    })

    test('ending and listening again in one breath leaves the new one listening', async () => {
      const channel = newChannel()
      const first = await listen(bus, channel)
      const [, second] = await Promise.all([first.end(), listen(bus, channel)])
      await bus.publish(channel, 'hello')
      expect(await second.reaches(1)).toEqual(['hello'])
    })

    test('one function may listen twice', async () => {
      const channel = newChannel()
      const messages: string[] = []
      const onMessage = (message: string) => void messages.push(message)
      const [end] = [await bus.subscribe(channel, onMessage), await bus.subscribe(channel, onMessage)]
      await bus.publish(channel, 'a')
      await vi.waitFor(() => expect(messages).toEqual(['a', 'a']))
      await end()
      await bus.publish(channel, 'b')
      await vi.waitFor(() => expect(messages).toEqual(['a', 'a', 'b']))
    })

    test.each([
      ['empty', '', ''],
      ['Unicode', 'kanal 😀 鍵', 'wert 😀\u0301'],
      ['NUL and line ends', 'a\0b\r\nc', '\0\r\n$1\r\n'],
      ['a glob', 'a*[b]?', '*'],
      ['1 MB', 'c'.repeat(1_000), 'm'.repeat(1_000_000)],
    ])('channels and messages that are odd: %s', async (_, channel, message) => {
      const { reaches, end } = await listen(bus, channel)
      await bus.publish(`${channel} `, 'not for us')
      await bus.publish(channel, message)
      expect(await reaches(1)).toEqual([message])
      await end()
    })

    test('a lone surrogate is U+FFFD', async () => {
      const { reaches } = await listen(bus, `lone \ud800 ${engine}`)
      await bus.publish(`lone \udbff ${engine}`, 'message \udfff')
      expect(await reaches(1)).toEqual(['message \ufffd'])
    })

    test('a listener that throws is logged and keeps no message from others', async () => {
      const channel = newChannel()
      await bus.subscribe(channel, () => {
        throw new Error('broken listener')
      })
      const { reaches } = await listen(bus, channel)
      await bus.publish(channel, 'hello')
      expect(await reaches(1)).toEqual(['hello'])
      expect(opened.logged).toContainEqual(expect.objectContaining({ level: 'error' }))
    })

    test('after close nothing is heard or published, and it is not connected', async () => {
      const { bus: other } = await open()
      const channel = newChannel()
      const { messages, end } = await listen(other, channel)
      const { reaches } = await listen(bus, channel)
      await other.close()
      await other.close()
      expect(other.connected()).toBe(false)
      await expect(other.publish(channel, 'x')).rejects.toMatchObject({ code: 'unavailable' })
      await expect(other.subscribe(channel, () => {})).rejects.toMatchObject({ code: 'unavailable' })
      await bus.publish(channel, 'still here')
      await reaches(1)
      expect(messages).toEqual([])
      await end()
    })

    test('two instances hear each other when, and only when, the bus is shared', async () => {
      const { bus: other } = await open()
      const channel = newChannel()
      const [here, there] = [await listen(bus, channel), await listen(other, channel)]
      await bus.publish(channel, 'from here')
      await here.reaches(1)
      await other.publish(channel, 'from there')
      const both = ['from here', 'from there']
      expect(await there.reaches(bus.shared ? 2 : 1)).toEqual(bus.shared ? both : ['from there'])
      expect(await here.reaches(bus.shared ? 2 : 1)).toEqual(bus.shared ? both : ['from here'])
      await other.close()
    })
  })
}
