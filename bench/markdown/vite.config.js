import { svelte, vitePreprocess } from '@sveltejs/vite-plugin-svelte'
import { defineConfig } from 'vite'

export default defineConfig({
  base: './',
  plugins: [svelte({ configFile: false, preprocess: vitePreprocess() })],
  // What is measured here and the page's components must share one Svelte.
  resolve: { dedupe: ['svelte'] },
  worker: { format: 'es' },
  build: { target: 'es2022', reportCompressedSize: false, chunkSizeWarningLimit: 4_000 },
})
