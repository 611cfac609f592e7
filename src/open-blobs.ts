import { randomBytes } from 'node:crypto'
import { join } from 'node:path'
import type { Blobs } from './blobs/blobs.ts'
import { openFiles } from './blobs/files.ts'
import { createUrlSigner, type UrlSigner } from './blobs/signed-urls.ts'
import type { Config } from './config.ts'
import type { Logger } from './core/log.ts'
import { readOrMakeSecret } from './identity/service.ts'

/**
 * Where a configuration keeps bytes. Opening touches neither disk nor network: a storage that is away makes calls
 * `unavailable`, not the start.
 * @param signer of the URLs that this server answers itself; those of {@link openUrlSigner}
 */
export async function openBlobs(
  config: Config,
  log: Logger,
  signer: () => Promise<UrlSigner> = openUrlSigner(config),
): Promise<Blobs> {
  const { s3 } = config.blobs
  // the SDK is large: only who needs it waits for it
  if (s3 !== undefined) return (await import('./blobs/s3.ts')).openS3({ ...s3, log })
  return openFiles({ dir: join(config.dataDir, 'blobs'), signer })
}

const KEY_BYTES = 32
const URL_SECRET = {
  create: () => randomBytes(KEY_BYTES).toString('base64url'),
  isSecret: (text: string) => /^[\w-]{43}$/.test(text),
}

/**
 * Signs and checks URLs with the key that the data directory keeps, so that servers which share the directory take each
 * other's. The key is read, or made, when it is first asked for.
 */
export function openUrlSigner({ dataDir }: Pick<Config, 'dataDir'>): () => Promise<UrlSigner> {
  let opened: Promise<UrlSigner> | undefined
  return () => {
    opened ??= readOrMakeSecret(join(dataDir, 'url.secret'), URL_SECRET).then(
      (secret) => createUrlSigner(Buffer.from(secret, 'base64url')),
      (error) => {
        // a disk that was full may not be so later
        opened = undefined
        throw error
      },
    )
    return opened
  }
}
