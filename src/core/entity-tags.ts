/** Whether one of the entity tags of an `if-none-match` header is this one; weak ones count, too. */
export function matchesTag(header: string | undefined, tag: string): boolean {
  if (header === undefined) return false
  return header.split(',').some((one) => ['*', tag, `W/${tag}`].includes(one.trim()))
}
