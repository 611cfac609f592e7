import { spawnSync } from 'node:child_process'
import { tmpdir } from 'node:os'

/** A disk of so many bytes over a directory, which only root can mount: whether it could be. */
export function mountDisk(directory: string, bytes: number): boolean {
  return spawnSync('mount', ['-t', 'tmpfs', '-o', `size=${bytes}`, 'tmpfs', directory]).status === 0
}

/** Whether this is root on Linux; says aloud what is skipped where it is not. */
export function canMount(): boolean {
  const possible =
    process.platform === 'linux' &&
    spawnSync('unshare', ['-m', 'mount', '-t', 'tmpfs', 'tmpfs', tmpdir()]).status === 0
  if (!possible)
    console.warn('\n*** A disk that is full is SKIPPED: it takes root to mount a small one ***\n')
  return possible
}
