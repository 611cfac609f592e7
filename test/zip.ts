import { buffer } from 'node:stream/consumers'
import { fromBuffer } from 'yauzl'

/** The files of a zip, by path. */
export function unzip(zip: Buffer): Promise<Map<string, Buffer>> {
  return new Promise((resolve, reject) => {
    const files = new Map<string, Buffer>()
    // it refuses absolute paths and such that lead elsewhere
    fromBuffer(zip, { lazyEntries: true, validateEntrySizes: true }, (error, archive) => {
      if (archive === undefined) return reject(error)
      archive.on('entry', (entry) =>
        archive.openReadStream(entry, (failed, stream) => {
          if (stream === undefined) return reject(failed)
          buffer(stream).then((bytes) => {
            files.set(entry.fileName, bytes)
            archive.readEntry()
          }, reject)
        }),
      )
      archive.on('end', () => resolve(files))
      archive.on('error', reject)
      archive.readEntry()
    })
  })
}
