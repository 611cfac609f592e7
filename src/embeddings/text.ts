/** No model here reads further, and who finds the tokens of a megabyte takes seconds for it. */
export const MAX_CHARS = 8_000

/** The part of a text that a model may come to read, as what all of them take for the same text. */
export function toReadable(text: string): string {
  return text.trimStart().slice(0, MAX_CHARS).toWellFormed()
}
