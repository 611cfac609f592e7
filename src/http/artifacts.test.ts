import { expect, test } from 'vitest'
import { FORM, filePart, formOf } from '../../test/forms.ts'
import { describeApi, refusal } from '../../test/http.ts'

describeApi('artifacts over HTTP', (api) => {
  const stored = async () => (await api.call('GET', '/api/files')).body.items.length

  test('a form that ends too early is refused, wherever it ends', async () => {
    const before = await stored()
    const whole = formOf({ name: 'meta', value: '{}' }, filePart('bytes'))
    for (let length = whole.length - 3; length > 0; length -= 7) {
      const answer = await api.call('POST', '/api/files', whole.subarray(0, length), FORM)
      expect(refusal(answer), `${length}`).toMatchObject({ status: 400, code: 'invalid_input' })
    }
    expect(await stored()).toBe(before)
  })
})
