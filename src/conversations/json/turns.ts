import { ThreadbaseError } from '../../core/errors.ts'
import { requireUuid } from '../../core/ids.ts'
import { parseJson } from '../../core/json.ts'
import type { Scope } from '../../core/scope.ts'
import { removeDurably, writeAtomically } from '../../files/atomic.ts'
import { answerMessage, asJson, questionOf, turnConflict } from '../checks.ts'
import type { Conversation, CouncilMessage } from '../schema.ts'
import type { Turn, TurnStore } from '../store.ts'
import { readObject, writeDocument } from './document.ts'
import type { Spot } from './places.ts'

/** `.ID.turn` beside the conversation: whose the turn is, until when, and which message it answers. */
type TurnFile = { holder: string | null; lease_until: string; position: number; turn: Turn }

/** A conversation whose lock is held. */
export type Held = {
  spot: Spot
  conversation: Conversation
  /** @returns the conversation with the message */
  append: (message: CouncilMessage) => Promise<Conversation>
}
type WithLock = <T>(scope: Scope, id: string, work: (held: Held) => Promise<T>) => Promise<T>

export function createTurns(withLock: WithLock): TurnStore {
  return {
    begin(scope, id, { content, holder: givenHolder, leaseS }) {
      const question = questionOf(content)
      const [holder, lease] = [requireUuid(givenHolder, 'holder'), leaseFrom(leaseS)]
      return withLock(scope, id, async ({ spot, conversation, append }) => {
        const { messages } = conversation
        const known = await readTurn(spot)
        if (known !== undefined && !isOver(known, messages) && !isFree(known, holder)) throw turnConflict(id)
        const newest = messages.at(-1)
        const resumed = newest?.role === 'user' && newest.content === content
        const asked = resumed ? conversation : await append(question)
        const position = asked.messages.length - 1
        const goesOn = resumed && known?.position === position && known.turn.content === content
        const turn = goesOn ? known.turn : { content }
        await writeTurn(spot, { holder, lease_until: lease(), position, turn })
        return { turn, first: position === 0, resumed }
      })
    },

    async save(scope, id, givenHolder, turn, leaseS) {
      const [holder, lease] = [requireUuid(givenHolder, 'holder'), leaseFrom(leaseS)]
      const stored = asJson(turn)
      await withLock(scope, id, async ({ spot }) => {
        const { position } = await requireOwn(spot, id, holder)
        await writeTurn(spot, { holder, lease_until: lease(), position, turn: stored })
      })
    },

    async finish(scope, id, givenHolder, answer) {
      const holder = requireUuid(givenHolder, 'holder')
      const message = answerMessage(answer)
      return withLock(scope, id, async ({ spot, append }) => {
        await requireOwn(spot, id, holder)
        await append(message)
        // a turn that stays is over all the same: its question has an answer
        await removeDurably(spot.turn).catch(() => {})
        return message
      })
    },

    async release(scope, id, givenHolder) {
      const holder = requireUuid(givenHolder, 'holder')
      const giveUp = withLock(scope, id, async ({ spot }) => {
        const known = await readTurn(spot)
        if (known?.holder === holder) await writeTurn(spot, { ...known, holder: null })
      })
      await giveUp.catch((error) => {
        if (!(error instanceof ThreadbaseError && error.code === 'not_found')) throw error
      })
    },
  }
}

async function requireOwn(spot: Spot, id: string, holder: string): Promise<TurnFile> {
  const known = await readTurn(spot)
  if (known?.holder === holder) return known
  throw turnConflict(id)
}

const isFree = ({ holder, lease_until }: TurnFile, to: string) =>
  holder === null || holder === to || !(Date.parse(lease_until) > Date.now())

/** Whether its question was answered: whoever answered it ended before the turn was removed. */
const isOver = ({ position }: TurnFile, messages: CouncilMessage[]) =>
  messages.slice(position + 1).some((message) => message?.role === 'assistant')

function leaseFrom(leaseS: unknown): () => string {
  if (typeof leaseS === 'number' && leaseS >= 0 && leaseS <= 86_400)
    return () => new Date(Date.now() + leaseS * 1_000).toISOString()
  throw new ThreadbaseError('invalid_input', 'leaseS must be a number from 0 to 86400', { field: 'leaseS' })
}

/** Undefined when there is none, and for what is no turn: then the stages are asked again. */
async function readTurn(spot: Spot): Promise<TurnFile | undefined> {
  const read = await readObject(spot.turn, 'turn', parseJson).catch((error) => {
    if (error instanceof ThreadbaseError) return undefined
    throw error
  })
  const file = read?.value as Partial<TurnFile> | undefined
  const isTurn = typeof file?.turn?.content === 'string' && Number.isInteger(file.position)
  return isTurn ? (file as TurnFile) : undefined
}

async function writeTurn(spot: Spot, file: TurnFile): Promise<void> {
  await writeAtomically(spot.turn, writeDocument(file))
}
