// The same in Chromium, and the time from opening a page to its first verified answer: node page.mjs PACKAGE URL calls|start SECONDS, with
// the package's files at FILES_PORT, which the server's --cors-origin names.

import { readFile } from "node:fs/promises";
import { createServer } from "node:http";
import path from "node:path";
import { fileURLToPath } from "node:url";

import { chromium } from "../../bindings/js/node_modules/playwright-core/index.mjs";

const [, , folder, url, what, seconds] = process.argv;
const TYPES = { ".js": "text/javascript", ".mjs": "text/javascript", ".wasm": "application/wasm" };
const files = createServer(async (request, response) => {
  const name = new URL(request.url, "http://localhost").pathname;
  const file = name === "/calls.mjs" ? fileURLToPath(new URL("calls.mjs", import.meta.url)) : path.join(folder, path.normalize(name));
  try {
    const body = name === "/" ? "<!doctype html><title>page</title>" : await readFile(file);
    response.writeHead(200, { "content-type": TYPES[path.extname(name)] ?? "text/html" });
    response.end(body);
  } catch {
    response.writeHead(404).end();
  }
});
await new Promise((resolve) => files.listen(Number(process.env.FILES_PORT), "127.0.0.1", resolve));
const browser = await chromium.launch({ executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium", args: ["--no-sandbox"] });
const page = await browser.newPage();
await page.goto(`http://127.0.0.1:${process.env.FILES_PORT}/`);
const found = await page.evaluate(
  async ([url, what, seconds]) => {
    const start = performance.now();
    const client = await import("/lib/browser.js");
    if (what === "calls") return (await import("/calls.mjs")).calls(client, url, seconds);
    const connected = await client.connect(url, { allowDebug: true });
    await connected.infer({ image: new client.Tensor(new Float32Array(784), [1, 1, 28, 28]) });
    return { start: (performance.now() - start) / 1000 };
  },
  [url, what, Number(seconds)],
);
console.log(JSON.stringify(found));
await browser.close();
files.close();
