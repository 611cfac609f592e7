import { execFile, spawn } from 'node:child_process'
import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { cp, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { gunzipSync } from 'node:zlib'
import { beforeAll, describe, expect, test } from 'vitest'
import { VERSION } from '../../src/version.ts'
import { childEnv, INSTALL_MS, type InstalledPackage, installedPackage } from './installed.ts'
import { cleanUpAfterAll, serve, stop, temporaryDirectory } from './processes.ts'

const execute = promisify(execFile)
const root = fileURLToPath(new URL('../..', import.meta.url))

cleanUpAfterAll()

describe('the package, installed into an empty folder', () => {
  let installed: InstalledPackage
  let own: string
  let files: string[]

  beforeAll(async () => {
    installed = await installedPackage()
    own = join(installed.directory, 'node_modules/threadbase')
    files = readdirSync(own, { recursive: true, withFileTypes: true })
      .filter((entry) => entry.isFile())
      .map((entry) => join(entry.parentPath, entry.name).slice(own.length + 1))
  }, INSTALL_MS)

  test('holds what it needs and nothing else', async () => {
    const { stdout } = await execute('tar', ['tzf', installed.archive])
    const packed = stdout.trim().split('\n')
    for (const needed of [
      'package.json',
      'README.md',
      'dist/index.js',
      'dist/index.d.ts',
      'dist/cli/main.js',
      'dist/db/pglite-worker.js',
      'dist/embeddings/local-worker.js',
      'dist/embedded/template.tar.gz',
      'migrations/0001_threads.sql',
    ])
      expect(packed).toContain(`package/${needed}`)
    expect(
      packed.filter((path) =>
        /\.test\.|\/(src|test|bench|scripts|node_modules)\/|\.map$|(?<!\.d)\.ts$/.test(path),
      ),
    ).toEqual([])
    for (const path of packed.filter((name) => /^package\/dist\/.*\.js$/.test(name)))
      expect(packed).toContain(path.replace(/\.js$/, '.d.ts'))
    // what users never run must not come along
    expect(existsSync(join(installed.directory, 'node_modules/vitest'))).toBe(false)
  })

  test('knows nothing of the machine that made it', () => {
    for (const file of files) {
      const bytes = readFileSync(join(own, file))
      const content = file.endsWith('.gz') ? gunzipSync(bytes) : bytes
      for (const trace of [root, 'threadbase-template-', '/work/'])
        expect(content.includes(trace), `${file} holds ${trace}`).toBe(false)
    }
    expect(files.length).toBeGreaterThan(40)
  })

  test('its types check in a strict project, hide no any, and the program runs', async () => {
    const { directory } = installed
    // a TypeScript project has these; the package itself must bring or need no other types
    for (const name of ['@types/node', 'undici-types'])
      await cp(join(root, 'node_modules', name), join(directory, 'node_modules', name), { recursive: true })
    await cp(new URL('./consumer.ts.txt', import.meta.url), join(directory, 'consumer.ts'))
    const options = {
      target: 'es2024',
      lib: ['es2024', 'esnext.disposable'],
      module: 'nodenext',
      strict: true,
      skipLibCheck: false,
      noEmit: true,
      types: ['node'],
    }
    await writeFile(
      join(directory, 'tsconfig.json'),
      JSON.stringify({ compilerOptions: options, files: ['consumer.ts'] }),
    )
    const tsc = join(root, 'node_modules/typescript/bin/tsc')
    const types = await execute(process.execPath, [tsc, '-p', directory], { env: childEnv }).catch(
      (error) => error,
    )
    expect(types.stdout).toBe('')

    const dataDir = await temporaryDirectory()
    const { stdout } = await execute(process.execPath, ['consumer.ts', join(dataDir, 'new')], {
      cwd: directory,
      env: childEnv,
    })
    expect(JSON.parse(stdout)).toEqual({
      texts: ['1 user Hello', '2 assistant Hi'],
      values: { n: 1 },
      fact: 'home',
      types: ['human', 'ai'],
      document: 'near',
      engine: 'pglite',
      code: 'not_found',
    })
  })

  test('its local embedding model runs', async () => {
    const script = `
      import { openLocal } from './node_modules/threadbase/dist/embeddings/local.js'
      const log = { debug() {}, info() {}, warn: console.error, error: console.error }
      const embedder = openLocal({ log })
      const [vector] = await embedder.embed(['hello'])
      console.log(vector.length, embedder.description)
      const other = openLocal({ engine: 'onnx', log })
      await other.embed(['hello']).catch(({ code, message }) => console.log(code, message))`
    await writeFile(join(installed.directory, 'embed.mjs'), script)
    const { stdout, stderr } = await execute(process.execPath, ['embed.mjs'], {
      cwd: installed.directory,
      env: childEnv,
    })
    expect([...stdout.trim().split('\n'), stderr]).toEqual([
      '384 all-MiniLM-L6-v2 in this process (wasm)',
      'unavailable the embedding model cannot be loaded: EMBEDDING_ENGINE=onnx needs the package onnxruntime-node, which is not installed',
      '',
    ])
  })

  test('a new embedded store comes from the prepared one in the package', async () => {
    const DATA_DIR = await temporaryDirectory()
    const server = await serve({ DATA_DIR }, ['--port', '0'], installed.command)
    expect((await fetch(`${server.url}/ready`)).status).toBe(200)
    expect((await fetch(`${server.url}/docs`)).status).toBe(200)
    expect(server.stderr()).not.toContain('preparing a new embedded store')
    await stop(server)
    const template = join(own, 'dist/embedded/template.tar.gz')
    const control = await execute('tar', ['xzOf', template, '--wildcards', '*global/pg_control'], {
      encoding: 'buffer',
    })
    // every initdb makes up a number for its cluster, the first eight bytes of this file: equal ones are copies
    const made = readFileSync(join(DATA_DIR, 'pg/global/pg_control'))
    expect(made.subarray(0, 8)).toEqual(control.stdout.subarray(0, 8))
    expect(made.subarray(0, 8)).not.toEqual(Buffer.alloc(8))
  })

  test('npx threadbase --help and --version', async () => {
    const npx = (...args: string[]) =>
      execute('npx', ['--no-install', 'threadbase', ...args], { cwd: installed.directory, env: childEnv })
    expect((await npx('--help')).stdout).toContain('Usage: threadbase')
    expect((await npx('--version')).stdout).toBe(`${VERSION}\n`)
  })

  test('npx threadbase serve answers', async () => {
    const DATA_DIR = await temporaryDirectory()
    // in a process group of its own, for npx starts others
    const child = spawn('npx', ['--no-install', 'threadbase', 'serve', '--port', '0'], {
      cwd: installed.directory,
      env: { ...childEnv, DATA_DIR },
      stdio: ['ignore', 'pipe', 'inherit'],
      detached: true,
    })
    const exited = new Promise((resolve) => child.once('close', resolve))
    try {
      const url = await new Promise<string>((resolve, reject) => {
        let text = ''
        child.stdout.setEncoding('utf8').on('data', (chunk: string) => {
          text += chunk
          const found = /listening on (\S+)/.exec(text)?.[1]
          if (found !== undefined) resolve(found)
        })
        child.once('exit', (code) => reject(new Error(`npx ended with code ${code}`)))
      })
      const made = await fetch(`${url}/api/threads`, { method: 'POST' })
      expect(made.status).toBe(201)
    } finally {
      if (child.pid !== undefined) process.kill(-child.pid, 'SIGTERM')
      await exited
    }
    expect(existsSync(join(DATA_DIR, 'lock'))).toBe(false)
  })
})
