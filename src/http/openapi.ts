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
        { name: 'search', description: 'What was said, by words and by meaning.' },
        { name: 'messages', description: 'What was said, in the order of `seq`.' },
        {
          name: 'config',
          description: 'Model configuration of a thread over the defaults of this installation.',
        },
        { name: 'conversations', description: 'Questions to a council of models, and its answers.' },
        { name: 'artifacts', description: 'Files of threads: what agents make and users add.' },
        { name: 'files', description: 'Files of a user outside threads.' },
        { name: 'sessions', description: 'Sessions of chain analysis, and what they came to.' },
        { name: 'session', description: 'Signing in and out, and the own account.' },
        { name: 'api keys', description: 'Keys for programs.' },
        { name: 'secrets', description: 'Keys for the providers of models, and variables, kept encrypted.' },
        { name: 'usage', description: 'How much a user asks, and may ask; tokens and costs.' },
        { name: 'admin', description: 'For superusers: users, what is theirs, and the audit log.' },
        { name: 'service', description: 'Is it up, is it ready.' },
      ],
      components: {
        securitySchemes: {
          bearer: { type: 'http', scheme: 'bearer', description: 'An access token or an API key.' },
          apiKey: { type: 'apiKey', in: 'header', name: 'x-api-key' },
          cookie: {
            type: 'apiKey',
            in: 'cookie',
            name: '__Host-threadbase_access',
            description: 'Set by a sign-in from a browser. Changes need the header x-csrf-token, too.',
          },
        },
      },
    },
    transformObject: (document) => {
      if (!('openapiObject' in document)) throw new Error('this is not OpenAPI 3')
      return markOptionalBodies(document.openapiObject)
    },
    refResolver: { buildLocalReference: (json, _base, _fragment, i) => String(json.$id ?? `Schema${i}`) },
  })
  await app.register(swaggerUi, {
    routePrefix: '/docs',
    staticCSP: true,
    // on a plain http address other than loopback, browsers would look for the page's parts over https
    transformStaticCSP: (policy) => policy.replace(/ ?upgrade-insecure-requests;?/, ''),
  })
  app.get('/openapi.json', { schema: { hide: true } }, () => app.swagger())
}

type Body = { required?: boolean; content?: Record<string, { schema?: object }> }
type Operations = Record<string, { requestBody?: Body } | undefined>

/** A body with no required field may be left out, and the document must say so; the plugin marks every body required. */
function markOptionalBodies<T extends { paths?: object }>(document: T): T {
  for (const operations of Object.values(document.paths ?? {}) as Operations[]) {
    for (const operation of Object.values(operations)) {
      const body = operation?.requestBody
      const schema = (body?.content?.['application/json']?.schema ?? {}) as Record<string, unknown>
      if (body === undefined || schema.type !== 'object') continue
      body.required = schema.required !== undefined || schema.minProperties !== undefined
    }
  }
  return document
}
