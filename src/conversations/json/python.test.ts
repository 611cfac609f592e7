import { mkdir, mkdtemp, readdir, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { answerOf } from '../../../test/conversation-stores.ts'
import { recordingLog } from '../../../test/harness.ts'
import { hasPython, python } from '../../../test/python.ts'
import type { ConversationStore } from '../store.ts'
import { openJsonConversations } from './store.ts'

// as councils in Python keep conversations: plain functions on files, without locks
const COUNCIL = `
import json, os
from datetime import datetime
def path_of(d, cid): return os.path.join(d, cid + ".json")
def save(d, conversation):
    os.makedirs(d, exist_ok=True)
    with open(path_of(d, conversation["id"]), "w") as f: json.dump(conversation, f, indent=2)
def load(d, cid):
    with open(path_of(d, cid), "r") as f: return json.load(f)
def list_all(d):
    found = [load(d, name[:-5]) for name in os.listdir(d) if name.endswith(".json")]
    found = [{"id": c["id"], "created_at": c["created_at"], "title": c.get("title"), "message_count": len(c["messages"])} for c in found]
    return sorted(found, key=lambda c: c["created_at"], reverse=True)
def append(d, cid, message):
    c = load(d, cid); c["messages"].append(message); save(d, c)
def create(d, cid, **others):
    save(d, {"id": cid, "created_at": datetime.utcnow().isoformat(), "title": "New Conversation", "messages": [], **others})
d = sys.argv[1]
`

describe.skipIf(!hasPython)('a folder that a council in Python uses, too', () => {
  const local = { userId: 'local' }
  let dir: string
  let store: ConversationStore
  beforeEach(async () => {
    dir = await mkdtemp(join(tmpdir(), 'threadbase-test-'))
    store = await openJsonConversations({ dir, log: recordingLog().log })
  })
  afterEach(() => rm(dir, { recursive: true, force: true }))
  const council = (code: string, ...path: string[]) => python(`${COUNCIL}${code}`, join(dir, ...path))

  test('what it wrote is read as it is, in all layouts', async () => {
    const answer = JSON.stringify(JSON.stringify(answerOf('ünï 😀')))
    const write = `
create(d, "a", user_id="fire_1")
append(d, "a", {"role": "user", "content": "h\\u00e9llo \\ud83d\\ude00 \\x00 \\ud800 é😀"})
answer = json.loads(${answer}); answer.pop("metadata")
append(d, "a", {"role": "assistant", **answer})
print(json.dumps(load(d, "a")))`
    for (const path of [['conversations'], ['conversations', 'fire_1'], ['fire_1']]) {
      await rm(dir, { recursive: true })
      await mkdir(dir)
      const wrote = JSON.parse(council(write, ...path))
      const scope = { userId: 'fire_1' }
      const read = await store.getConversation(scope, 'a')
      expect(read).toEqual(wrote)
      expect(read.created_at).toMatch(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}$/)
      expect(await store.listConversations(scope)).toEqual([
        { id: 'a', created_at: wrote.created_at, title: 'New Conversation', message_count: 2 },
      ])
    }
  })

  test('what we write is read as it is, byte for byte as it would write it', async () => {
    const { id } = await store.createConversation(local)
    await store.addUserMessage(local, id, 'héllo 😀 \0 \ud800 \u2028 \u007f "q" \\ / \b')
    await store.addAssistantMessage(local, id, answerOf('ünï'))
    await store.updateConversationTitle(local, id, 'Тест')
    const holder = '0192f0c1-2f6b-7cc0-8d2e-5f0a6d2f4b11'
    await store.turns.begin(local, id, { content: 'next', holder, leaseS: 60 })
    const conversations = join(dir, 'conversations')
    expect(JSON.parse(council(`print(json.dumps(list_all(d)))`, 'conversations'))).toEqual(
      await store.listConversations(local),
    )
    expect(JSON.parse(council(`print(json.dumps(load(d, "${id}")))`, 'conversations'))).toEqual(
      await store.getConversation(local, id),
    )
    const path = join(conversations, `${id}.json`)
    const ours = await readFile(path, 'utf8')
    council(`save(d, load(d, "${id}"))`, 'conversations')
    expect(await readFile(path, 'utf8')).toBe(ours)
    expect((await readdir(conversations)).sort()).toEqual([`.${id}.turn`, `${id}.json`])
  })

  test('both append in turn', async () => {
    council('create(d, "a")', 'conversations')
    for (let i = 0; i < 3; i++) {
      await store.addUserMessage(local, 'a', `ours ${i}`)
      council(`append(d, "a", {"role": "user", "content": "theirs ${i}"})`, 'conversations')
      expect(await store.listConversations(local)).toMatchObject([{ id: 'a', message_count: 2 * i + 2 }])
    }
    expect((await store.getConversation(local, 'a')).messages.map(({ content }) => content)).toEqual(
      [0, 1, 2].flatMap((i) => [`ours ${i}`, `theirs ${i}`]),
    )
  })

  test('new ones of both sort by their times', async () => {
    council('create(d, "a")', 'conversations')
    await store.createConversation(local, 'b')
    council('create(d, "c")', 'conversations')
    const ids = (await store.listConversations(local)).map(({ id }) => id)
    expect(ids).toEqual(['c', 'b', 'a'])
    expect(JSON.parse(council(`print(json.dumps([c["id"] for c in list_all(d)]))`, 'conversations'))).toEqual(
      ids,
    )
  })
})
