// Runs a graph, or goes on with it, and says which of its checkpoints and writes are acknowledged, until it is killed.
import type { RunnableConfig } from '@langchain/core/runnables'
import type {
  ChannelVersions,
  Checkpoint,
  CheckpointMetadata,
  PendingWrite,
} from '@langchain/langgraph-checkpoint'
import { ThreadbaseSaver } from '../../src/checkpoints/service.ts'
import { silentLog } from '../../src/core/log.ts'
import { upgrade } from '../../src/db/migrate.ts'
import { loadMigrations } from '../../src/db/migrations.ts'
import { openPglite } from '../../src/db/pglite.ts'
import { openPostgres } from '../../src/db/postgres.ts'
import { prepareRls } from '../../src/db/rls.ts'
import { buildLongRun } from '../langgraph/long-run.ts'

const say = (line: object) => console.log(JSON.stringify(line))

class TalkativeSaver extends ThreadbaseSaver {
  override async put(
    config: RunnableConfig,
    checkpoint: Checkpoint,
    metadata: CheckpointMetadata,
    newVersions: ChannelVersions,
  ): Promise<RunnableConfig> {
    const stored = await super.put(config, checkpoint, metadata, newVersions)
    say({ put: checkpoint.id, ns: stored.configurable?.checkpoint_ns })
    return stored
  }

  override async putWrites(
    config: RunnableConfig,
    writes: PendingWrite[],
    taskId: string,
    taskPath?: string,
  ): Promise<void> {
    await super.putWrites(config, writes, taskId, taskPath)
    const { checkpoint_id: of, checkpoint_ns: ns } = config.configurable ?? {}
    say({ writes: taskId, of, ns, channels: writes.map(([channel]) => channel) })
  }
}

const { dataDir, templateFile, url, schema, rls, userId } = JSON.parse(process.argv[2] ?? '{}')
const common = { log: silentLog, rls }
const database = url
  ? await openPostgres({ ...common, url, schema })
  : await openPglite({ ...common, dataDir, templateFile })
await upgrade(database, await loadMigrations())
await prepareRls(database, { grant: true })
const saver = new TalkativeSaver(database, { userId })
const config = { configurable: { thread_id: 'run' }, durability: 'sync', recursionLimit: 1_000 }
const found = await saver.getTuple(config)
say({ found: found?.checkpoint.id ?? null, pending: found?.pendingWrites?.map(([taskId]) => taskId) ?? [] })
await buildLongRun(saver).invoke(found === undefined ? { log: [] } : null, config)
say({ done: true })
await database.close()
