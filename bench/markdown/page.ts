/** Shows an answer step by step, as fast as it goes, and tells how long each step took with its layout. */
import { answerOf, Chance } from '../../web/src/stream/markdown/answers.fake.ts'
import { RENDERERS } from './renderers.ts'

/** What a token of Qwen2 has on average in such a mixture. */
const UNITS_PER_TOKEN = 4
/** 200 tokens a second at 60 frames a second. */
const TOKENS_PER_STEP = 200 / 60

export interface Order {
  readonly renderer: string
  readonly seed: number
  readonly tokens: number
  /** Gives up after so many milliseconds of work. */
  readonly limit: number
}

export interface Outcome {
  readonly steps: readonly number[]
  readonly tokens: number
  readonly elements: number
}

function answer({ seed, tokens }: Order): string {
  const chance = new Chance(seed)
  let text = ''
  while (text.length < tokens * UNITS_PER_TOKEN) text += `${answerOf(chance, 5)}\n\n`
  return text.slice(0, tokens * UNITS_PER_TOKEN)
}

async function run(order: Order): Promise<Outcome> {
  const target = document.querySelector('main')
  const create = RENDERERS[order.renderer]
  if (target === null || create === undefined) throw new Error(`There is no ${order.renderer}.`)
  const text = answer(order)
  const renderer = create(target)
  const steps: number[] = []
  const length = TOKENS_PER_STEP * UNITS_PER_TOKEN
  let [end, spent] = [0, 0]
  for (let step = 1; end < text.length && spent < order.limit; step += 1) {
    end = Math.min(text.length, Math.round(step * length))
    const shown = text.slice(0, end)
    const start = performance.now()
    renderer.show(shown, end === text.length)
    void target.offsetHeight
    steps.push(performance.now() - start)
    spent += steps.at(-1) ?? 0
    await turn()
  }
  return { steps, tokens: end / UNITS_PER_TOKEN, elements: target.querySelectorAll('*').length }
}

/** What was put off until after the step gets its turn; a frame would make it last for minutes. */
function turn(): Promise<void> {
  return new Promise((resolve) => {
    const { port1, port2 } = new MessageChannel()
    port1.onmessage = () => resolve()
    port2.postMessage(null)
  })
}

Object.assign(globalThis, { run })
