import { parse } from 'content-disposition'
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { anyText } from '../../test/arbitraries.ts'
import { BEGINNING_BYTES } from '../blobs/blobs.ts'
import { contentTypeOf, detectType, dispositionOf, nameFor } from './media.ts'

const PNG = Buffer.from(
  'iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==',
  'base64',
)
const HTML = '<!doctype html><html><script>alert(1)</script></html>'
const SVG = '<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>'
const DOCX = 'application/vnd.openxmlformats-officedocument.wordprocessingml.document'
const CONTENT_TYPES = `<Types><Override PartName="/word/document.xml" ContentType="${DOCX}.main+xml"/></Types>`
const NO_ZIP = Buffer.from(`504b0506${'00'.repeat(18)}`, 'hex')

/** An archive of files that are stored as they are, without the directory at its end, which lies behind the beginning. */
function zipOf(...files: [name: string, text: string][]): Buffer {
  return Buffer.concat(
    files.map(([name, text]) => {
      const head = Buffer.alloc(30)
      head.writeUInt32LE(0x04034b50, 0)
      head.writeUInt16LE(20, 4)
      head.writeUInt32LE(text.length, 18)
      head.writeUInt32LE(text.length, 22)
      head.writeUInt16LE(name.length, 26)
      return Buffer.concat([head, Buffer.from(name + text)])
    }),
  )
}

describe('the type of bytes', () => {
  const cases: [what: string, bytes: Uint8Array | string, claims: object, type: string][] = [
    ['an image that is called a page', PNG, { mime: 'text/html', filename: 'a.html' }, 'image/png'],
    ['a page that is called an image', HTML, { mime: 'image/png', filename: 'a.png' }, 'text/plain'],
    ['a page that nobody calls one', HTML, {}, 'text/plain'],
    ['a page that is called one', HTML, { mime: 'Text/HTML; charset=latin1' }, 'text/html'],
    [
      'an image that begins with an image, and goes on as script',
      'GIF89a=1;alert(1)',
      { filename: 'a.js' },
      'image/gif',
    ],
    ['an SVG by its name', SVG, { filename: 'a.svg' }, 'image/svg+xml'],
    ['an SVG by its declaration', `<?xml version="1.0"?>${SVG}`, { mime: 'image/svg+xml' }, 'image/svg+xml'],
    ['an SVG that is called a PNG', SVG, { mime: 'image/png' }, 'text/plain'],
    ['XML', '<?xml version="1.0"?><a/>', {}, 'application/xml'],
    ['a table', 'a,b\n1,2\n', { filename: 'a.csv' }, 'text/csv'],
    ['a table with a byte order mark', '\ufeffa,b\n', { filename: 'a.csv' }, 'text/csv'],
    ['JSON', '{"a":1}', { mime: 'application/json' }, 'application/json'],
    [
      'JSON, whose client says otherwise',
      '{"a":1}',
      { mime: 'image/jpeg', filename: 'a.json' },
      'application/json',
    ],
    ['script', 'alert(1)', { filename: 'a.js' }, 'text/javascript'],
    ['nothing', '', {}, 'text/plain'],
    ['nothing that is called an image', '', { mime: 'image/png', filename: 'a.png' }, 'text/plain'],
    ['a document', '%PDF-1.7\n', { mime: 'text/html' }, 'application/pdf'],
    ['a text document in an archive', zipOf(['[Content_Types].xml', CONTENT_TYPES]), {}, DOCX],
    ['an archive that is called a text document', NO_ZIP, { filename: 'a.docx' }, DOCX],
    ['an archive that is called a page', NO_ZIP, { mime: 'text/html' }, 'application/zip'],
    [
      'a program that is called a page',
      Buffer.from('MZ\x90\0', 'latin1'),
      { mime: 'text/html' },
      'application/x-msdownload',
    ],
    ['text with NUL in it', 'a\0b', { mime: 'text/html' }, 'application/octet-stream'],
    [
      'text that is not UTF-8',
      Buffer.from('caf\xe9!', 'latin1'),
      { filename: 'a.csv' },
      'application/octet-stream',
    ],
    [
      'the same at its end',
      Buffer.from('caf\xe9', 'latin1'),
      { filename: 'a.csv' },
      'application/octet-stream',
    ],
    ['two bytes of no kind', Buffer.from([0x80, 0x81]), { filename: 'a.csv' }, 'application/octet-stream'],
    ['bytes of no kind', Buffer.from([0x80, 0x81, 0, 1]), { mime: 'text/html' }, 'application/octet-stream'],
    ['a claim that is no type', 'x', { mime: 'constructor', filename: '__proto__' }, 'text/plain'],
    ['a claim that would end a header', 'x', { mime: 'text/html\r\nx: y' }, 'text/plain'],
  ]
  test.each(cases)('%s', async (_, bytes, claims, type) => {
    expect(await detectType(Buffer.from(bytes), claims)).toBe(type)
  })

  test('a character that is cut at the end of the beginning is still text', async () => {
    for (const character of ['a', 'é', '€', '😀'])
      for (let before = 0; before < 4; before++) {
        const text = Buffer.from('x'.repeat(before) + character.repeat(BEGINNING_BYTES))
        const beginning = text.subarray(0, BEGINNING_BYTES)
        expect(await detectType(beginning, { filename: 'a.csv' }), `${before} ${character}`).toBe('text/csv')
      }
  })

  test('whatever the bytes and the claims are, it is a type, and one that is shown only when the bytes say so', async () => {
    const claims = fc.record({ mime: anyText, filename: anyText }, { requiredKeys: [] })
    await fc.assert(
      fc.asyncProperty(fc.uint8Array({ maxLength: 300 }), claims, async (bytes, claimed) => {
        expect(await detectType(bytes, claimed)).toMatch(/^[\w.+-]+\/[\w.+-]+$/)
      }),
    )
    await fc.assert(
      fc.asyncProperty(
        anyText,
        fc.constantFrom('image/png', 'video/mp4', 'application/pdf'),
        async (text, mime) => {
          const type = await detectType(Buffer.from(`<p>${text.replaceAll('\0', '')}`), { mime })
          expect(['text/plain', 'application/octet-stream']).toContain(type)
        },
      ),
    )
  })

  test('text says its encoding, and what has no name gets one', () => {
    expect(contentTypeOf('text/csv')).toBe('text/csv; charset=utf-8')
    expect(contentTypeOf('image/png')).toBe('image/png')
    expect([nameFor('image/png'), nameFor('text/plain'), nameFor('x/y')]).toEqual([
      'file.png',
      'file.txt',
      'file',
    ])
  })
})

describe('how browsers take it', () => {
  test.each([
    'text/html',
    'image/svg+xml',
    'application/xhtml+xml',
    'text/xml',
    'application/xml',
    'text/javascript',
    'application/javascript',
    'text/css',
    'text/csv',
    'application/json',
    'application/zip',
    'application/octet-stream',
    'message/rfc822',
    'multipart/related',
    'application/x-shockwave-flash',
    'text/plainx',
    'ximage/png',
  ])('%s is saved', (type) => {
    expect(dispositionOf(type, 'a')).toBe('attachment; filename=a')
  })

  test.each([
    'image/png',
    'image/jpeg',
    'image/webp',
    'audio/mpeg',
    'video/mp4',
    'application/pdf',
    'text/plain',
  ])('%s is shown, unless it is asked for as a download', (type) => {
    expect(dispositionOf(type, 'a')).toBe('inline; filename=a')
    expect(dispositionOf(type, 'a', { download: true })).toBe('attachment; filename=a')
  })
})

describe('the name in the header', () => {
  const nameIn = (filename: string) => parse(dispositionOf('image/png', filename)).parameters.filename

  test.each([
    ['plain.png', 'plain.png'],
    ['../../etc/passwd', 'passwd'],
    ['/etc/passwd', 'passwd'],
    ['C:\\windows\\system.ini', 'system.ini'],
    ['a/b/', 'b'],
    ['a\0b', 'a_b'],
    ['a\r\nset-cookie: x=1\r\n\r\n<html>', 'a__set-cookie: x=1____<html>'],
    ['a\u0085b\u2028c', 'a_b\u2028c'],
    ['quo"te\'s;x=y.png', 'quo"te\'s;x=y.png'],
    ['"; filename="evil.exe', '"; filename="evil.exe'],
    ['%0d%0a%22.png', '%0d%0a%22.png'],
    ['\u202egnp.exe', '_gnp.exe'],
    ['a\u2066b\u200f', 'a_b_'],
    ['\ud800x', '\ufffdx'],
    ['Überblick € 用户 🙂.pdf', 'Überblick € 用户 🙂.pdf'],
    ['...', 'file'],
    ['..', 'file'],
    ['.htaccess', 'htaccess'],
    ['', 'file'],
    [' \t\n', '__'],
    ['   ', 'file'],
    ['a'.repeat(300), 'a'.repeat(255)],
    [`${'😀'.repeat(300)}.png`, `${'😀'.repeat(251)}.png`],
  ])('%j becomes %j', (filename, name) => {
    expect(nameIn(filename)).toBe(name)
  })

  test('whatever it is: one line of ASCII that reads back to a name and no path', () => {
    const odd = fc.array(
      fc.oneof(
        anyText,
        fc.constantFrom('\r\n', '"', '\\', '/', '..', ';', '\ud800', '\u202e', '%', "''", '='),
      ),
      { maxLength: 8 },
    )
    fc.assert(
      fc.property(odd, fc.boolean(), (parts, download) => {
        const header = dispositionOf('image/png', parts.join(''), { download })
        expect(header).toMatch(/^(inline|attachment); [\x20-\x7e]+$/)
        const { filename = '', ...rest } = parse(header).parameters
        expect(Object.keys(rest)).toEqual('filename*' in rest ? ['filename*'] : [])
        expect(filename).not.toMatch(/^\.|[/\\]|[\p{Cc}\p{Bidi_Control}]/u)
        expect(filename.length).toBeGreaterThan(0)
        expect(Array.from(filename).length).toBeLessThanOrEqual(255)
      }),
      { numRuns: 500 },
    )
  })
})
