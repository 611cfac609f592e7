/** A part of a form: a field, or a file where it has a filename. */
export type Part = { name: string; value: string | Uint8Array; filename?: string; type?: string }

const BOUNDARY = 'the-boundary-of-a-form'

export const FORM = { 'content-type': `multipart/form-data; boundary=${BOUNDARY}` }

/** `file` with a filename, as browsers send it. */
export const filePart = (value: string | Uint8Array, filename = 'a.txt', type?: string): Part => ({
  name: 'file',
  value,
  filename,
  ...(type === undefined ? {} : { type }),
})

/** The body of a form; its content type is {@link FORM}. Names are written as they are, but for quotes. */
export function formOf(...parts: Part[]): Buffer {
  const encoded = parts.map(({ name, value, filename, type }) => {
    const file = filename === undefined ? '' : `; filename="${filename.replaceAll('"', '%22')}"`
    const kind = type === undefined ? '' : `content-type: ${type}\r\n`
    const head = `--${BOUNDARY}\r\ncontent-disposition: form-data; name="${name}"${file}\r\n${kind}\r\n`
    return Buffer.concat([Buffer.from(head), Buffer.from(value), Buffer.from('\r\n')])
  })
  return Buffer.concat([...encoded, Buffer.from(`--${BOUNDARY}--\r\n`)])
}
