import swagger from '@fastify/swagger'
import swaggerUi from '@fastify/swagger-ui'
import type { FastifyInstance } from 'fastify'
import { VERSION } from '../version.ts'

/** `/openapi.json`, made from the routes' own schemas, and `/docs`, which shows it. Before the routes. */
export async function registerOpenApi(app: FastifyInstance): Promise<void> {
  await app.register(swagger, {
    openapi: {
      openapi: '3.1.0',
      info: {
        title: 'Threadbase',
        version: VERSION,
        description:
          'Threads, messages and their configuration. Lists page by keyset: pass `next_cursor` of one page as `cursor` of the next; null means there is no more.',
      },
      tags: [
        { name: 'threads', description: 'Conversations.' },
        { name: 'messages', description: 'What was said, in the order of `seq`.' },
        {
          name: 'config',
          description: 'Model configuration of a thread over the defaults of this installation.',
        },
        { name: 'service', description: 'Is it up, is it ready.' },
      ],
    },
    refResolver: { buildLocalReference: (json, _base, _fragment, i) => String(json.$id ?? `Schema${i}`) },
  })
  await app.register(swaggerUi, { routePrefix: '/docs', staticCSP: true })
  app.get('/openapi.json', { schema: { hide: true } }, () => app.swagger())
}
