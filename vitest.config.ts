import { configDefaults, defineConfig } from 'vitest/config'

/**
 * What opens no store, or not by the mode asked for, what tests the processes around one, and what another suite covers
 * with the same statements: there is nothing in it to run once more.
 */
const ALIKE_IN_EVERY_MODE = [
  'src/{blobs,bus,cache,config,core,embeddings,files,redis}/**',
  'src/{open-blobs,open-conversations}.test.ts',
  'src/encryption.test.ts',
  'src/credentials/{key-source,vault}.test.ts',
  'src/artifacts/upkeep/{interleavings,upkeep}.test.ts',
  'src/checkpoints/{serde,tree,validation,versions}.test.ts',
  'src/checkpoints/store/texts.test.ts',
  'src/conversations/json/**',
  'src/conversations/council/{models,prompts,ranking,title}.test.ts',
  // these open their stores in both modes, or the processes around one
  'src/conversations/move/**',
  'src/conversations/{mapping,render}.test.ts',
  'src/db/{arrays,directory-lock,pglite,postgres}.test.ts',
  'src/http/{limits,metrics,traces,uploads,web}.test.ts',
  'src/identity/{addresses,checks,external,passwords,secret-file,tokens}.test.ts',
  'src/search/embed/{local-model,loss,processes}.test.ts',
  'src/search/vectors/**',
  'src/transfer/cli.test.ts',
  'test/{architecture,docs,harness,kill-artifacts,openai-server,ports,redis-access,redis-faults}.test.ts',
  'test/langgraph/{dialogues,kill,two-runs}.test.ts',
  'test/e2e/{auth-modes,blobs,council,keys,package,redis,refusals,two-servers,users,walkthrough}.test.ts',
]
const again = process.env.THREADBASE_TEST_RLS === 'enforce'

export default defineConfig({
  test: {
    include: ['src/**/*.test.ts', 'test/**/*.test.ts'],
    exclude: [...configDefaults.exclude, ...(again ? ALIKE_IN_EVERY_MODE : [])],
    globalSetup: ['test/global-setup.ts'],
    reporters: ['default', './test/reporter.ts'],
    // real databases and child processes: a slow machine must not fail a correct run
    testTimeout: 120_000,
    hookTimeout: 120_000,
    // the model is loaded where it is tested
    env: { EMBEDDING_MODEL: 'none' },
    pool: 'forks',
    maxWorkers: 2,
  },
})
