import type { ConversationStore, Council } from './conversations/service.ts'
import { openThreadbase as open, type ThreadbaseOptions } from './open-threadbase.ts'
import type { Threadbase } from './threadbase.ts'
import type { UsageService } from './usage/service.ts'

/**
 * Opens Threadbase from the environment (see docs/configuration.md); options come before it.
 * @throws invalid_input for a bad setting; unavailable when the database does not answer; conflict when another
 *   process has the embedded store open
 */
export function openThreadbase(options: ThreadbaseOptions = {}): Promise<Threadbase> {
  return open({ env: process.env, ...options })
}

/**
 * Conversations of councils alone, where `url` says: `postgres://…`, `json:` and the data directory of a council, or the
 * embedded store. The choice is logged; with NODE_ENV=production it must be PostgreSQL.
 * @throws as {@link openThreadbase}
 */
export async function openConversations(options: OpenConversationsOptions = {}): Promise<Conversations> {
  const { url, ...others } = options
  const tb = await openThreadbase({ ...others, ...(url === undefined ? {} : { databaseUrl: url }) })
  return {
    ...tb.conversations,
    usage: tb.usage,
    council: tb.council,
    close: tb.close,
    [Symbol.asyncDispose]: tb.close,
  }
}

export type OpenConversationsOptions = Omit<ThreadbaseOptions, 'databaseUrl'> & {
  /** Where they are kept. Default: DATABASE_URL, else the embedded store. */
  url?: string
}

export type Conversations = ConversationStore &
  AsyncDisposable & {
    /** How much each user asks, and may ask. */
    readonly usage: UsageService
    readonly council: Council
  }

export type {
  Analysis,
  AnalysisContent,
  AnalysisItem,
  AnalysisPatch,
  AnalysisVersion,
  ChainLink,
  IfVersion,
  LinkKind,
  NewAnalysis,
  NewSession,
  Session,
  SessionQuery,
  StoredVersion,
  VersionQuery,
  WriteOptions,
} from './analyses/schema.ts'
export type { AnalysisService, SessionService } from './analyses/service.ts'
export type {
  Artifact,
  ArtifactQuery,
  FilePatch,
  FileQuery,
  IngestedObject,
  NewArtifact,
  NewArtifactUpload,
  NewFile,
  NewFileUpload,
  PendingUpload,
  StoredBytes,
  StoredHead,
  UserFile,
} from './artifacts/schema.ts'
export type {
  ArtifactService,
  BlobProblem,
  BlobUpkeep,
  ByteSource,
  CollectOptions,
  CollectReport,
  FileService,
  PresignOptions,
  VerifyOptions,
  VerifyReport,
} from './artifacts/service.ts'
export type { Actor, AuditAction, AuditEntry, AuditQuery } from './audit/schema.ts'
export type { AuditService } from './audit/service.ts'
export type { Blobs, ReadOptions } from './blobs/blobs.ts'
export type { Bus } from './bus/bus.ts'
export type { Cache } from './cache/cache.ts'
export type { Limiter } from './cache/limiter.ts'
export type {
  CheckpointOptions,
  EncryptionOptions,
  PruneOptions,
  Removed,
  StateThread,
  ThreadbaseSaver,
} from './checkpoints/service.ts'
export type {
  DocumentChoice,
  DocumentFilter,
  DocumentQuery,
  DocumentService,
  EmbeddingsLike,
  EmbedFunction,
  FoundDocument,
  NewDocument,
  StoreIndex,
  StorePut,
  StoreServiceOptions,
  StoreTtl,
  ThreadbaseStore,
} from './checkpoints/store/service.ts'
export type { Config, ConfigDefaults, ConfigPatch, ConfigSource, NewConfig } from './configs/schema.ts'
export type { ConfigService } from './configs/service.ts'
export type {
  Conversation,
  ConversationFormat,
  ConversationHit,
  ConversationSummary,
  CouncilAnswer,
  CouncilMessage,
  CouncilMetadata,
  ModelUsage,
  Stage1,
  Stage2,
  Stage3,
} from './conversations/schema.ts'
export type {
  AskOptions,
  ConversationStore,
  Council,
  CouncilEvent,
  ListOptions,
  Turn,
  TurnStore,
} from './conversations/service.ts'
export { ERROR_CODES, type ErrorCode, isThreadbaseError, ThreadbaseError } from './core/errors.ts'
export type { Logger } from './core/log.ts'
export type { Page } from './core/pages.ts'
export type { Scope } from './core/scope.ts'
export type {
  NewProviderKey,
  NewVariable,
  ProviderKey,
  Variable,
  VariablePatch,
  VariableQuery,
} from './credentials/schema.ts'
export type { CredentialService, VariableService } from './credentials/service.ts'
export type { Database } from './db/database.ts'
export type { Embedder, EmbedOptions } from './embeddings/embedder.ts'
export type {
  ApiKey,
  ApiKeyQuery,
  Identity,
  KeyScope,
  NewAccount,
  NewApiKey,
  NewUser,
  ProfilePatch,
  Tokens,
  User,
  UserPatch,
  UserQuery,
} from './identity/schema.ts'
export type { AuthMode, IdentityService } from './identity/service.ts'
export type { Message, MessagePatch, MessageQuery, NewMessage, Role } from './messages/schema.ts'
export type { Appended, MessageService } from './messages/service.ts'
export type { ThreadbaseOptions } from './open-threadbase.ts'
export type {
  BackfillOptions,
  BackfillReport,
  EmbeddingService,
  EmbeddingState,
  EmbeddingStatus,
  ModelStatus,
  Waited,
  WaitOptions,
} from './search/embed/service.ts'
export type {
  SearchedMessage,
  SearchedThread,
  SearchHit,
  SearchMethod,
  SearchMode,
  SearchPage,
  SearchQuery,
} from './search/schema.ts'
export type { SearchService } from './search/service.ts'
export type { BuildOptions, BuildReport, IndexType, VectorSpace } from './search/vectors/service.ts'
export type { ForUser, Threadbase } from './threadbase.ts'
export type {
  ForkOptions,
  NewThread,
  Thread,
  ThreadKind,
  ThreadPatch,
  ThreadQuery,
} from './threads/schema.ts'
export type { ThreadService } from './threads/service.ts'
export type {
  ExportFormat,
  ExportOptions,
  ImportFormat,
  ImportOptions,
  ImportReport,
  Refusal,
} from './transfer/schema.ts'
export type { TransferService } from './transfer/service.ts'
export type {
  Consumed,
  TotalsQuery,
  Usage,
  UsagePatch,
  UsageReceipt,
  UsageRecord,
  UsageService,
  UsageTotal,
} from './usage/schema.ts'
