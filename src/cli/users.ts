import { Command } from 'commander'
import type { Actor } from '../audit/schema.ts'
import type { User, UserPatch } from '../identity/schema.ts'
import type { IdentityService } from '../identity/service.ts'
import type { CliContext } from './context.ts'
import { readNewPassword } from './password.ts'

/** Whoever can run this has the database: what they do is written down all the same. */
const OPERATOR: Actor = { userId: 'operator', via: 'cli' }
const NAME = 'username, email or id'

type Work = (users: IdentityService['users']) => Promise<void>

/** `threadbase users …`: the accounts of this installation. */
export function usersCommand(cli: CliContext): Command {
  const print = (line: string) => void cli.stdout.write(`${line}\n`)
  const withUsers = async (work: Work) => {
    const tb = await cli.open()
    try {
      await work(tb.identity.users)
    } finally {
      await tb.close()
    }
  }
  const onExisting = async (work: Work) => {
    cli.requireStore()
    await withUsers(work)
  }
  const users = new Command('users')
    .description('make and change the accounts that sign in with AUTH_MODE=accounts')
    .addHelpText(
      'after',
      '\nThe embedded store is open in one process at a time: stop the server first, or use /api/admin/users.',
    )

  users
    .command('create')
    .description('make an account')
    .argument('<name>', 'username to sign in with')
    .option(
      '--password <text>',
      'default: asked for, or read from standard input; others can see what is given here',
    )
    .option('--email <address>', 'to sign in with as well')
    .option('--name <text>', 'full name')
    .option('--superuser', 'may manage users and read what is theirs')
    .action(async (username: string, options: CreateOptions) => {
      const { email, name, superuser = false } = options
      const password = options.password ?? (await readNewPassword(cli, username))
      await withUsers(async (service) => {
        const input = { username, password, email, name, isSuperuser: superuser }
        const user = await service.create(OPERATOR, input)
        print(`created ${describe(user)}`)
      })
    })

  users
    .command('list')
    .description('print all users, newest first')
    .option('--json', 'as JSON Lines')
    .action(({ json }: { json?: boolean }) =>
      onExisting(async (service) => {
        for await (const user of allUsers(service))
          print(json === true ? JSON.stringify(user) : describe(user))
      }),
    )

  change('deactivate', 'refuse all credentials of a user, on all servers within a second', {
    isActive: false,
  })
  change('activate', 'undo a deactivation', { isActive: true })
  change('promote', 'make a user a superuser', { isSuperuser: true })
  change('demote', 'take that back', { isSuperuser: false })

  users
    .command('reset-password')
    .description('set a password, which ends all sessions of the user')
    .argument('<user>', NAME)
    .option('--password <text>', 'default: asked for, or read from standard input')
    .action(async (name: string, options: { password?: string }) => {
      const password = options.password ?? (await readNewPassword(cli, name))
      await onExisting(async (service) => {
        const user = await service.find(name)
        await service.resetPassword(OPERATOR, user.id, password)
        print(`new password for ${describe(user)}`)
      })
    })

  function change(command: string, description: string, patch: UserPatch): void {
    users
      .command(command)
      .description(description)
      .argument('<user>', NAME)
      .action((name: string) =>
        onExisting(async (service) => {
          const { id } = await service.find(name)
          print(`${PAST[command]} ${describe(await service.update(OPERATOR, id, patch))}`)
        }),
      )
  }
  return users
}

const PAST: Record<string, string> = {
  deactivate: 'deactivated',
  activate: 'activated',
  promote: 'promoted',
  demote: 'demoted',
}

type CreateOptions = { password?: string; email?: string; name?: string; superuser?: boolean }

async function* allUsers(service: IdentityService['users']): AsyncGenerator<User> {
  let cursor: string | undefined
  do {
    const page = await service.list({ limit: 200, cursor })
    yield* page.items
    cursor = page.nextCursor
  } while (cursor !== undefined)
}

function describe({ id, username, email, provider, isActive, isSuperuser }: User): string {
  const facts = [
    id,
    username ?? `(${provider})`,
    email ?? '-',
    isSuperuser ? 'superuser' : 'user',
    isActive ? 'active' : 'deactivated',
  ]
  return facts.join('  ')
}
