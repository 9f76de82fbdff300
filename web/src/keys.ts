/**
 * Whether a key belongs to an input method, such as the Enter that confirms what was composed.
 *
 * Safari ends the composition before it sends that Enter, with `isComposing` false already: there only the
 * key code 229 tells. Other browsers say it with either or both.
 */
export function confirmsComposition(event: { isComposing: boolean; keyCode: number }): boolean {
  return event.isComposing || event.keyCode === 229
}
