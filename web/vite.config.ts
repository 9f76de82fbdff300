import { svelte } from '@sveltejs/vite-plugin-svelte'
import { createHash } from 'node:crypto'
import { readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { brotliCompressSync, gzipSync } from 'node:zlib'
import type { Plugin } from 'vite'
import { defineConfig } from 'vitest/config'

/** KaTeX names each font in three formats, of which every browser that we serve reads the first. */
const onlyWoff2: Plugin = {
  name: 'only-woff2',
  enforce: 'pre',
  transform(code, id) {
    if (!id.includes('/katex/') || !id.endsWith('.css')) return null
    return { code: code.replace(/,\s*url\([^)]*\) format\("(?:woff|truetype)"\)/g, ''), map: null }
  },
}

/** Names the build in its document, so that a page can tell whether the server has a newer one. */
const namedBuild: Plugin = {
  name: 'named-build',
  transformIndexHtml: {
    order: 'post',
    handler(_html, { bundle }) {
      if (!bundle) return []
      // They are named by what is in them.
      const names = Object.keys(bundle).sort().join('\n')
      const content = createHash('sha256').update(names).digest('hex').slice(0, 16)
      return [{ tag: 'meta', attrs: { name: 'build', content }, injectTo: 'head' }]
    },
  },
}

/** Text lies beside itself compressed, so that the server has only to choose. What gains nothing is left out. */
const compressed: Plugin = {
  name: 'compressed',
  apply: 'build',
  async writeBundle({ dir = '' }, bundle) {
    for (const name of Object.keys(bundle).filter((file) => /\.(?:js|css|html)$/.test(file))) {
      const file = join(dir, name)
      const text = await readFile(file)
      const forms = { br: brotliCompressSync(text), gz: gzipSync(text, { level: 9 }) }
      for (const [suffix, bytes] of Object.entries(forms)) {
        if (bytes.length < text.length) await writeFile(`${file}.${suffix}`, bytes)
      }
    }
  },
}

export default defineConfig({
  // Relative addresses: the same build works under any base path.
  base: './',
  plugins: [onlyWoff2, namedBuild, svelte(), compressed],
  worker: { format: 'es' },
  build: {
    outDir: '../src/inkstream/page',
    emptyOutDir: true,
    target: 'es2022',
    // These know light-dark(); older targets would get a transpiled copy of every colour.
    cssTarget: ['chrome123', 'edge123', 'firefox120', 'safari17.5'],
    modulePreload: { polyfill: false },
    reportCompressedSize: false,
    // The page's policy allows fonts from here only, and an inlined one comes from nowhere.
    assetsInlineLimit: (path) => (path.endsWith('.woff2') ? false : undefined),
  },
  server: {
    proxy: { '/api': process.env['INKSTREAM_DEV_SERVER'] ?? 'http://127.0.0.1:8000' },
  },
  test: { include: ['src/**/*.test.ts'] },
  // What draws is tested as a browser has it, and not as a server would render it.
  ...(process.env['VITEST'] ? { resolve: { conditions: ['browser'] } } : {}),
})
