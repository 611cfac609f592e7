import { PostgresSaver } from '@langchain/langgraph-checkpoint-postgres'
import pg from 'pg'
import { ThreadbaseSaver } from '../src/langgraph.ts'
import type { Saver } from './checkpoint-state.ts'

/** One of the two savers, with tables of its own in one database, on a pool of the same settings. */
export type Contestant = {
  saver: Saver
  deleteThread(threadId: string): Promise<void>
  /** A copy made by the database. */
  copyThread(source: string, target: string): Promise<void>
  /** Of its tables with their indexes. */
  bytes(): Promise<number>
}

export type Contestants = Record<'peer' | 'ours', Contestant>

const TABLES = ['checkpoints', 'checkpoint_blobs', 'checkpoint_writes', 'checkpoint_tombstones']
const PEER_COLUMNS = {
  checkpoint_blobs: 'checkpoint_ns, channel, version, type, blob',
  checkpoint_writes: 'checkpoint_ns, checkpoint_id, task_id, idx, channel, type, blob',
  checkpoints: 'checkpoint_ns, checkpoint_id, parent_checkpoint_id, type, checkpoint, metadata',
}

/** @param wait whether a commit waits until it is on the disk, as the server is set */
export function openPool(url: string, wait = true): pg.Pool {
  return new pg.Pool({ connectionString: url, options: wait ? undefined : '-c synchronous_commit=off' })
}

/** Both with empty tables. */
export async function openSavers(
  pools: Record<'peer' | 'ours', pg.Pool>,
  name: string,
): Promise<Contestants> {
  const [peerSchema, ourSchema] = [`peer_${name}`, `ours_${name}`]
  const peer = new PostgresSaver(pools.peer, undefined, { schema: peerSchema })
  const ours = new ThreadbaseSaver(pools.ours, { schema: ourSchema, defaultUserId: 'bench' })
  for (const schema of [peerSchema, ourSchema]) {
    await pools.peer.query(`drop schema if exists ${schema} cascade`)
  }
  await peer.setup()
  await ours.setup()
  return {
    peer: {
      saver: peer as unknown as Saver,
      deleteThread: (id) => peer.deleteThread(id),
      copyThread: async (source, target) => {
        for (const [table, columns] of Object.entries(PEER_COLUMNS)) {
          await pools.peer.query(
            `insert into ${peerSchema}.${table} (thread_id, ${columns})
             select $2, ${columns} from ${peerSchema}.${table} where thread_id = $1`,
            [source, target],
          )
        }
      },
      bytes: () => sizeOf(pools.peer, peerSchema),
    },
    ours: {
      saver: ours,
      deleteThread: (id) => ours.deleteThread(id),
      copyThread: (source, target) => ours.copyThread(source, target),
      bytes: () => sizeOf(pools.ours, ourSchema),
    },
  }
}

async function sizeOf(pool: pg.Pool, schema: string): Promise<number> {
  const { rows } = await pool.query<{ bytes: string }>(
    `select coalesce(sum(pg_total_relation_size(c.oid)), 0) as bytes
       from pg_class c where c.relnamespace = $1::regnamespace and c.relkind = 'r' and c.relname = any ($2)`,
    [schema, TABLES],
  )
  return Number(rows[0]?.bytes)
}

/** The same bytes without a saver: one prepared statement on one connection, and a column that is not compressed. */
export async function openRaw(pool: pg.Pool) {
  await pool.query('drop table if exists raw_bytes')
  await pool.query('create table raw_bytes (id bigint primary key, data bytea not null)')
  await pool.query('alter table raw_bytes alter column data set storage external')
  let last = 0
  return {
    insert: async (data: Buffer): Promise<number> => {
      const values = [++last, data]
      await pool.query({
        name: 'raw-insert',
        text: 'insert into raw_bytes (id, data) values ($1, $2)',
        values,
      })
      return last
    },
    select: async (first: number, count: number): Promise<void> => {
      const text = 'select data from raw_bytes where id between $1 and $2 order by id desc'
      const { rows } = await pool.query({ name: 'raw-select', text, values: [first, first + count - 1] })
      if (rows.length !== count) throw new Error(`${rows.length} rows of ${count}`)
    },
  }
}

export type Raw = Awaited<ReturnType<typeof openRaw>>
