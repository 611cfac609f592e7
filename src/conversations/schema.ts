import { type Static, Type } from 'typebox'
import { JsonObject, Nullable, Text } from '../core/fields.ts'

/** The title of a conversation that has none yet. */
export const NEW_TITLE = 'New Conversation'
export const MAX_TITLE = 500

// Conversations are documents that council front ends and files on disk share: their fields are spelled as there, in the
// library too, and a field that is not known here is kept.
const open = { additionalProperties: true } as const

/** What each model answered, in the order in which they were asked. */
export const Stage1 = Type.Array(Type.Object({ model: Type.String(), response: Type.String() }, open))
export type Stage1 = Static<typeof Stage1>

/** How each model ranked the answers that it saw without names: best first. */
export const Stage2 = Type.Array(
  Type.Object(
    {
      model: Type.String(),
      ranking: Type.String({ description: 'What the model wrote.' }),
      parsed_ranking: Type.Array(Type.String(), { description: 'Labels such as `Response B`, best first.' }),
    },
    open,
  ),
)
export type Stage2 = Static<typeof Stage2>

/** The chairman's answer. */
export const Stage3 = Type.Object(
  {
    model: Type.String(),
    response: Type.String(),
    chairman: Type.Optional(
      Type.String({ description: 'Who was to write it, when that model gave no answer.' }),
    ),
    note: Type.Optional(Type.String({ description: 'The same as a sentence for people.' })),
  },
  open,
)
export type Stage3 = Static<typeof Stage3>

/** What one call of a model cost. */
export const ModelUsage = Type.Object(
  {
    model: Type.String(),
    stage: Type.Optional(Type.String({ description: 'stage1, stage2, stage3 or title' })),
    input_tokens: Type.Integer({ minimum: 0 }),
    output_tokens: Type.Integer({ minimum: 0 }),
    cost: Type.Optional(Type.Number({ description: 'In US dollars, where the provider says so.' })),
  },
  open,
)
export type ModelUsage = Static<typeof ModelUsage>

export const CouncilMetadata = Type.Object(
  {
    label_to_model: Type.Optional(
      Type.Record(Type.String(), Type.String(), { description: 'Which model `Response A` is of.' }),
    ),
    aggregate_rankings: Type.Optional(
      Type.Array(
        Type.Object(
          {
            model: Type.String(),
            average_rank: Type.Number({ description: '1 is best.' }),
            rankings_count: Type.Integer(),
          },
          open,
        ),
        { description: 'Best first.' },
      ),
    ),
    usage: Type.Optional(Type.Array(ModelUsage)),
    failures: Type.Optional(
      Type.Array(Type.Object({ model: Type.String(), stage: Type.String(), reason: Type.String() }, open), {
        description: 'Which models gave no answer in a stage.',
      }),
    ),
  },
  open,
)
export type CouncilMetadata = Static<typeof CouncilMetadata>

export const CouncilAnswer = Type.Object(
  { stage1: Stage1, stage2: Stage2, stage3: Stage3, metadata: Type.Optional(Nullable(CouncilMetadata)) },
  open,
)
/** The stages of one answer, as they are stored. */
export type CouncilAnswer = Static<typeof CouncilAnswer>

/** `{role: "user", content}`, or `{role: "assistant", stage1, stage2, stage3, metadata?}`; other fields are kept. */
export const CouncilMessage = JsonObject({ description: 'Of the user, or the stages of an answer.' })
export type CouncilMessage = { role?: unknown; content?: unknown } & Partial<CouncilAnswer> &
  Record<string, unknown>

/** A whole conversation, as a front end or a file has it. Fields that are not named here are kept. */
export const Conversation = Type.Object(
  {
    id: Type.String(),
    created_at: Type.String({ description: 'ISO 8601; UTC where it names no zone.' }),
    title: Type.String(),
    messages: Type.Array(CouncilMessage),
  },
  open,
)
export type Conversation = {
  id: string
  created_at: string
  title: string
  messages: CouncilMessage[]
  [field: string]: unknown
}

export const ConversationSummary = Type.Object({
  id: Type.String(),
  created_at: Type.String(),
  title: Type.String(),
  message_count: Type.Integer(),
})
export type ConversationSummary = Static<typeof ConversationSummary>

export const ConversationHit = Type.Object({
  ...ConversationSummary.properties,
  matches: Type.Array(
    Type.Object({
      position: Nullable(Type.Integer({ description: 'Of the message, from 0; null: the title.' })),
      role: Nullable(Type.String()),
      snippet: Type.String({ description: 'Plain text around the match.' }),
    }),
    { description: 'The first ones, three at most.' },
  ),
})
export type ConversationHit = Static<typeof ConversationHit>

export const ConversationTitle = Text(MAX_TITLE, { minLength: 1 })

export const CONVERSATION_FORMATS = ['markdown', 'json'] as const
export type ConversationFormat = (typeof CONVERSATION_FORMATS)[number]
