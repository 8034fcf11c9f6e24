// Takes the pictures of README.md from a running demo: `node scripts/pictures.js ADDRESS`.
//
// It needs Chromium, and ImageMagick for the animated picture. With LANTERN_PAGE=dist the page is
// that of `npm run build`.
import { execFileSync } from "node:child_process";
import { mkdtempSync, rmSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { runnerImport } from "vite";

/** The frames of the animated picture, the time between two of them, and its largest size. */
const FRAMES = 24;
const FRAME_MS = 500;
const BYTES_MAX = 1.5e6;

const address = process.argv[2] ?? "http://127.0.0.1:7420";
const docs = (name) => fileURLToPath(new URL(`../../docs/${name}`, import.meta.url));
const { module: browsers } = await runnerImport(fileURLToPath(new URL("../test/browser.ts", import.meta.url)));
const browser = await browsers.launch();
const folder = mkdtempSync(join(tmpdir(), "lantern-pictures-"));
try {
  const { page } = await browsers.open(browser, `${address}/boards/demo?kiosk=1`, { viewport: { width: 1280, height: 800 } });
  await page.locator(".plot canvas").nth(1).waitFor();
  await page.screenshot({ path: docs("demo.png") });
  const frames = [];
  for (let frame = 0; frame < FRAMES; frame += 1) {
    frames.push(join(folder, `${String(frame).padStart(3, "0")}.png`));
    const next = Date.now() + FRAME_MS;
    await page.screenshot({ path: frames.at(-1) });
    await new Promise((resolve) => setTimeout(resolve, Math.max(0, next - Date.now())));
  }
  execFileSync("convert", ["-delay", String(FRAME_MS / 10), "-loop", "0", ...frames, "-resize", "900x", "+dither", "-colors", "64", "-layers", "Optimize", docs("demo.gif")]);
  const { size } = statSync(docs("demo.gif"));
  console.log(`docs/demo.gif has ${size} bytes`);
  if (size > BYTES_MAX) throw new Error(`docs/demo.gif has more than ${BYTES_MAX} bytes`);
} finally {
  await browser.close();
  rmSync(folder, { recursive: true });
}
