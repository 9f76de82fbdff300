// Prints what a first visit downloads and fails beyond the budget.
import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { brotliCompressSync } from 'node:zlib'

const BUDGET_KIB = 90
const folder = fileURLToPath(new URL('../src/inkstream/page/', import.meta.url))
const names = readdirSync(folder, { recursive: true }).filter((name) =>
  /\.(js|css|html)$/.test(name),
)

let total = 0
for (const name of names.sort()) {
  const raw = readFileSync(join(folder, name))
  const packed = brotliCompressSync(raw).length
  total += packed
  console.log(
    `${(raw.length / 1024).toFixed(1).padStart(8)} KiB ${(packed / 1024).toFixed(1).padStart(7)} br  ${name}`,
  )
}
console.log(`${(total / 1024).toFixed(1).padStart(20)} br  of ${BUDGET_KIB} KiB`)
if (total > BUDGET_KIB * 1024) process.exit(1)
