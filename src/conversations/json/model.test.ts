import { mkdir, rm, unlink, writeFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import fc from 'fast-check'
import { expect, test } from 'vitest'
import { anyText } from '../../../test/arbitraries.ts'
import { answerOf } from '../../../test/conversation-stores.ts'
import { makeTempDir, recordingLog } from '../../../test/harness.ts'
import { isThreadbaseError } from '../../core/errors.ts'
import type { Conversation } from '../schema.ts'
import type { ConversationStore } from '../store.ts'
import { openJsonConversations } from './store.ts'

const USERS = ['local', 'u1']
const IDS = ['a', 'b', 'B']

/** What a store should have, by user and id. */
type Model = Map<string, Conversation>
type World = { store: ConversationStore; dir: string; model: Model }
type Step = { name: string; run: (world: World) => Promise<void> }

const keyOf = (userId: string, id: string) => `${userId} ${id}`
const outcomeOf = (work: Promise<unknown>) =>
  work.then(
    () => 'done',
    (error) => (isThreadbaseError(error) ? error.code : String(error)),
  )

/** A step for a user and an id, with a text. */
const step = (
  name: string,
  run: (world: World, userId: string, id: string, text: string) => Promise<void>,
): fc.Arbitrary<Step> =>
  fc.tuple(fc.constantFrom(...USERS), fc.constantFrom(...IDS), anyText).map(([userId, id, text]) => ({
    name: `${name} ${userId} ${id} ${JSON.stringify(text)}`,
    run: (world) => run(world, userId, id, text),
  }))

/** Changes the model where the conversation is there; else it is not found. */
const change = (
  name: string,
  act: (store: ConversationStore, userId: string, id: string, text: string) => Promise<unknown>,
  applied: (conversation: Conversation, text: string) => Conversation,
) =>
  step(name, async ({ store, model }, userId, id, text) => {
    const known = model.get(keyOf(userId, id))
    expect(await outcomeOf(act(store, userId, id, text))).toBe(known === undefined ? 'not_found' : 'done')
    if (known !== undefined) model.set(keyOf(userId, id), applied(known, text))
  })

const created = (i: number) => `2026-01-01T00:00:00.${String(i % 1_000).padStart(3, '0')}+00:00`
const titleOf = (text: string) => text.toWellFormed().replaceAll('\0', '') || 'x'

const steps: fc.Arbitrary<Step> = fc.oneof(
  step('create', async ({ store, model }, userId, id) => {
    const work = store.createConversation({ userId }, id)
    expect(await outcomeOf(work)).toBe(model.has(keyOf(userId, id)) ? 'conflict' : 'done')
    if (!model.has(keyOf(userId, id))) model.set(keyOf(userId, id), await work)
  }),
  step('save', async ({ store, model }, userId, id, text) => {
    const wanted = {
      id,
      created_at: created(text.length),
      title: text,
      messages: [{ role: 'user', content: text }],
      [text]: 1,
    }
    // a field of this very name
    const document = { ...wanted, id, messages: wanted.messages } as Conversation
    await store.saveConversation({ userId }, document)
    model.set(keyOf(userId, id), document)
  }),
  change(
    'ask',
    (store, userId, id, text) => store.addUserMessage({ userId }, id, text),
    (known, content) => ({ ...known, messages: [...known.messages, { role: 'user', content }] }),
  ),
  change(
    'answer',
    (store, userId, id, text) => store.addAssistantMessage({ userId }, id, answerOf(text)),
    (known, text) => ({ ...known, messages: [...known.messages, { role: 'assistant', ...answerOf(text) }] }),
  ),
  change(
    'title',
    (store, userId, id, text) => store.updateConversationTitle({ userId }, id, titleOf(text)),
    (known, text) => ({ ...known, title: titleOf(text) }),
  ),
  step('delete', async ({ store, model }, userId, id) => {
    expect(await store.deleteConversation({ userId }, id)).toBe(model.delete(keyOf(userId, id)))
  }),
  // somebody else, who writes and removes files of u1
  step('write', async ({ dir, model }, _userId, id, text) => {
    const document = {
      title: text,
      id,
      created_at: created(text.length),
      messages: [{ role: 'user', content: text }],
    }
    const path = join(dir, 'conversations', 'u1', `${id}.json`)
    await mkdir(dirname(path), { recursive: true })
    await writeFile(path, JSON.stringify(document))
    model.set(keyOf('u1', id), document)
  }),
  step('remove', async ({ dir, model }, _userId, id) => {
    await unlink(join(dir, 'conversations', 'u1', `${id}.json`)).catch(() => {})
    model.delete(keyOf('u1', id))
  }),
)

async function check({ store, model }: World): Promise<void> {
  for (const userId of USERS) {
    const own = IDS.flatMap((id) => model.get(keyOf(userId, id)) ?? [])
    for (const id of IDS)
      expect(await store.findConversation({ userId }, id)).toEqual(model.get(keyOf(userId, id)))
    const order = own.toSorted((a, b) => {
      const [x, y] = [Date.parse(a.created_at), Date.parse(b.created_at)]
      return x === y ? (a.id < b.id ? 1 : -1) : y - x
    })
    expect(await store.listConversations({ userId })).toEqual(
      order.map(({ id, created_at, title, messages }) => ({
        id,
        created_at,
        title,
        message_count: messages.length,
      })),
    )
  }
}

test('any steps of ours and of others leave what they should', async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(steps, { maxLength: 25 }), async (all) => {
      const dir = await makeTempDir()
      try {
        const store = await openJsonConversations({ dir, log: recordingLog().log })
        const world = { store, dir, model: new Map() }
        for (const one of all) {
          await one.run(world)
          await check(world)
        }
        // another process sees the same
        await check({ ...world, store: await openJsonConversations({ dir, log: recordingLog().log }) })
      } finally {
        await rm(dir, { recursive: true, force: true })
      }
    }),
    { numRuns: 25 },
  )
}, 60_000)
