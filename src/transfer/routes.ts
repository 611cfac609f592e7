import { Readable } from 'node:stream'
import type { FastifyInstance } from 'fastify'
import { Type } from 'typebox'
import { closed, Uuid } from '../core/fields.ts'
import { routeSchema } from '../core/http-shapes.ts'
import { EXPORT_FORMATS, type ExportFormat } from './schema.ts'
import type { TransferService } from './service.ts'

const FILES = {
  jsonl: { type: 'application/x-ndjson; charset=utf-8', extension: 'jsonl' },
  markdown: { type: 'text/markdown; charset=utf-8', extension: 'md' },
} as const satisfies Record<ExportFormat, unknown>

const ExportQuery = Type.Object(
  {
    format: Type.Optional(
      Type.Enum([...EXPORT_FORMATS], {
        default: 'jsonl',
        description: '`jsonl`: chat JSON Lines, as an import takes them. `markdown`: for reading.',
      }),
    ),
    thread_id: Type.Optional(Uuid({ description: 'Only this thread. Default: all, archived ones too.' })),
  },
  closed,
)

const FileText = Type.String({ description: 'One thread after another, the oldest first.' })

/** `/api/export`: conversations out of the store as one file. */
export function transferRoutes(app: FastifyInstance, transfer: TransferService): void {
  app.get<{ Querystring: { format?: ExportFormat; thread_id?: string } }>(
    '/api/export',
    {
      config: { stream: true },
      // it would read everything to send nothing
      exposeHeadRoute: false,
      schema: routeSchema({
        operationId: 'exportThreads',
        tags: ['threads'],
        summary: 'Download conversations as one file',
        description:
          'A stream without a length: it is whole when the connection ends it properly, and an error in the middle breaks the connection off. Of a thread with branches: the path to its newest message.',
        querystring: ExportQuery,
        response: {
          200: {
            description: 'The file.',
            content: {
              'application/x-ndjson': { schema: FileText },
              'text/markdown': { schema: FileText },
            },
          },
        },
      }),
    },
    async (request, reply) => {
      const { format = 'jsonl', thread_id: threadId } = request.query
      const pieces = transfer.export(request.scope, { format, threadId })
      // what can be refused is refused with the first piece, before anything is sent
      const first = await pieces.next()
      const { type, extension } = FILES[format]
      const name = threadId === undefined ? 'threads' : `thread-${threadId.toLowerCase()}`
      return reply
        .type(type)
        .header('content-disposition', `attachment; filename="${name}.${extension}"`)
        .send(Readable.from(withFirst(first, pieces)))
    },
  )
}

async function* withFirst(
  first: IteratorResult<string>,
  rest: AsyncGenerator<string>,
): AsyncGenerator<string> {
  if (first.done === true) return
  yield first.value
  yield* rest
}
