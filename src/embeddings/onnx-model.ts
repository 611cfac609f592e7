/**
 * Writes models in the format of ONNX (onnx.proto3 of github.com/onnx/onnx), which is Protocol Buffers. Only what the
 * graph of a language model needs is there.
 */

export const FLOAT = 1
export const INT64 = 7
export const FLOAT16 = 10
type ElementType = typeof FLOAT | typeof INT64 | typeof FLOAT16

/** Bytes in parts, so that tensors are copied once, at the end. */
type Message = Uint8Array[]

export type Attribute = number | { float: number } | readonly number[]
export type OnnxNode = {
  op: string
  inputs: readonly string[]
  output: string
  attributes?: Readonly<Record<string, Attribute>>
}
export type OnnxTensor = { name: string; type: ElementType; shape: readonly number[]; bytes: Uint8Array }
/** A dimension that is a name may have any length. */
export type OnnxValue = { name: string; type: ElementType; shape: readonly (number | string)[] }
export type OnnxGraph = {
  /** Each after those whose outputs it takes. */
  nodes: readonly OnnxNode[]
  constants: readonly OnnxTensor[]
  inputs: readonly OnnxValue[]
  outputs: readonly OnnxValue[]
}

/** The version of the format, which came with {@link OPERATORS}. */
const FORMAT = 9
/** The version of the set of operators: the first that has Gelu. */
const OPERATORS = 20
const [ATTRIBUTE_FLOAT, ATTRIBUTE_INT, ATTRIBUTE_INTS] = [1, 2, 7]

export function encodeOnnx({ nodes, constants, inputs, outputs }: OnnxGraph): Uint8Array {
  const graph = [
    ...nodes.flatMap((node) => bytesField(1, encodeNode(node))),
    ...textField(2, 'graph'),
    ...constants.flatMap((tensor) => bytesField(5, encodeTensor(tensor))),
    ...inputs.flatMap((value) => bytesField(11, encodeValue(value))),
    ...outputs.flatMap((value) => bytesField(12, encodeValue(value))),
  ]
  return Buffer.concat([
    ...intField(1, FORMAT),
    ...bytesField(7, graph),
    ...bytesField(8, intField(2, OPERATORS)),
  ])
}

function encodeNode({ op, inputs, output, attributes = {} }: OnnxNode): Message {
  return [
    ...inputs.flatMap((name) => textField(1, name)),
    ...textField(2, output),
    ...textField(4, op),
    ...Object.entries(attributes).flatMap(([name, value]) => bytesField(5, encodeAttribute(name, value))),
  ]
}

function encodeAttribute(name: string, value: Attribute): Message {
  const named = textField(1, name)
  if (typeof value === 'number') return [...named, ...intField(3, value), ...intField(20, ATTRIBUTE_INT)]
  if ('float' in value) return [...named, ...floatField(2, value.float), ...intField(20, ATTRIBUTE_FLOAT)]
  return [...named, ...value.flatMap((item) => intField(8, item)), ...intField(20, ATTRIBUTE_INTS)]
}

function encodeTensor({ name, type, shape, bytes }: OnnxTensor): Message {
  return [
    ...shape.flatMap((length) => intField(1, length)),
    ...intField(2, type),
    ...textField(8, name),
    ...bytesField(9, [bytes]),
  ]
}

function encodeValue({ name, type, shape }: OnnxValue): Message {
  const dimensions = shape.flatMap((length) =>
    bytesField(1, typeof length === 'number' ? intField(1, length) : textField(2, length)),
  )
  const tensor = [...intField(1, type), ...bytesField(2, dimensions)]
  return [...textField(1, name), ...bytesField(2, bytesField(1, tensor))]
}

const [VARINT, LENGTH_DELIMITED, FIXED_32] = [0, 2, 5]

const tag = (field: number, wire: number) => varint((field << 3) | wire)
const intField = (field: number, value: number): Message => [tag(field, VARINT), varint(value)]
const textField = (field: number, text: string): Message => bytesField(field, [Buffer.from(text)])

function bytesField(field: number, content: Message): Message {
  const length = content.reduce((sum, part) => sum + part.length, 0)
  return [tag(field, LENGTH_DELIMITED), varint(length), ...content]
}

function floatField(field: number, value: number): Message {
  const bytes = Buffer.alloc(4)
  bytes.writeFloatLE(value)
  return [tag(field, FIXED_32), bytes]
}

/** Seven bits a byte, lowest first; a negative number has the 64 bits of its two's complement. */
function varint(value: number): Uint8Array {
  const bytes: number[] = []
  let rest = BigInt.asUintN(64, BigInt(value))
  for (; rest > 0x7fn; rest >>= 7n) bytes.push(Number(rest & 0x7fn) | 0x80)
  bytes.push(Number(rest))
  return Uint8Array.from(bytes)
}
