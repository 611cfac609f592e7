import fc from 'fast-check'

type RawJson = typeof JSON & { rawJSON(text: string): object }

/** Strings with what databases stumble over: NUL, lone surrogates, U+FFFF (our own mark), escapes, quotes. */
export const anyText = fc.oneof(
  fc.string({ unit: 'binary', maxLength: 12 }),
  fc
    .array(
      fc.constantFrom(
        '\0',
        '\ud800',
        '\udc00',
        '\uffff',
        '\uffff0000',
        '\uffffd800',
        '\\u0000',
        '\\',
        '"',
        '😀',
        'é',
        'a',
      ),
      { maxLength: 8 },
    )
    .map((parts) => parts.join('')),
)

const key = anyText.filter((text) => text !== '__proto__')

const digits = (min: number, max: number) =>
  fc.array(fc.integer({ min: 0, max: 9 }), { minLength: min, maxLength: max }).map((list) => list.join(''))

/** The text of a JSON number, many of which no double can hold. */
export const numberText = fc
  .tuple(
    fc.constantFrom('', '-'),
    fc.integer({ min: 0, max: 9 }),
    digits(0, 20),
    fc.option(digits(1, 20)),
    fc.option(fc.tuple(fc.constantFrom('e', 'E', 'e+', 'e-'), fc.integer({ min: 0, max: 500 }))),
  )
  .map(([sign, first, rest, fraction, exponent]) => {
    const whole = first === 0 ? '0' : `${first}${rest}`
    return `${sign}${whole}${fraction === null ? '' : `.${fraction}`}${exponent === null ? '' : exponent.join('')}`
  })

/** A number as a client may send it: plain, or one that only its text can hold. */
const anyNumber = fc.oneof(
  fc.double({ noNaN: true, noDefaultInfinity: true }).map((value) => (Object.is(value, -0) ? 0 : value)),
  fc.integer(),
  fc.bigInt({ min: 2n ** 53n + 1n, max: 2n ** 80n }).map((value) => (JSON as RawJson).rawJSON(`${value}`)),
)

/** Any JSON value, numbers beyond a double as `JSON.rawJSON`. */
export const anyJson: fc.Arbitrary<unknown> = fc.letrec<{ value: unknown }>((tie) => ({
  value: fc.oneof(
    { maxDepth: 4, depthSize: 'small', withCrossShrink: true },
    fc.oneof(anyText, anyNumber, fc.boolean(), fc.constant(null)),
    fc.array(tie('value'), { maxLength: 4 }),
    fc.array(fc.tuple(key, tie('value')), { maxLength: 4 }).map((entries) => Object.fromEntries(entries)),
  ),
})).value

/** A JSON object, as meta and settings are. */
export const anyJsonObject = fc
  .array(fc.tuple(key, anyJson), { maxLength: 5 })
  .map((entries) => Object.fromEntries(entries) as Record<string, unknown>)

/** The bigint-exact value of a number's text, as sign and digits times a power of ten. */
export function exactNumber(text: string): string {
  const match = /^(-?)(\d+)(?:\.(\d+))?(?:[eE]([+-]?\d+))?$/.exec(text)
  if (match === null) throw new Error(`not a number: ${text}`)
  const [, sign = '', whole = '', fraction = '', exponent = '0'] = match
  let value = BigInt(whole + fraction)
  if (value === 0n) return '0'
  let power = Number(exponent) - fraction.length
  while (value % 10n === 0n) {
    value /= 10n
    power++
  }
  return `${sign}${value}e${power}`
}

/** A value as jsonb keeps it: no key order, numbers by their exact text. */
export function comparable(value: unknown): unknown {
  if (typeof value === 'number') return `number ${exactNumber(String(value))}`
  if (typeof value !== 'object' || value === null) return value
  if ('rawJSON' in value) return `number ${exactNumber(String(value.rawJSON))}`
  if (Array.isArray(value)) return value.map(comparable)
  return Object.entries(value)
    .sort(([a], [b]) => (a < b ? -1 : 1))
    .map(([key, item]) => [key, comparable(item)])
}
