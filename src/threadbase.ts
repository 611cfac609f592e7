import {
  type AnalysisService,
  createAnalysisService,
  createSessionService,
  type SessionService,
} from './analyses/service.ts'
import {
  type ArtifactService,
  type BlobUpkeep,
  createArtifactService,
  createBlobUpkeep,
  createFileService,
  createKeeper,
  type FileService,
} from './artifacts/service.ts'
import { type AuditService, createAuditService } from './audit/service.ts'
import type { Blobs } from './blobs/blobs.ts'
import type { Bus } from './bus/bus.ts'
import type { Cache } from './cache/cache.ts'
import { createLimiter, type Limiter } from './cache/limiter.ts'
import {
  type CheckpointOptions,
  type CheckpointService,
  createCheckpointService,
  type ThreadbaseSaver,
} from './checkpoints/service.ts'
import {
  createDocumentService,
  createStoreService,
  type DocumentService,
  type StoreServiceOptions,
  type ThreadbaseStore,
} from './checkpoints/store/service.ts'
import type { Config } from './config.ts'
import { type ConfigService, createConfigService } from './configs/service.ts'
import { type ConversationMove, createConversationMove } from './conversations/move/service.ts'
import { type ConversationStore, type Council, createCouncil } from './conversations/service.ts'
import type { KeySource } from './core/key-ring.ts'
import type { Logger } from './core/log.ts'
import {
  type CredentialService,
  createCredentialService,
  type VariableService,
} from './credentials/service.ts'
import type { Database } from './db/database.ts'
import type { Embedder } from './embeddings/embedder.ts'
import { createGdprService, type GdprService } from './gdpr/service.ts'
import { createIdentityService, type IdentityService } from './identity/service.ts'
import { createMessageService, type MessageService } from './messages/service.ts'
import { openConversationStores } from './open-conversations.ts'
import {
  createEmbeddingService,
  type EmbeddingOptions,
  type EmbeddingService,
} from './search/embed/service.ts'
import { createSearchService, createTrigramFinder, type SearchService } from './search/service.ts'
import { createVectors } from './search/vectors/service.ts'
import { createThreadService, type ThreadService } from './threads/service.ts'
import { createTransferService, type TransferService } from './transfer/service.ts'
import type { UsageService } from './usage/service.ts'

export type Threadbase = AsyncDisposable & {
  readonly threads: ThreadService
  readonly messages: MessageService
  readonly configs: ConfigService
  /** Conversations of councils: questions with the answers of several models. */
  readonly conversations: ConversationStore
  /** Answers the questions of conversations by several models. */
  readonly council: Council
  /** Files of threads: what agents make and users add. */
  readonly artifacts: ArtifactService
  /** Files of a user outside threads. */
  readonly files: FileService
  /** Keeps stored bytes and database in step: removes what nobody names, finds what is missing or corrupt. */
  readonly upkeep: BlobUpkeep
  /** LangGraph's checkpointer for any user: `configurable.user_id` says for whom. */
  readonly checkpointer: ThreadbaseSaver
  /** LangGraph's long-term memory for any user: the call says for whom, or the node that makes it. A run takes `forUser(id).store`. */
  readonly store: ThreadbaseStore
  /** Texts with vectors that the application made of them, in collections; LangChain's vector stores are on it. */
  readonly documents: DocumentService
  /** Gives messages and results of sessions what search by meaning needs, in the background. */
  readonly embeddings: EmbeddingService
  /** Import and export of conversations. */
  readonly transfer: TransferService
  /** Council conversations and usage from folders of JSON files, and back. */
  readonly conversationMove: ConversationMove
  /** Users, their API keys and sign-ins, and who is behind a credential. */
  readonly identity: IdentityService
  /** The keys that users bring for the providers of models, encrypted. */
  readonly credentials: CredentialService
  /** Named secrets and settings of users, encrypted. */
  readonly variables: VariableService
  /** How much each user asks, and may ask; tokens and costs. */
  readonly usage: UsageService
  /** Finds messages and results of sessions by their words and by what they mean. */
  readonly search: SearchService
  /** Sessions of chain analysis: threads of that kind. */
  readonly sessions: SessionService
  /** What sessions came to, one result each, in versions. */
  readonly analyses: AnalysisService
  /** Who did what to which record. */
  readonly audit: AuditService
  /** Hands over what is stored of a user, and erases it. */
  readonly gdpr: GdprService
  /** The SQL port below the services. */
  readonly database: Database
  /** The bytes port: bytes by their SHA-256. */
  readonly blobs: Blobs
  /** The cache port: what may be forgotten, and counters. */
  readonly cache: Cache
  /** The wake-up port: messages between processes. */
  readonly bus: Bus
  /** Limits on how often something may be done, counted in the cache. */
  readonly limiter: Limiter
  /** What is one user's, whatever a config says. @throws invalid_input for an id that cannot be one */
  forUser(userId: string): ForUser
  /** Lets running statements finish, then closes every connection and file. */
  close(): Promise<void>
}

export type ForUser = {
  /** LangGraph's checkpointer, for the threads of this user. */
  readonly checkpointer: ThreadbaseSaver
  /** LangGraph's long-term memory of this user. */
  readonly store: ThreadbaseStore
}

/** What the services stand on beside the database. */
export type Ports = Pick<Threadbase, 'blobs' | 'cache' | 'bus'>

export const closePorts = ({ blobs, cache, bus }: Ports) =>
  Promise.all([bus.close(), cache.close(), blobs.close()])

type LangGraphOptions = {
  checkpoints?: CheckpointOptions | undefined
  store?: StoreServiceOptions | undefined
}
export type ServiceOptions = Pick<Config, 'defaults' | 'auth' | 'uploadLimitBytes' | 'council' | 'usage'> & {
  /** Of JSON files, where there is no database. */
  jsonDir?: string | undefined
  log: Logger
  /** What credentials and variables are encrypted with. */
  keys: KeySource
  /** Of vectors. Default: there is none, and no search by meaning. */
  embedder?: Embedder | undefined
  vectors?: { probes: number | undefined }
  embedding?: EmbeddingOptions
  /** Whether texts are embedded here, in the background. Default false. */
  background?: boolean
} & LangGraphOptions

/** The services on a database that is open and migrated; closing them closes what they were given. */
export async function createThreadbase(
  database: Database,
  options: ServiceOptions,
  ports: Ports,
): Promise<Threadbase> {
  const { blobs, cache, bus } = ports
  const { defaults, auth, log, keys, checkpoints: checkpointOptions, store: storeOptions = {} } = options
  const { parallelism: lanes } = database
  const threads = createThreadService(database)
  const { embedder } = options
  const vectors = createVectors(database, options.vectors ?? { probes: undefined })
  const innerEmbeddings = createEmbeddingService({ database, vectors, embedder, log }, options.embedding)
  const { start, wake, close: closeEmbeddings, ...embeddings } = innerEmbeddings
  const innerMessages = createMessageService(database, { lanes, onAppend: (rows) => wake('message', rows) })
  const { appendIn: _, appended: __, ...messages } = innerMessages
  const keeper = createKeeper(database.db, blobs)
  const limits = { maxBytes: options.uploadLimitBytes }
  const checkpoints: CheckpointService = createCheckpointService(database, checkpointOptions)
  const stores = createStoreService(database, storeOptions, log)
  const audit = createAuditService(database.db)
  const limiter = createLimiter(cache, log)
  const identity = await createIdentityService({ database, cache, bus, limiter, audit, log }, auth)
  const { conversations, usage } = await openConversationStores(database, options.jsonDir, {
    ...{ threads, messages: innerMessages, audit, log },
    settings: options.usage,
  })
  const { credentials, variables } = createCredentialService(database, { audit, keys })
  const council = createCouncil({
    conversations,
    usage,
    // users' keys are rows
    credentials: database.engine === 'none' ? undefined : credentials,
    log,
    settings: options.council,
  })
  const close = async () => {
    await council.close()
    // what it still has to write needs the database
    await identity.close()
    await conversations.close()
    await closeEmbeddings()
    await Promise.all([closePorts(ports), database.close(), embedder?.close()])
  }
  if (options.background === true) start()
  return {
    threads,
    messages,
    embeddings,
    transfer: createTransferService(database, { threads, messages, lanes }),
    conversationMove: createConversationMove(database, {
      ...{ threads, messages, usage },
      settings: options.usage,
    }),
    configs: createConfigService(database, defaults),
    conversations,
    council,
    artifacts: createArtifactService(database, threads, keeper, limits),
    files: createFileService(database, keeper, limits),
    upkeep: createBlobUpkeep(database, blobs),
    checkpointer: checkpoints.forAll,
    store: stores.forAll,
    documents: createDocumentService(database, log),
    forUser: (userId) => ({ checkpointer: checkpoints.forUser(userId), store: stores.forUser(userId) }),
    identity,
    credentials,
    variables,
    usage,
    search: createSearchService(database, { embedder, vectors, trigrams: createTrigramFinder(database) }),
    sessions: createSessionService(database, threads),
    analyses: createAnalysisService(database, { onWrite: () => wake('analysis') }),
    audit,
    gdpr: createGdprService({
      ...{ database, blobs, audit, identity, credentials, variables },
      state: checkpoints.plain,
      forget: checkpoints.forget,
    }),
    database,
    blobs,
    cache,
    bus,
    limiter,
    close,
    [Symbol.asyncDispose]: close,
  }
}
