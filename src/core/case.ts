import { type TObject, type TProperties, type TSchema, Type } from 'typebox'

/** `createdAt` → `created_at`. */
export function snakeCase(name: string): string {
  return name.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`)
}

/** `created_at` → `createdAt`. */
export function camelCase(name: string): string {
  return name.replace(/_([a-z0-9])/g, (_, letter: string) => letter.toUpperCase())
}

type Snake<S extends string> = S extends `${infer Head}${infer Tail}`
  ? Head extends Lowercase<Head>
    ? `${Head}${Snake<Tail>}`
    : `_${Lowercase<Head>}${Snake<Tail>}`
  : S

/** The type with its own keys in snake_case; what the values hold is left alone. */
export type SnakeKeys<T> = { [K in keyof T as K extends string ? Snake<K> : K]: T[K] }

function mapKeys(value: object, rename: (key: string) => string): Record<string, unknown> {
  const result: Record<string, unknown> = {}
  for (const [key, item] of Object.entries(value)) if (item !== undefined) result[rename(key)] = item
  return result
}

const cached = (rename: (key: string) => string) => {
  const known = new Map<string, string>()
  return (key: string): string => {
    let name = known.get(key)
    if (name === undefined) {
      name = rename(key)
      if (known.size < 1_000) known.set(key, name)
    }
    return name
  }
}

const toSnake = cached(snakeCase)
const toCamel = cached(camelCase)

/** The object's own keys in snake_case, for HTTP; nested values (meta, content) are data and stay as they are. */
export function snakeKeys<T extends object>(value: T): SnakeKeys<T> {
  return mapKeys(value, toSnake) as SnakeKeys<T>
}

/** The object's own keys in camelCase, for the library; nested values stay as they are. */
export function camelKeys(value: object): Record<string, unknown> {
  return mapKeys(value, toCamel)
}

/** The HTTP twin of a library schema: the same object with its property names in snake_case. */
export function snakeSchema(schema: TObject): TObject {
  const properties: TProperties = {}
  for (const [name, property] of Object.entries(schema.properties))
    properties[snakeCase(name)] = property as TSchema
  const {
    properties: _,
    required: _required,
    type: _type,
    ...options
  } = schema as TObject & Record<string, unknown>
  return Type.Object(properties, options)
}
