import { monitorEventLoopDelay } from 'node:perf_hooks'
import { Gauge, type Registry } from 'prom-client'

const RESOLUTION_MS = 20

/**
 * Memory, processor time and event loop lag of this process, under the names that dashboards know. The library's own
 * collection cannot be ended: each app would leave observers behind.
 * @returns what ends the measurement
 */
export function registerProcessMetrics(registry: Registry): () => void {
  const delay = monitorEventLoopDelay({ resolution: RESOLUTION_MS })
  delay.enable()
  const gauge = (name: string, help: string, read: () => number) =>
    new Gauge({
      name,
      help,
      registers: [registry],
      collect() {
        this.set(read())
      },
    })
  gauge('process_start_time_seconds', 'Start of the process in seconds since 1970.', () =>
    Math.round(Date.now() / 1_000 - process.uptime()),
  )
  gauge('process_cpu_seconds_total', 'Processor time used, in seconds.', () => {
    const { user, system } = process.cpuUsage()
    return (user + system) / 1_000_000
  })
  gauge('process_resident_memory_bytes', 'Resident memory.', () => process.memoryUsage.rss())
  gauge('nodejs_heap_size_used_bytes', 'JavaScript heap in use.', () => process.memoryUsage().heapUsed)
  gauge('nodejs_external_memory_bytes', 'Memory of buffers outside of the heap.', () => {
    return process.memoryUsage().external
  })
  // nanoseconds, of which the resolution itself is no lag
  const seconds = (ns: number) => Math.max(0, (Number.isFinite(ns) ? ns : 0) / 1e9 - RESOLUTION_MS / 1_000)
  gauge(
    'nodejs_eventloop_lag_p99_seconds',
    'Lag of the event loop since the last look, 99th percentile.',
    () => seconds(delay.percentile(99)),
  )
  gauge('nodejs_eventloop_lag_mean_seconds', 'Lag of the event loop since the last look, mean.', () =>
    seconds(delay.mean),
  )
  new Gauge({
    name: 'nodejs_eventloop_lag_max_seconds',
    help: 'Lag of the event loop since the last look, at most.',
    registers: [registry],
    // the last of the three: a new look begins
    collect() {
      this.set(seconds(delay.max))
      delay.reset()
    },
  })
  return () => delay.disable()
}
