/** A match of `pattern` exactly at `position`. The pattern is sticky, so nothing is copied and nothing searched. */
export function matchAt(pattern: RegExp, text: string, position: number): RegExpExecArray | null {
  pattern.lastIndex = position
  return pattern.exec(text)
}
