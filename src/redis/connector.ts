import { createConnection, type Socket } from 'node:net'
import { connect } from 'node:tls'
import { AbstractConnector, type RedisOptions } from 'ioredis'
import type { RedisAddress } from './url.ts'

/**
 * Connections on which an error is never an exception: the driver listens for the first one alone, and TLS may have two, for a
 * certificate that is refused and for what the other side says to that.
 * @param disconnectTimeoutMs how long an ended connection may take to close
 */
export const connectorTo = (
  { host, port, tls }: RedisAddress,
  disconnectTimeoutMs: number,
): NonNullable<RedisOptions['Connector']> =>
  // the driver wants a class
  class extends AbstractConnector {
    constructor() {
      super(disconnectTimeoutMs)
    }

    async connect(): Promise<Socket> {
      this.connecting = true
      // who disconnects in the same moment is heard
      await new Promise((resolve) => process.nextTick(resolve))
      if (!this.connecting) throw new Error('Connection is closed.')
      const socket = tls ? connect({ host, port }) : createConnection({ host, port })
      socket.on('error', (error) => {
        this.firstError ??= error
      })
      this.stream = socket
      return socket
    }
  }
