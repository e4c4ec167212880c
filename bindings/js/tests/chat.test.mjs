// The page of a chat in Chromium, with a language model of a few thousand random weights.

import assert from "node:assert/strict";
import path from "node:path";
import { after, before, test } from "node:test";
import { pathToFileURL } from "node:url";

import { GATEWAY, OTHER, demo, launch, lookedAt, open as opened, send, verify } from "./page.mjs";
import { ROOT, startServer } from "./server.mjs";

const DEMO = demo();
const DECODER = `${ROOT}/crates/confonnx-engine/tests/data/decoder.onnx`;

let browser, server;
before(async () => {
  server = await startServer("--model-path", DECODER, "--demo", DEMO, "--cors-origin", "*");
  browser = await launch();
});
after(async () => {
  await browser?.close();
  await server?.stop();
});

const open = (url = `${server.url}/demo/chat.html`, options = {}) => opened(browser, url, options);

async function say(page, text) {
  await page.getByLabel("Your message").fill(text);
  return send(page);
}

test("the padlock opens into the verdict, and a chat goes on", async () => {
  const { page, asked, troubles, sealed } = await open();
  const padlock = page.locator("#padlock");
  assert.match(await padlock.textContent(), /Not verified: nothing is sent/);
  await verify(page);
  assert.match(await padlock.textContent(), /Development: nothing is confidential/);
  assert.equal(await page.locator("#proof").isVisible(), false);
  await padlock.click();
  assert.ok((await page.locator("#checks tbody tr").count()) >= 3);
  assert.equal(await padlock.getAttribute("aria-expanded"), "true");
  const before = sealed().length;
  assert.match(await say(page, "the secret word is xylophone"), /Answered|as long as it may be/);
  // The model speaks at random: if its first answer was long, there is no room for a second, and the page has to say so.
  assert.match(await say(page, "and again"), /sealed bytes left|expected 512 together at most/);
  assert.equal(await page.locator("#log > div").count(), 4);
  const answer = await page.locator("#log > div").nth(1).locator(".said").textContent();
  assert.ok(answer.length > 0);
  assert.equal(sealed().length - before, 2);
  const hex = (await page.locator("#left").textContent()).replaceAll(" ", "");
  assert.ok(hex.length > 200 && !hex.includes(Buffer.from("xylophone").toString("hex")));
  assert.ok(asked.every((url) => url.startsWith(server.url)), "nothing of elsewhere");
  assert.deepEqual(troubles, []);
});

test("to a server that is not the one expected nothing is sent", async () => {
  const { page, sealed } = await open();
  await verify(page, { hash: OTHER });
  assert.match(await page.locator("#padlock").textContent(), /Refused: nothing is sent/);
  assert.ok((await page.locator('#checks tr[data-outcome="failed"]').count()) >= 1);
  assert.match(await say(page, "hello"), /Not sent/);
  assert.equal(sealed().length, 0);
});

test("pieces at fixed instants say the same", async () => {
  const { page, troubles } = await open();
  await verify(page);
  await page.getByLabel("Pieces of the answer").selectOption("50");
  assert.match(await say(page, "hello"), /sealed bytes left/);
  assert.deepEqual(troubles, []);
});

test("an answer that is cut off is never a whole one", async () => {
  const cut = (gateway) => {
    const { fetch } = globalThis;
    globalThis.fetch = async (input, init) => {
      const answer = await fetch(input, init);
      if (!globalThis.cut || !String(input).endsWith(gateway)) return answer;
      const reader = answer.body.getReader();
      let left = 3000;
      const body = new ReadableStream({
        async pull(controller) {
          const { value, done } = await reader.read();
          if (done || left <= 0) return controller.close();
          controller.enqueue(value.subarray(0, left));
          left -= value.length;
        },
      });
      return new Response(body, { status: answer.status, headers: answer.headers });
    };
  };
  const { page } = await open(undefined, { prepare: (page) => page.addInitScript(cut, GATEWAY) });
  await verify(page);
  await page.evaluate(() => (globalThis.cut = true));
  assert.match(await say(page, "hello"), /No whole answer/);
  assert.match(await page.locator("#log > div").nth(1).textContent(), /Cut off: not complete/);
});

for (const [name, options] of Object.entries({
  light: { colorScheme: "light" },
  dark: { colorScheme: "dark" },
  phone: { colorScheme: "dark", viewport: { width: 360, height: 740 }, hasTouch: true, isMobile: true },
})) {
  test(`axe finds nothing, and nothing is cut off: ${name}`, async () => {
    const { page } = await open(undefined, options);
    await lookedAt(page, `chat-${name}`, () => say(page, "hello"));
  });
}

test("a page that is kept loads nothing, and chats", async () => {
  const { page, asked, troubles } = await open(pathToFileURL(path.join(DEMO, "confonnx-chat.html")).href);
  await page.getByLabel("Server", { exact: true }).fill(server.url);
  await verify(page);
  assert.match(await say(page, "hello"), /sealed bytes left/);
  assert.ok(asked.slice(1).every((url) => url.startsWith(server.url)));
  assert.deepEqual(troubles, []);
});
