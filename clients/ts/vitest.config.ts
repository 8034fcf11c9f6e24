import { defineConfig } from "vitest/config";

export default defineConfig({
  test: { include: ["test/**/*.test.ts", "test/**/*.test.tsx"], testTimeout: 600_000, hookTimeout: 120_000 },
});
