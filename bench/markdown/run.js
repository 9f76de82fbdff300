// Renders the same long answer in several ways in a real Chromium, and prints what each step of it costs:
//   npm ci && npm run bench [-- --tokens 20000 --seed 1 --limit 60 --chromium /usr/bin/chromium]
// Needs `npm ci` in web/ as well. A step is what 200 tokens a second bring to a frame, with its layout.
import { createReadStream, existsSync } from 'node:fs'
import { createServer } from 'node:http'
import { extname, join, normalize } from 'node:path'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { chromium } from 'playwright-core'

const RENDERERS = ['inkstream', 'streaming-markdown', 'streamdown', 'markdown-it per paint']
const TYPES = { '.html': 'text/html', '.js': 'text/javascript', '.css': 'text/css' }
const built = fileURLToPath(new URL('./dist/', import.meta.url))

const { values: options } = parseArgs({
  options: {
    tokens: { type: 'string', default: '20000' },
    seed: { type: 'string', default: '1' },
    /** Seconds of work after which a renderer is stopped. */
    limit: { type: 'string', default: '60' },
    chromium: { type: 'string', default: '/usr/bin/chromium' },
  },
})

function serve() {
  const server = createServer((request, response) => {
    const { pathname } = new URL(request.url ?? '/', 'http://localhost')
    const path = join(built, normalize(pathname === '/' ? '/index.html' : pathname))
    if (!path.startsWith(built) || !existsSync(path)) return response.writeHead(404).end()
    response.writeHead(200, { 'content-type': TYPES[extname(path)] ?? 'application/octet-stream' })
    return createReadStream(path).pipe(response)
  })
  return new Promise((resolve) => server.listen(0, '127.0.0.1', () => resolve(server)))
}

/** In a page of its own: nothing that one renderer leaves behind slows the next. */
async function measure(browser, url, renderer) {
  const page = await browser.newPage()
  page.on('pageerror', (error) => console.error(`${renderer}: ${error}`))
  const session = await page.context().newCDPSession(page)
  await session.send('Performance.enable', { timeDomain: 'threadTicks' })
  await page.goto(url)
  const before = await taskSeconds(session)
  const order = {
    renderer,
    seed: Number(options.seed),
    tokens: Number(options.tokens),
    limit: Number(options.limit) * 1_000,
  }
  const outcome = await page.evaluate((given) => globalThis.run(given), order)
  const seconds = (await taskSeconds(session)) - before
  await page.close()
  return { ...outcome, seconds }
}

async function taskSeconds(session) {
  const { metrics } = await session.send('Performance.getMetrics')
  return metrics.find(({ name }) => name === 'TaskDuration')?.value ?? NaN
}

const sum = (numbers) => numbers.reduce((total, number) => total + number, 0)

function row(renderer, { steps, tokens, elements, seconds }) {
  const tenth = Math.floor(steps.length / 10)
  const sorted = steps.toSorted((a, b) => a - b)
  const share = tokens / Number(options.tokens)
  return [
    renderer.padEnd(22),
    `${Math.round(100 * share)} %`.padStart(8),
    seconds.toFixed(2).padStart(9),
    ((1e6 * seconds) / tokens).toFixed(0).padStart(10),
    (sum(steps.slice(-tenth)) / sum(steps.slice(0, tenth))).toFixed(2).padStart(11),
    (sorted[Math.floor(0.99 * sorted.length)] ?? NaN).toFixed(1).padStart(9),
    (sorted.at(-1) ?? NaN).toFixed(1).padStart(9),
    String(elements).padStart(9),
  ].join('')
}

const server = await serve()
const browser = await chromium.launch({ executablePath: options.chromium, args: ['--no-sandbox'] })
try {
  const headings = ['shown', 'cpu s', 'µs/token', 'last/first', 'p99 ms', 'worst ms', 'elements']
  const widths = [8, 9, 10, 11, 9, 9, 9]
  console.log(''.padEnd(22) + headings.map((text, at) => text.padStart(widths[at])).join(''))
  const url = `http://127.0.0.1:${server.address().port}/`
  for (const renderer of RENDERERS)
    console.log(row(renderer, await measure(browser, url, renderer)))
} finally {
  await browser.close()
  server.close()
}
