import { execFileSync, spawnSync } from 'node:child_process'

const isThere = spawnSync('python3', ['-c', 'import cryptography.fernet']).status === 0

/** Whether there is a Python with `cryptography`, or it must be there. */
export const hasPython = isThere || process.env.THREADBASE_TEST_REQUIRE === 'all'

/** What a program prints that has `Fernet` and `sys`. */
export function python(code: string, ...args: string[]): string {
  const program = `import sys\nfrom cryptography.fernet import Fernet, MultiFernet\n${code}`
  return execFileSync('python3', ['-c', program, ...args], { encoding: 'utf8' }).trim()
}
