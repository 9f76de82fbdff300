/** Typesets formulas. What does it weighs more than the page: it is loaded with the first one. */

type Render = (element: HTMLElement, tex: string, isDisplay: boolean) => void

/** A macro that calls itself must not hang the page, nor a huge rule cover it. */
const MOST_EXPANSIONS = 200
const LARGEST_EM = 20

let loaded: Promise<Render> | undefined

export function typeset(): Promise<Render> {
  loaded ??= load()
  return loaded
}

async function load(): Promise<Render> {
  const [{ default: katex }] = await Promise.all([
    import('katex'),
    import('katex/dist/katex.min.css'),
  ])
  const options = {
    trust: false,
    strict: 'ignore',
    maxExpand: MOST_EXPANSIONS,
    maxSize: LARGEST_EM,
  } as const
  return (element, tex, isDisplay) => {
    try {
      katex.render(tex, element, { ...options, displayMode: isDisplay })
    } catch (error) {
      // What is nested too deep ends in a RangeError.
      if (!(error instanceof katex.ParseError || error instanceof RangeError)) throw error
      // KaTeX's own way to show it has an inline style, which the page's policy refuses.
      element.textContent = tex
      element.title = error.message
    }
  }
}
