import { defineConfig } from "vitest/config";

/** The server that `npm run dev` shows. */
const server = process.env.LANTERN_SERVER ?? "http://127.0.0.1:7420";

export default defineConfig({
  build: {
    target: "es2022",
    // Browsers with `light-dark()`: without this, vite would replace it.
    cssTarget: ["chrome123", "firefox121", "safari17.5"],
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
  },
  server: {
    proxy: {
      "/v1": { target: server, changeOrigin: true, ws: true, rewriteWsOrigin: true, headers: { origin: server } },
      "/readyz": { target: server, changeOrigin: true },
    },
  },
  test: { include: ["test/**/*.test.ts"], testTimeout: 600_000, hookTimeout: 120_000, fileParallelism: false },
});
