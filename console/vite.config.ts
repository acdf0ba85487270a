// Builds the console into dist/site: one script, one style, each also compressed. crates/diptych/build.rs embeds them.
// `npm run dev` serves the sources, and passes /v1 on to a cluster (DIPTYCH=127.0.0.1:8080).
import { gzipSync } from 'node:zlib'
import { readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { defineConfig, type Plugin } from 'vite'

const cluster = `http://${process.env.DIPTYCH ?? '127.0.0.1:8080'}`
const passed = { target: cluster, changeOrigin: true, headers: { origin: cluster } }

const compressed = (): Plugin => ({
  name: 'compressed',
  writeBundle({ dir }) {
    let bytes = 0
    for (const name of readdirSync(dir!).filter((name) => !name.endsWith('.gz'))) {
      const packed = gzipSync(readFileSync(`${dir}/${name}`), { level: 9 })
      writeFileSync(`${dir}/${name}.gz`, packed)
      bytes += packed.length
    }
    if (bytes > 200_000) throw new Error(`the console has ${bytes} bytes compressed; 200,000 are the limit`)
    console.log(`the console has ${bytes} bytes compressed`)
  },
})

export default defineConfig({
  plugins: [compressed()],
  server: { proxy: { '/v1': passed } },
  build: {
    outDir: 'dist/site',
    emptyOutDir: true,
    assetsDir: '',
    modulePreload: false,
    target: 'es2023',
    cssTarget: 'chrome123',
    rollupOptions: {
      input: 'src/console.tsx',
      output: {
        entryFileNames: 'console-[hash].js',
        chunkFileNames: 'part-[hash].js',
        assetFileNames: '[name]-[hash][extname]',
        codeSplitting: false,
      },
    },
  },
})
