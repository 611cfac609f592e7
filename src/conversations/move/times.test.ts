import fc from 'fast-check'
import { expect, test } from 'vitest'
import { spreadTimes, timeOfFile } from './times.ts'

const at = (minute: number) => new Date(Date.UTC(2024, 0, 1, 0, minute))
const minutes = (times: Date[]) => times.map((time) => (time.getTime() - at(0).getTime()) / 60_000)

test('times that are missing are spread evenly, the last one at the end', () => {
  expect(minutes(spreadTimes([undefined, undefined, undefined, undefined], at(0), at(40)))).toEqual([
    10, 20, 30, 40,
  ])
  expect(spreadTimes([], at(0), at(40))).toEqual([])
})

test('a time of its own divides the others', () => {
  const own = [undefined, at(10), undefined, undefined, at(40), undefined]
  expect(minutes(spreadTimes(own, at(0), at(60)))).toEqual([5, 10, 20, 30, 40, 60])
})

test('an end before the start, and times that go back, are no way back', () => {
  expect(minutes(spreadTimes([undefined, undefined], at(20), at(10)))).toEqual([20, 20])
  expect(minutes(spreadTimes([at(30), at(10), undefined], at(0), at(20)))).toEqual([30, 30, 30])
})

test('they never decrease', () => {
  const time = fc.date({ min: at(0), max: at(1_000), noInvalidDate: true })
  fc.assert(
    fc.property(fc.array(fc.option(time, { nil: undefined })), time, time, (own, start, end) => {
      const times = spreadTimes(own, start, end)
      expect(times).toHaveLength(own.length)
      for (const [i, one] of times.entries()) {
        expect(one.getTime()).toBeGreaterThanOrEqual((times[i - 1] ?? start).getTime())
        if (own[i] !== undefined) expect(one.getTime()).toBeGreaterThanOrEqual(own[i].getTime())
      }
    }),
  )
})

test('a file that names no time was made when the file system says, unless it was copied since', () => {
  expect(timeOfFile({ mtime: at(5), birthtime: at(1) })).toEqual(at(1))
  expect(timeOfFile({ mtime: at(5), birthtime: at(9) })).toEqual(at(5))
  expect(timeOfFile({ mtime: at(5), birthtime: new Date(0) })).toEqual(at(5))
})
