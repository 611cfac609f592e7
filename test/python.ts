import { execFileSync, spawnSync } from 'node:child_process'

// Debian's own first: another Python may have no packages
const found = ['/usr/bin/python3', 'python3'].find(
  (path) => spawnSync(path, ['-c', 'import cryptography.fernet']).status === 0,
)
if (found === undefined) {
  const reason = 'no python3 with cryptography: install the package python3-cryptography'
  if (process.env.THREADBASE_TEST_REQUIRE === 'all')
    throw new Error(`suites with Python cannot run: ${reason}`)
  console.warn(`\n*** Suites with Python are SKIPPED: ${reason} ***\n`)
}

/** Whether there is a Python with `cryptography`. */
export const hasPython = found !== undefined

/** What a program prints that has `Fernet` and `sys`. */
export function python(code: string, ...args: string[]): string {
  const program = `import sys\nfrom cryptography.fernet import Fernet, MultiFernet\n${code}`
  return execFileSync(found ?? '', ['-c', program, ...args], { encoding: 'utf8' }).trim()
}
