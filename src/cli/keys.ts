import { Command } from 'commander'
import { ThreadbaseError } from '../core/errors.ts'
import { isRing, type Key } from '../core/key-ring.ts'
import type { Rotation } from '../credentials/service.ts'
import type { Threadbase } from '../threadbase.ts'
import type { CliContext } from './context.ts'
import { formatCount, untilInterrupted } from './interrupt.ts'
import { describeKeys, describeRotation, isComplete, keysToJson, rotationToJson } from './keys-report.ts'
import { createProgress } from './progress.ts'

const HELP = `
To change the key:
  1. threadbase keys generate
  2. put it first, ENCRYPTION_KEY=new,old, on all servers and restart them: what they store gets the new key, all is read
  3. threadbase keys rotate, with the same ENCRYPTION_KEY, while they run
  4. take the old key away when no row is under it; keep it as long as there are backups from before

It covers the keys for providers, the variables, and the checkpoints that CHECKPOINT_ENCRYPTION encrypted.

The embedded store is open in one process at a time: stop the server first. Its keys are in DATA_DIR/encryption.key unless
ENCRYPTION_KEY is set; to change them put a line with the new one before the old one.`

const ROTATE_HELP = `
Every batch is a transaction of its own: after Ctrl-C, a crash or kill -9 run it again, and it goes on with what is left.
What servers store meanwhile is not overwritten. It ends with a table of keys and rows, and with exit code 1 when rows are
left that are not under the first key.`

/** `threadbase keys …`: what encrypts secrets and checkpoints. */
export function keysCommand(cli: CliContext): Command {
  const keys = new Command('keys')
    .description('make, look at and change the keys of ENCRYPTION_KEY')
    .addHelpText('after', HELP)
  keys
    .command('generate')
    .description('print a new key: 32 random bytes in base64url, as Fernet has them')
    .action(async () => {
      const { newEncryptionKey } = await import('../credentials/service.ts')
      cli.stdout.write(`${newEncryptionKey()}\n`)
    })
  keys
    .command('list')
    .description(
      'print the ids of the keys and how many rows are under each; exit code 1 if a key is missing',
    )
    .option('--json', 'print the result as JSON')
    .action(({ json }: { json?: boolean }) => list(cli, json === true))
  keys
    .command('rotate')
    .description('encrypt with the first key what is under another one, while servers run')
    .option('--batch <n>', 'rows in a transaction, at most', '200')
    .option('--dry-run', 'read and decrypt everything, write nothing')
    .option('--json', 'print the result as JSON')
    .addHelpText('after', ROTATE_HELP)
    .action((options: RotateOptions) => rotate(cli, options))
  return keys
}

async function list(cli: CliContext, json: boolean): Promise<void> {
  await withKeys(cli, async ({ tb, ring, tables, countKeys }) => {
    const counts = await countKeys(tb.database, tables, ring)
    cli.stdout.write(json ? keysToJson(ring, counts) : describeKeys(ring, counts))
    if (counts.some(({ is, keyId }) => is === 'missing' && keyId !== null)) cli.setExitCode(1)
  })
}

type RotateOptions = { batch: string; dryRun?: boolean; json?: boolean }

async function rotate(cli: CliContext, { batch, dryRun = false, json }: RotateOptions): Promise<void> {
  const options = { batch: readBatch(batch), dryRun }
  await withKeys(cli, async ({ tb, ring, tables, countKeys, rotateKeys }) => {
    const started = performance.now()
    let progress: ReturnType<typeof createProgress> | undefined
    const onProgress = (done: number, of: number) => {
      progress ??= createProgress(cli.stderr, 'rotate', of)
      progress.update(done, `${formatCount(done)} of ${formatCount(of)} rows`)
    }
    let rotation: Rotation | undefined
    const interrupted = await untilInterrupted(async (signal) => {
      if (isRing(ring))
        rotation = await rotateKeys(tb.database, tables, ring, { ...options, signal, onProgress })
    }).finally(() => progress?.stop())
    const counts = rotation?.counts ?? (await countKeys(tb.database, tables, ring))
    rotation ??= { reencrypted: 0, refused: 0, damaged: [], left: 0, counts }
    if (rotation.reencrypted > 0 && !dryRun)
      await tb.audit.record(OPERATOR, 'encryption_key_changed', OPERATOR.userId, `key ${ring[0]?.id}`)
    const seconds = (performance.now() - started) / 1_000
    const outcome = { interrupted, dryRun, seconds }
    cli.stdout.write(
      json === true ? rotationToJson(ring, rotation, outcome) : describeRotation(ring, rotation, outcome),
    )
    if (interrupted) cli.setExitCode(130)
    else if (!isComplete(rotation, dryRun)) cli.setExitCode(1)
  })
}

/** Whoever can run this has the keys: what they do is written down all the same. */
const OPERATOR = { userId: 'operator', via: 'cli' } as const

type Services = Pick<typeof import('../credentials/service.ts'), 'countKeys' | 'rotateKeys'>
type Work = Services & {
  tb: Threadbase
  ring: readonly Key[]
  tables: Parameters<Services['rotateKeys']>[1]
}

async function withKeys(cli: CliContext, act: (work: Work) => Promise<void>): Promise<void> {
  cli.requireStore()
  const services = await import('../credentials/service.ts')
  const { encryptedCheckpointTables } = await import('../checkpoints/service.ts')
  // before anything is opened: without a key there is nothing to do
  const ring = await services.createKeySource(cli.config()).find()
  await using tb = await cli.open()
  const tables = [...services.encryptedSecretTables(ring), ...encryptedCheckpointTables(ring)]
  await act({ ...services, tb, ring, tables })
}

function readBatch(text: string): number {
  const rows = Number(text)
  if (/^\d{1,5}$/.test(text) && rows >= 1 && rows <= 10_000) return rows
  throw new ThreadbaseError('invalid_input', '--batch must be a number from 1 to 10000')
}
