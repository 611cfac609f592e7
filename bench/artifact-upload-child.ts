/** Uploads a gigabyte through the library: prints the time, and the memory that it took above what the process had. */
import { openThreadbase } from '../src/index.ts'
import { gigabyte, resetPeak, residentMb } from './artifact-gigabyte.ts'

const scope = { userId: 'local' }
await using tb = await openThreadbase({ env: process.env })
for (let i = 0; i < 20; i++) await tb.files.create(scope, gigabyte(1e6))
const idle = resetPeak(process.pid)
const started = performance.now()
await tb.files.create(scope, gigabyte())
const ms = performance.now() - started
process.stdout.write(JSON.stringify({ ms, mb: residentMb(process.pid, 'VmHWM') - idle }))
