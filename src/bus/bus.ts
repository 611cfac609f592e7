/**
 * The wake-up port: short messages to whoever listens now, in this process and others. Nothing is kept: who does not
 * listen misses it. Channels and messages are Unicode text: a lone surrogate becomes U+FFFD.
 */
export type Bus = {
  readonly engine: 'local' | 'redis'
  /** What is used, for people; never a credential. */
  readonly description: string
  /** Whether it reaches other processes. */
  readonly shared: boolean
  /**
   * Messages of one process on one channel arrive in the order in which they were published.
   * @throws unavailable when Redis does not answer; then it is not known whether the message went out
   */
  publish(channel: string, message: string): Promise<void>
  /**
   * Calls back for each message of the channel, those of this process too. Resolves, once it listens, to a function
   * that ends it. While Redis is away it resolves at once and listens from the reconnection on, which `onReconnect` tells.
   * @throws unavailable when Redis refuses, and after `close`
   */
  subscribe(channel: string, onMessage: (message: string) => void): Promise<() => Promise<void>>
  /** False while messages of other processes may be missed. */
  connected(): boolean
  /** Called when it listens again after a gap: what was learnt before may be outdated. */
  onReconnect(listener: () => void): void
  /** Again: no change. */
  close(): Promise<void>
}
