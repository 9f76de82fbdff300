import { readFileSync } from 'node:fs'
import { expect, test } from 'vitest'
import {
  LONGEST_STOP,
  MOST_STOPS,
  NAMES,
  NUMBERS,
  readNumber,
  readStops,
  stopsProblem,
  writeStops,
} from './parameters.ts'

interface Schema {
  $defs: { sampling: { properties: Record<string, Record<string, unknown>> } }
}

const schema = JSON.parse(
  readFileSync(
    new URL('../../../src/inkstream/api/wire/chats.schema.json', import.meta.url),
    'utf8',
  ),
) as Schema
const { stop, ...numbers } = schema.$defs.sampling.properties
/** For programs: nothing that a reader would set. */
const NOT_OFFERED = ['ignore_eos', 'logit_bias', 'logprobs', 'min_tokens', 'top_logprobs']

test('the bounds are those of the wire', () => {
  expect([...NAMES, ...NOT_OFFERED].sort()).toEqual(Object.keys(numbers).sort())
  for (const name of NAMES) {
    const { minimum, maximum, isOpen, isWhole } = NUMBERS[name]
    expect(numbers[name], name).toEqual({
      type: isWhole ? 'integer' : 'number',
      [isOpen ? 'exclusiveMinimum' : 'minimum']: minimum,
      maximum,
    })
  }
  expect(stop).toMatchObject({ maxItems: MOST_STOPS, items: { maxLength: LONGEST_STOP } })
})

test.each([
  ['temperature', '0.7', 0.7],
  ['temperature', ' ０．７ ', 0.7],
  ['temperature', '0,7', 0.7],
  ['temperature', '', null],
  ['presence_penalty', '−1', -1],
  ['presence_penalty', '-.5', -0.5],
  ['min_p', '1e-3', 0.001],
  ['seed', '２０', 20],
  ['top_p', '1', 1],
] as const)('%s takes %j', (name, typed, value) => {
  expect(readNumber(name, typed)).toEqual({ value })
})

test.each([
  ['temperature', 'warm', 'number'],
  ['temperature', '1,000,000', 'number'],
  ['temperature', '0x1', 'number'],
  ['temperature', 'Infinity', 'number'],
  ['temperature', '5.1', 'bounds'],
  ['temperature', '-0.1', 'bounds'],
  ['top_p', '0', 'bounds'],
  ['top_k', '1.5', 'whole'],
  ['seed', '2147483648', 'bounds'],
] as const)('%s refuses %j', (name, typed, problem) => {
  expect(readNumber(name, typed)).toEqual({ problem })
})

test('stop texts are written as lines and read back', () => {
  const stops = ['\n\n', 'a\\n', '\t', '。', ' x ', '\\']
  expect(writeStops(stops).split('\n')).toHaveLength(stops.length)
  expect(readStops(writeStops(stops))).toEqual(stops)
  expect(readStops('\na\n\n')).toEqual(['a'])
})

test('there are bounds to stop texts too, counted in characters', () => {
  expect(stopsProblem(['👍'.repeat(LONGEST_STOP)])).toBeNull()
  expect(stopsProblem(['x'.repeat(LONGEST_STOP + 1)])).toBe('long')
  expect(stopsProblem(Array.from({ length: MOST_STOPS + 1 }, () => 'x'))).toBe('many')
})
