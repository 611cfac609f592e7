import { Presets, SingleBar } from 'cli-progress'

export type Progress = {
  /** How far it is, in the unit of `total`, and what to say beside it. */
  update(value: number, text: string): void
  /** Ends the bar, so that other output begins on a line of its own. */
  stop(): void
}

const LINE_EVERY_MS = 5_000
const BAR_EVERY_MS = 100

/**
 * Progress for people: a bar on a terminal, a line now and then anywhere else. Without `total` there is no bar, only
 * the text.
 */
export function createProgress(stream: NodeJS.WriteStream, label: string, total?: number): Progress {
  return stream.isTTY ? createBar(stream, label, total) : createLines(stream, label, total)
}

function createBar(stream: NodeJS.WriteStream, label: string, total: number | undefined): Progress {
  const format = total === undefined ? `${label}  {text}` : `${label} [{bar}] {percentage} %  {text}`
  const bar = new SingleBar(
    {
      format,
      stream,
      hideCursor: true,
      barsize: 24,
      linewrap: false,
      fps: 1_000 / BAR_EVERY_MS,
      gracefulExit: false,
    },
    Presets.shades_classic,
  )
  bar.start(total ?? 1, 0, { text: '' })
  return {
    update: (value, text) => bar.update(total === undefined ? 0 : Math.min(value, total), { text }),
    stop: () => bar.stop(),
  }
}

function createLines(stream: NodeJS.WriteStream, label: string, total: number | undefined): Progress {
  let last = performance.now()
  return {
    update(value, text) {
      const now = performance.now()
      if (now - last < LINE_EVERY_MS) return
      last = now
      const percent = total === undefined || total === 0 ? '' : ` ${Math.floor((100 * value) / total)} %`
      stream.write(`${label}${percent}  ${text}\n`)
    },
    stop: () => {},
  }
}
