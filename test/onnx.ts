import { createRequire } from 'node:module'

/** Whether onnxruntime-node is there, which is no dependency. */
export const hasOnnx = isInstalled()
if (!hasOnnx) {
  const reason = 'no onnxruntime-node: scripts/install-onnxruntime.sh installs it'
  if (process.env.THREADBASE_TEST_REQUIRE === 'all')
    throw new Error(`suites with onnxruntime-node cannot run: ${reason}`)
  console.warn(`\n*** Suites with onnxruntime-node are SKIPPED: ${reason} ***\n`)
}

function isInstalled(): boolean {
  try {
    createRequire(import.meta.url).resolve('onnxruntime-node')
    return true
  } catch {
    return false
  }
}
