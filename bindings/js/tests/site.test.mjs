// The documents as a site, from a disk, without a network: CONFONNX_SITE is what scripts/build-docs wrote.

import assert from "node:assert/strict";
import path from "node:path";
import { after, before, test } from "node:test";
import { pathToFileURL } from "node:url";

import { launch } from "./page.mjs";

let browser, context;
before(async () => {
  browser = await launch();
  context = await browser.newContext({ offline: true });
});
after(() => browser?.close());

test("what is looked for is found without a network", async () => {
  const page = await context.newPage();
  const asked = [];
  page.on("request", (request) => {
    if (!request.url().startsWith("file:") && !request.url().startsWith("data:")) asked.push(request.url());
  });
  await page.goto(`${pathToFileURL(process.env.CONFONNX_SITE)}/index.html`);
  for (const [word, expected] of [["enclave_signing_key", /python/], ["confonnx_client_infer", /c\.html/], ["Padmé", /protocol/]]) {
    if (!(await page.isVisible("#mdbook-searchbar"))) await page.keyboard.press("s");
    await page.fill("#mdbook-searchbar", "");
    await page.locator("#mdbook-searchbar").pressSequentially(word);
    await page.waitForFunction(
      (text) => [...document.querySelectorAll("#mdbook-searchresults a")].some((a) => new RegExp(text).test(a.href)),
      expected.source,
    );
  }
  assert.deepEqual(asked, []);
  if (process.env.CONFONNX_PICTURES) await page.screenshot({ path: path.join(process.env.CONFONNX_PICTURES, "search.png") });
});
