import hljs from 'highlight.js/lib/core'
import css from 'highlight.js/lib/languages/css'
import python from 'highlight.js/lib/languages/python'
import xml from 'highlight.js/lib/languages/xml'
import { expect, test } from 'vitest'
import { TokenList } from './emitter.ts'

hljs.registerLanguage('css', css)
hljs.registerLanguage('python', python)
hljs.registerLanguage('xml', xml)
hljs.configure({ __emitter: TokenList })

/** The texts of the tokens, found by their places. */
function tokensOf(language: string, code: string): string[] {
  const { _emitter: list, errorRaised } = hljs.highlight(code, { language })
  if (errorRaised) throw errorRaised
  if (!(list instanceof TokenList)) throw new Error('Another emitter was used.')
  const { places, kinds } = list.tokens
  const lines = code.split('\n')
  return kinds.map((kind, at) => {
    const [line = 0, from, to] = places.subarray(3 * at, 3 * at + 3)
    return `${kind} ${lines[line]?.slice(from, to)}`
  })
}

test('a token that goes over lines has a place in each', () => {
  expect(tokensOf('python', 'def f(x):\n  """one\n  two"""\n  return 1 # no')).toEqual([
    'keyword def',
    'title f',
    'string """one',
    'string   two"""',
    'keyword return',
    'number 1',
    'comment # no',
  ])
})

test('places are right inside and behind a language within another', () => {
  const tokens = tokensOf('xml', '<style>\nb { color: red }\n</style><i a="b">')
  expect(tokens).toContain('title color')
  expect(tokens.slice(-3)).toEqual(['keyword i', 'title a', 'string "b"'])
})
