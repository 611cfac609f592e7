import type { Actor } from '../audit/schema.ts'
import type { Identity } from './schema.ts'

/** Who makes a request, as the audit log names them. */
export function actorOf({ identity, ip, id }: { identity: Identity; ip: string; id: string }): Actor {
  return { userId: identity.userId, via: identity.via, address: ip, requestId: id }
}
