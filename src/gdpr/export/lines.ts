import type { PlainState, StoredData } from '../../checkpoints/service.ts'
import { decodeText } from '../../core/json.ts'
import type { ExportedRow } from './repo.ts'
import type { EXPORTED } from './tables.ts'

type Row = ExportedRow
/** The documents of a row, as they are written: a line of JSON each. */
type ToLine = (row: Row) => unknown

const storedOf = ({ codec, key_id, data }: Row): StoredData => ({
  codec: codec as number,
  keyId: key_id as string | null,
  data: data as Buffer,
})

const same: ToLine = (row) => row
const text = (value: unknown) => decodeText(String(value))
const ANALYSIS_TEXTS = ['problem_behavior', 'prompting_event', 'consequences', 'summary']
const textsOf = (row: Row, names: string[]) =>
  Object.fromEntries(names.map((name) => [name, row[name] === null ? null : text(row[name])]))

/** How rows of each table become lines. What is not here is written as it is. */
export function createLines(
  userId: string,
  state: PlainState,
  pathOf: (table: 'artifacts' | 'files', row: Row) => string,
): (name: keyof typeof EXPORTED) => ToLine {
  const special: Partial<Record<keyof typeof EXPORTED, ToLine>> = {
    checkpoints: ({ roots, codec, key_id, record, ...row }) => {
      const at = { ns: String(row.checkpoint_ns), id: String(row.checkpoint_id) }
      const stored = storedOf({ codec, key_id, data: record })
      return { ...row, ...state.record(userId, at, roots as (string | null)[], stored) }
    },
    checkpointValues: (row) => {
      const { thread_id, hash, type, refs } = row
      if (row.data === null) return { thread_id, hash, parts: refs }
      const { isPack, ...plain } = state.blob(userId, String(hash), type as string | null, storedOf(row))
      return { thread_id, hash, ...(isPack ? { is_several: true } : {}), ...plain }
    },
    checkpointWrites: ({ codec, key_id, data, type, ...row }) => {
      const at = {
        ns: String(row.checkpoint_ns),
        id: String(row.checkpoint_id),
        taskId: String(row.task_id),
        idx: row.idx as number,
      }
      return { ...row, ...state.write(userId, at, String(type), storedOf({ codec, key_id, data })) }
    },
    analyses: (row) => ({ ...row, ...textsOf(row, ANALYSIS_TEXTS) }),
    artifacts: (row) => ({ ...row, filename: text(row.filename), path: pathOf('artifacts', row) }),
    files: (row) => ({ ...row, name: text(row.name), path: pathOf('files', row) }),
  }
  return (name) => special[name] ?? same
}
