import { readdirSync, readFileSync } from 'node:fs'
import { expect, test } from 'vitest'

const folder = new URL('./', import.meta.url)
const modules = readdirSync(folder).filter((name) => /(?<!\.test|\.fake)\.ts$/.test(name))

test.each(modules)('%s needs nothing from outside but the parser of events', (name) => {
  const source = readFileSync(new URL(name, folder), 'utf8')
  const imported = [...source.matchAll(/ from '([^']+)'/g)].map(([, from]) => from)
  const foreign = imported.filter((from) => !/^\.\/[\w/.-]+\.ts$/.test(from ?? ''))
  expect(foreign.filter((from) => from !== 'eventsource-parser')).toEqual([])
})

test('importing the package touches neither the page nor the network', async () => {
  expect(Object.keys(await import('./index.ts'))).toContain('follow')
})
