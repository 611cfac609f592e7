import { FLOAT, FLOAT16, INT64, type OnnxGraph, type OnnxNode, type OnnxTensor } from './onnx-model.ts'

/** The parts of a BERT's config.json that shape it. */
export type BertConfig = {
  hidden_size: number
  num_attention_heads: number
  num_hidden_layers: number
  layer_norm_eps: number
}

/** A tensor of 16-bit numbers, as it lies in the file. */
export type Weight = { shape: readonly number[]; bytes: Uint8Array }

/** The tensors of a file of safetensors, by name: a JSON header with their places, then their bytes. */
export function readSafetensors(file: Buffer): Map<string, Weight> {
  const start = 8 + Number(file.readBigUInt64LE(0))
  const header = JSON.parse(file.toString('utf8', 8, start)) as Record<
    string,
    { dtype: string; shape: number[]; data_offsets: [number, number] }
  >
  const weights = new Map<string, Weight>()
  for (const [name, { dtype, shape, data_offsets: [from, to] = [0, 0] }] of Object.entries(header)) {
    if (dtype === 'F16') weights.set(name, { shape, bytes: file.subarray(start + from, start + to) })
  }
  return weights
}

/**
 * BERT (Devlin et al., 2018) with the mean of the last layer over the tokens of a text (Reimers and Gurevych, 2019).
 * Inputs: `ids` int64 [texts, tokens]; `mask` float [texts, tokens], 1 for a token and 0 for what fills up; `positions`
 * int64 [tokens]. Output: `vectors` float [texts, hidden], not of length 1 yet. It computes with 32 bits.
 */
export function buildBert(weights: Map<string, Weight>, config: BertConfig): OnnxGraph {
  const { hidden_size: hidden, num_attention_heads: heads, num_hidden_layers: layers } = config
  const nodes: OnnxNode[] = []
  const constants: OnnxTensor[] = []
  let count = 0

  function add(
    op: string,
    inputs: readonly string[],
    attributes?: OnnxNode['attributes'],
    output = `v${count++}`,
  ) {
    nodes.push({ op, inputs, output, attributes })
    return output
  }
  /** A weight, with the 32 bits that all computing has: loading folds the conversion into the constant. */
  function weight(name: string): string {
    const found = weights.get(name)
    if (found === undefined) throw new Error(`the model lacks ${name}`)
    constants.push({ name, type: FLOAT16, ...found })
    return add('Cast', [name], { to: FLOAT })
  }
  function floats(name: string, ...values: number[]): string {
    constants.push({ name, type: FLOAT, shape: [values.length], bytes: littleEndian(values, 4) })
    return name
  }
  function integers(name: string, ...values: number[]): string {
    constants.push({ name, type: INT64, shape: [values.length], bytes: littleEndian(values, 8) })
    return name
  }

  const epsilon = { float: config.layer_norm_eps }
  const one = floats('one', 1)
  const scale = floats('scale', 1 / Math.sqrt(hidden / heads))
  const split = integers('split', 0, 0, heads, hidden / heads)
  const merge = integers('merge', 0, 0, hidden)
  const second = integers('second', 1)
  const last = integers('last', 2)

  const layerNorm = (input: string, name: string) =>
    add('LayerNormalization', [input, weight(`${name}.weight`), weight(`${name}.bias`)], {
      axis: -1,
      epsilon,
    })
  function dense(input: string, name: string): string {
    const matrix = add('Transpose', [weight(`${name}.weight`)], { perm: [1, 0] })
    return add('Add', [add('MatMul', [input, matrix]), weight(`${name}.bias`)])
  }
  function attention(input: string, layer: string, bias: string): string {
    const part = (name: string, perm: number[]) =>
      add('Transpose', [add('Reshape', [dense(input, `${layer}.attention.self.${name}`), split])], { perm })
    const query = add('Mul', [part('query', [0, 2, 1, 3]), scale])
    const scores = add('Add', [add('MatMul', [query, part('key', [0, 2, 3, 1])]), bias])
    const shares = add('Softmax', [scores], { axis: -1 })
    const mixed = add('MatMul', [shares, part('value', [0, 2, 1, 3])])
    return add('Reshape', [add('Transpose', [mixed], { perm: [0, 2, 1, 3] }), merge])
  }
  function encode(input: string, layer: string, bias: string): string {
    const mixed = dense(attention(input, layer, bias), `${layer}.attention.output.dense`)
    const attended = layerNorm(add('Add', [mixed, input]), `${layer}.attention.output.LayerNorm`)
    const inner = add('Gelu', [dense(attended, `${layer}.intermediate.dense`)])
    const output = dense(inner, `${layer}.output.dense`)
    return layerNorm(add('Add', [output, attended]), `${layer}.output.LayerNorm`)
  }

  const words = add('Gather', [weight('embeddings.word_embeddings.weight'), 'ids'])
  const places = add('Gather', [weight('embeddings.position_embeddings.weight'), 'positions'])
  // a text is all of the first type
  const type = add('Gather', [weight('embeddings.token_type_embeddings.weight'), integers('first', 0)])
  const placed = add('Add', [words, add('Add', [places, type])])
  let hiddens = layerNorm(placed, 'embeddings.LayerNorm')
  // what fills up gets a share of nothing
  const filled = add('Mul', [add('Sub', ['mask', one]), floats('far', 10_000)])
  const bias = add('Unsqueeze', [filled, integers('inner', 1, 2)])
  for (let layer = 0; layer < layers; layer++) hiddens = encode(hiddens, `encoder.layer.${layer}`, bias)
  const sum = add('ReduceSum', [add('Mul', [hiddens, add('Unsqueeze', ['mask', last])]), second], {
    keepdims: 0,
  })
  add('Div', [sum, add('ReduceSum', ['mask', second], { keepdims: 1 })], {}, 'vectors')

  return {
    nodes,
    constants,
    inputs: [
      { name: 'ids', type: INT64, shape: ['texts', 'tokens'] },
      { name: 'mask', type: FLOAT, shape: ['texts', 'tokens'] },
      { name: 'positions', type: INT64, shape: ['tokens'] },
    ],
    outputs: [{ name: 'vectors', type: FLOAT, shape: ['texts', hidden] }],
  }
}

function littleEndian(values: readonly number[], size: 4 | 8): Uint8Array {
  const bytes = Buffer.alloc(size * values.length)
  for (const [i, value] of values.entries()) {
    if (size === 4) bytes.writeFloatLE(value, 4 * i)
    else bytes.writeBigInt64LE(BigInt(value), 8 * i)
  }
  return bytes
}
