// The demonstration pages in Chromium, as a reader has them.

import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { createRequire } from "node:module";
import path from "node:path";

import { chromium } from "playwright-core";

const AXE = await readFile(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
/** Where sealed requests go. */
export const GATEWAY = "/.well-known/ohttp-gateway";
/** Hardly anybody's enclave hash. */
export const OTHER = "ab".repeat(32);

/** The folder that scripts/make-demo wrote. */
export function demo() {
  const folder = process.env.CONFONNX_DEMO;
  if (!folder) throw new Error("CONFONNX_DEMO is not set: run `make test-platforms`");
  return folder;
}

export function launch() {
  return chromium.launch({ executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium", args: ["--no-sandbox"] });
}

/** A page, with what it asked for and what its policy forbade; `prepare` is called before it loads. */
export async function open(browser, url, { prepare, ...options } = {}) {
  const context = await browser.newContext(options);
  const page = await context.newPage();
  const [asked, troubles] = [[], []];
  page.on("request", (request) => asked.push(request.url()));
  page.on("console", (message) => message.type() === "error" && troubles.push(message.text()));
  page.on("pageerror", (error) => troubles.push(String(error)));
  await prepare?.(page);
  await page.goto(url);
  return { page, context, asked, troubles, sealed: () => asked.filter((url) => new URL(url).pathname === GATEWAY) };
}

/** What the page says of the server. */
export async function verify(page, { hash, debug = true } = {}) {
  if (hash !== undefined) await page.getByLabel("Enclave hash").fill(hash);
  await page.getByLabel("Accept development").setChecked(debug);
  await page.getByRole("button", { name: "Verify" }).click();
  await page.waitForFunction(() => !/^(|Verifying.*)$/.test(document.getElementById("verdict").textContent));
  return page.locator("#verdict").textContent();
}

/** What the page says of what was sent, once it has an answer or none. */
export async function send(page) {
  await page.getByRole("button", { name: "Seal and send" }).click();
  await page.waitForFunction(
    () => !/^(|Sealing.*|The answer comes.*)$/.test(document.getElementById("sent").textContent),
    undefined,
    { timeout: 120_000 },
  );
  return page.locator("#sent").textContent();
}

/** By axe and by width: as it opens, when it refused a server, and once `answered` filled in and sent something. */
export async function lookedAt(page, name, answered) {
  for (const step of ["open", "refused", "answered"]) {
    if (step === "refused") await verify(page, { hash: OTHER });
    if (step === "answered") {
      await verify(page, { hash: "" });
      await answered(page);
    }
    await page.evaluate(AXE);
    const { violations } = await page.evaluate(() => globalThis.axe.run());
    assert.deepEqual(violations.map(({ id, nodes }) => [id, nodes.map(({ html }) => html)]), [], step);
    const wide = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
    assert.ok(wide <= 0, `${step}: ${wide} pixels too wide`);
    const pictures = process.env.CONFONNX_PICTURES;
    if (pictures) await page.screenshot({ path: path.join(pictures, `${name}-${step}.png`), fullPage: true });
  }
}
