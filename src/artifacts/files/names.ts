/** `report.pdf` as the n-th of its name: `report (n).pdf`; 0 is the name itself. A leading dot begins no ending. */
export function numbered(name: string, n: number): string {
  if (n === 0) return name
  const dot = name.lastIndexOf('.')
  // what stands behind a separator or a space, or is long, is no ending
  const ending = dot > 0 && /^\.[^./\\ ]{1,20}$/.test(name.slice(dot)) ? name.slice(dot) : ''
  return `${name.slice(0, name.length - ending.length)} (${n})${ending}`
}
