/** Answers to test with, made by chance from a seed: the same seed gives the same text. */

/** Mulberry32, by Tommy Ettinger: 32 bits of state are enough for texts. */
export class Chance {
  #state: number

  constructor(seed: number) {
    this.#state = seed
  }

  /** At least 0, less than 1. */
  next(): number {
    this.#state = (this.#state + 0x6d2b79f5) | 0
    let bits = Math.imul(this.#state ^ (this.#state >>> 15), 1 | this.#state)
    bits = (bits + Math.imul(bits ^ (bits >>> 7), 61 | bits)) ^ bits
    return ((bits ^ (bits >>> 14)) >>> 0) / 2 ** 32
  }

  below(limit: number): number {
    return Math.floor(this.next() * limit)
  }

  pick<T>(items: readonly T[]): T {
    const item = items[this.below(items.length)]
    if (item === undefined) throw new Error('There is nothing to pick from.')
    return item
  }

  times<T>(count: number, make: (index: number) => T): T[] {
    return Array.from({ length: count }, (_, index) => make(index))
  }

  /** Cuts a text into pieces of up to `longest` units. */
  cut(text: string, longest: number): string[] {
    const pieces = []
    for (let at = 0; at < text.length;) {
      const length = 1 + this.below(longest)
      pieces.push(text.slice(at, at + length))
      at += length
    }
    return pieces
  }
}

const WORDS =
  'the model reads each token once and writes what follows while a reader waits for the answer in a page that stays calm'.split(
    ' ',
  )
const HAN =
  '\u6d41\u5f0f \u8f93\u51fa \u6a21\u578b \u8bfb\u8005 \u7b49\u5f85 \u56de\u7b54 \u6bcf\u4e2a \u8bcd\u5143 \u6309\u7167 \u987a\u5e8f \u5230\u8fbe \u9875\u9762 \u5e73\u7a33 \u663e\u793a \u5185\u5bb9'.split(
    ' ',
  )
const FORMULAS = [
  'x^2',
  '\\frac{a}{b}',
  'e^{i\\pi} + 1 = 0',
  '\\sum_{k=1}^{n} k',
  '\\alpha + \\beta',
]
const CODE = [
  'def answer(question: str) -> str:',
  '    for token in model.generate(question):',
  '\tlog.append(token)  # durable before visible',
  '',
  '    return "".join(tokens) if tokens else None',
  'const total = items.map((item) => item.price * 2)',
  '# not a heading * nor _emphasis_ | nor a table',
]

/** An answer of the kinds of blocks that chat models write. */
export function answerOf(chance: Chance, blocks: number): string {
  return chance.times(blocks, () => chance.pick(BLOCKS)(chance)).join('\n\n')
}

type Writer = (chance: Chance) => string

const latin: Writer = (chance) =>
  `${chance.times(4 + chance.below(14), () => span(chance, chance.pick(WORDS))).join(' ')}.`

const han: Writer = (chance) =>
  `${chance.times(4 + chance.below(14), () => span(chance, chance.pick(HAN))).join('')}\u3002`

const sentence: Writer = (chance) => chance.pick([latin, han])(chance)

export const paragraph: Writer = (chance) =>
  chance.times(1 + chance.below(4), () => sentence(chance)).join(' ')

function span(chance: Chance, word: string): string {
  const dressed = [
    `**${word}**`,
    `**${word}\uff1a**`,
    `*${word}*`,
    `\`${word}\``,
    `~~${word}~~`,
    `$${chance.pick(FORMULAS)}$`,
    `\\(${chance.pick(FORMULAS)}\\)`,
    `[${word}](https://example.com/${chance.below(100)})`,
    `https://example.com/${word}?q=1`,
  ]
  return chance.next() < 0.12 ? chance.pick(dressed) : word
}

const heading: Writer = (chance) => `${'#'.repeat(1 + chance.below(4))} ${sentence(chance)}`

export const codeBlock: Writer = (chance) => {
  const lines = chance.times(3 + chance.below(20), () => chance.pick(CODE))
  return ['```' + chance.pick(['python', 'ts', '']), ...lines, '```'].join('\n')
}

const list: Writer = (chance) => {
  const isOrdered = chance.next() < 0.5
  const gap = chance.next() < 0.2 ? '\n\n' : '\n'
  const items = chance.times(2 + chance.below(5), (at) => {
    const marker = isOrdered ? `${at + 1}.` : chance.pick(['- ', '- [x] ', '- [ ] ']).trimEnd()
    const inner = chance.next() < 0.3 ? `\n   - ${sentence(chance)}\n   - ${sentence(chance)}` : ''
    return `${marker} ${sentence(chance)}${inner}`
  })
  return items.join(gap)
}

export const table: Writer = (chance) => {
  const columns = 2 + chance.below(4)
  const row = (cell: () => string): string => `| ${chance.times(columns, cell).join(' | ')} |`
  const rows = chance.times(2 + chance.below(8), () => row(() => span(chance, chance.pick(WORDS))))
  return [row(() => chance.pick(HAN)), row(() => chance.pick(['---', ':--', '--:'])), ...rows].join(
    '\n',
  )
}

const math: Writer = (chance) => {
  const formula = chance.times(1 + chance.below(3), () => chance.pick(FORMULAS)).join(' \\\\\n')
  return chance.pick([`$$\n${formula}\n$$`, `\\[\n${formula}\n\\]`, `\\[ ${formula} \\]`])
}

const quote: Writer = (chance) =>
  chance.times(1 + chance.below(3), () => `> ${sentence(chance)}`).join('\n')

const BLOCKS = [
  ...[paragraph, paragraph, paragraph, paragraph, heading, list, list, codeBlock],
  ...[table, math, quote, (): string => '---'],
]

/** Markup thrown together, for what nobody would think of: scraps with glue between them. */
export function soupOf(
  chance: Chance,
  length: number,
  scraps: readonly string[],
  glue: readonly string[],
): string {
  return chance.times(length, () => chance.pick(scraps) + chance.pick(glue)).join('')
}
