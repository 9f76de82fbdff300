/** One way each to show an answer while it grows. `show` is called with all of it that is there. */
import MarkdownIt from 'markdown-it'
import { createElement } from 'react'
import { flushSync as flushReact } from 'react-dom'
import { createRoot } from 'react-dom/client'
import { default_renderer, parser, parser_end, parser_write } from 'streaming-markdown'
import { Streamdown } from 'streamdown'
import { flushSync as flushSvelte, mount } from 'svelte'
import Ours from './Ours.svelte'

export interface Renderer {
  show(text: string, isWhole: boolean): void
}

function ours(target: HTMLElement): Renderer {
  const { show } = mount(Ours, { target }) as unknown as Renderer
  return { show: (text, isWhole) => flushSvelte(() => show(text, isWhole)) }
}

function markdownIt(target: HTMLElement): Renderer {
  const renderer = new MarkdownIt({ linkify: true })
  return { show: (text) => (target.innerHTML = renderer.render(text)) }
}

function streamingMarkdown(target: HTMLElement): Renderer {
  const stream = parser(default_renderer(target))
  let length = 0
  return {
    show(text, isWhole) {
      parser_write(stream, text.slice(length))
      length = text.length
      if (isWhole) parser_end(stream)
    },
  }
}

function streamdown(target: HTMLElement): Renderer {
  const root = createRoot(target)
  return {
    show: (text, isWhole) =>
      flushReact(() => root.render(createElement(Streamdown, { isAnimating: !isWhole }, text))),
  }
}

export const RENDERERS: Readonly<Record<string, (target: HTMLElement) => Renderer>> = {
  inkstream: ours,
  'streaming-markdown': streamingMarkdown,
  streamdown,
  'markdown-it per paint': markdownIt,
}
