import { svelte } from '@sveltejs/vite-plugin-svelte'
import { defineConfig } from 'vitest/config'

export default defineConfig({
  // Relative addresses: the same build works under any base path.
  base: './',
  plugins: [svelte()],
  build: {
    outDir: '../src/inkstream/page',
    emptyOutDir: true,
    target: 'es2022',
    // These know light-dark(); older targets would get a transpiled copy of every colour.
    cssTarget: ['chrome123', 'edge123', 'firefox120', 'safari17.5'],
    modulePreload: { polyfill: false },
    reportCompressedSize: false,
  },
  server: {
    proxy: { '/api': process.env['INKSTREAM_DEV_SERVER'] ?? 'http://127.0.0.1:8000' },
  },
  test: { include: ['src/**/*.test.ts'] },
})
