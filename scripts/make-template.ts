import { mkdir, mkdtemp, rename, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { PGlite } from '@electric-sql/pglite'

/**
 * Writes a prepared embedded database (a gzip archive of a data directory right after initdb) to `file`: loading it
 * takes a second where initdb in WebAssembly takes five or more. The file is complete or absent.
 */
export async function makeTemplate(file: string): Promise<void> {
  const scratch = await mkdtemp(join(tmpdir(), 'threadbase-template-'))
  try {
    const db = await PGlite.create({ dataDir: join(scratch, 'pg') })
    const archive = await db.dumpDataDir('gzip')
    await db.close()
    await mkdir(dirname(file), { recursive: true })
    const partial = `${file}.${process.pid}.partial`
    await writeFile(partial, Buffer.from(await archive.arrayBuffer()))
    await rename(partial, file)
  } finally {
    await rm(scratch, { recursive: true, force: true })
  }
}
