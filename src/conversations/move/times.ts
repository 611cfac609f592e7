import { parseTime } from '../mapping.ts'
import type { Fields } from './read.ts'

/** When a message says it was written. */
export function ownTime(message: Fields): Date | undefined {
  return parseTime(message.created_at) ?? parseTime(message.timestamp)
}

/** The time of a conversation that names none: when its file was made, if that is known, else when it was written last. */
export function timeOfFile({ mtime, birthtime }: { mtime: Date; birthtime: Date }): Date {
  return birthtime.getTime() > 0 && birthtime < mtime ? birthtime : mtime
}

/**
 * Times for messages, in order and never decreasing: each its own where it has one; the others spread evenly between their
 * neighbours, the first behind `start`, the last at `end`.
 * @param own of each message; undefined for none
 */
export function spreadTimes(own: readonly (Date | undefined)[], start: Date, end: Date): Date[] {
  const times: Date[] = []
  let before = start.getTime()
  for (let at = 0; at < own.length; ) {
    let next = at
    while (next < own.length && own[next] === undefined) next++
    const given = own[next]?.getTime()
    // without a time of its own the last one is at the end
    const until = Math.max(before, given ?? end.getTime())
    const steps = given === undefined ? next - at : next - at + 1
    for (let n = 1; at < next; at++, n++)
      times.push(new Date(Math.round(before + ((until - before) * n) / steps)))
    if (given !== undefined) {
      times.push(new Date(until))
      at = next + 1
    }
    before = until
  }
  return times
}
