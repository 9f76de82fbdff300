// Prints what the page downloads and fails where a first visit goes beyond the budget. What is loaded only
// when an answer needs it (formulas, the colours of code) is printed, and does not count.
import { readdirSync, readFileSync } from 'node:fs'
import { join, posix } from 'node:path'
import { fileURLToPath } from 'node:url'
import { brotliCompressSync } from 'node:zlib'

const BUDGET_KIB = 90
const folder = fileURLToPath(new URL('../src/inkstream/page/', import.meta.url))
const names = readdirSync(folder, { recursive: true }).filter((name) =>
  /\.(js|css|html)$/.test(name),
)

/** What a file names: a document everything in it, a module what it imports at once. */
function named(name) {
  const text = readFileSync(join(folder, name), 'utf8')
  const pattern = name.endsWith('.html')
    ? /(?:src|href)="([^"]+)"/g
    : /(?:^|[;}\s])(?:import|export)(?:[^"'();]*?from)?\s*["']([^"']+)["']/g
  const found = [...text.matchAll(pattern)].map(([, path]) => path)
  return found.map((path) => posix.join(posix.dirname(name), path))
}

const first = new Set(['index.html'])
for (const name of first) {
  if (!name.endsWith('.css'))
    named(name).forEach((other) => names.includes(other) && first.add(other))
}

let total = 0
for (const name of names.sort()) {
  const raw = readFileSync(join(folder, name))
  const packed = brotliCompressSync(raw).length
  if (first.has(name)) total += packed
  const sizes = [raw.length, packed].map((bytes) => (bytes / 1024).toFixed(1).padStart(8))
  console.log(`${sizes[0]} KiB ${sizes[1]} br  ${name}${first.has(name) ? '' : '  (when needed)'}`)
}
console.log(`${(total / 1024).toFixed(1).padStart(21)} br  of ${BUDGET_KIB} KiB on a first visit`)
if (total > BUDGET_KIB * 1024) process.exit(1)
