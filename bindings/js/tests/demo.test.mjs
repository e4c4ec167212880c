// The demonstration page in Chromium, served by a real server, and kept on a disk.

import assert from "node:assert/strict";
import path from "node:path";
import { after, before, test } from "node:test";
import { pathToFileURL } from "node:url";

import { GATEWAY, OTHER, demo, launch, lookedAt, open as opened, send, verify } from "./page.mjs";
import { freePort, startServer, startServerAt } from "./server.mjs";

const DEMO = demo();
const DAY = 86_400_000;

let browser, server;
before(async () => {
  server = await startServer("--demo", DEMO);
  browser = await launch();
});
after(async () => {
  await browser?.close();
  await server?.stop();
});

const open = (url = `${server.url}/demo`, options = {}) => opened(browser, url, options);

/** A vertical stroke, by mouse. */
async function draw(page) {
  const canvas = page.locator("#drawing");
  await canvas.scrollIntoViewIfNeeded();
  const { x, y } = await canvas.boundingBox();
  await page.mouse.move(x + 140, y + 60);
  await page.mouse.down();
  await page.mouse.move(x + 140, y + 220, { steps: 8 });
  await page.mouse.up();
}

const row = (page, name) => page.locator("tbody tr", { has: page.locator(`th:text-is("${name}")`) });
const texts = (page) => page.locator("tbody tr").evaluateAll((rows) => rows.map((row) => row.dataset.outcome));

test("a drawing is sealed to a verified server, and answered", async () => {
  // Chromium does not tell what a request's blob has, so the page's own `fetch` is looked at.
  const noted = (gateway) => {
    const { fetch } = globalThis;
    globalThis.fetch = async (input, init) => {
      if (String(input).endsWith(gateway)) globalThis.left = Array.from(new Uint8Array(await new Response(init.body).arrayBuffer()));
      return fetch(input, init);
    };
  };
  const { page, asked, troubles, sealed } = await open(undefined, { prepare: (page) => page.addInitScript(noted, GATEWAY) });
  assert.match(await page.locator("#served").textContent(), /served this page .* could have served a script.*confonnx-demo\.html.*[0-9a-f]{64}/);
  assert.match(await verify(page), /no TEE: nothing is confidential/);
  assert.ok((await texts(page)).length >= 3);
  assert.ok((await texts(page)).every((outcome) => ["passed", "info", "notable"].includes(outcome)));
  assert.equal(sealed().length, 0, "nothing is sealed before");
  await draw(page);
  assert.match(await send(page), /Answered: [\d,]+ sealed bytes left/);
  assert.match(await page.locator("#answer").textContent(), /^It is a 1, with [\d.]+ %\.$/);
  assert.equal(await page.locator("#bars li").count(), 10);
  // What is shown is what left.
  const shown = await page.locator("#left").textContent();
  const body = Buffer.from(await page.evaluate(() => globalThis.left));
  const hex = body.subarray(0, 256).toString("hex").replace(/(..)(?!$)/g, "$1 ");
  assert.ok(shown.startsWith(hex) && shown.includes("more"), shown);
  assert.match(await page.locator("#left-about").textContent(), new RegExp(`${body.length.toLocaleString("en")} bytes of message/ohttp-req`));
  assert.ok(asked.every((url) => url.startsWith(server.url)), "nothing of elsewhere");
  assert.deepEqual(troubles, []);
});

test("by keyboard alone", async () => {
  const { page, troubles } = await open();
  const tabTo = async (id) => {
    for (let presses = 0; presses < 40; presses++) {
      if ((await page.evaluate(() => document.activeElement?.id || document.activeElement?.textContent)) === id) return;
      await page.keyboard.press("Tab");
    }
    assert.fail(`${id} is not reached`);
  };
  await tabTo("debug");
  await page.keyboard.press("Space");
  await tabTo("Verify");
  await page.keyboard.press("Enter");
  await page.locator("#checks table").first().waitFor();
  await tabTo("drawing");
  await page.keyboard.press("Space");
  for (let row = 0; row < 14; row++) await page.keyboard.press("ArrowDown");
  assert.match(await page.locator("#pen").textContent(), /Pen down, column 15, row 22/);
  await tabTo("send");
  await page.keyboard.press("Enter");
  await page.locator("#bars li").first().waitFor();
  assert.match(await page.locator("#answer").textContent(), /^It is a 1/);
  assert.deepEqual(troubles, []);
});

for (const [name, options] of Object.entries({
  light: { colorScheme: "light" },
  dark: { colorScheme: "dark" },
  phone: { colorScheme: "light", viewport: { width: 360, height: 740 }, hasTouch: true, isMobile: true },
  "dark phone": { colorScheme: "dark", viewport: { width: 360, height: 740 } },
})) {
  test(`axe finds nothing, and nothing is cut off: ${name}`, async () => {
    const { page } = await open(undefined, options);
    await lookedAt(page, `digits-${name}`, async () => {
      await page.getByRole("button", { name: "Draw an example" }).click();
      await send(page);
    });
  });
}

test("a tampered key is seen, and nothing is sealed to it", async () => {
  const { page, sealed } = await open(undefined, {
    prepare: (page) =>
      page.route("**/attestation?*", async (route) => {
        const answer = await route.fetch();
        const document = await answer.json();
        const keys = Buffer.from(document.key_configs, "base64url");
        keys[keys.length - 20] ^= 1;
        document.key_configs = keys.toString("base64url");
        await route.fulfill({ response: answer, json: document });
      }),
  });
  assert.match(await verify(page), /^Nothing is sent to this server\./);
  const check = row(page, "report data");
  assert.equal(await check.getAttribute("data-outcome"), "failed");
  const [expected, found] = [await check.locator('[data-label="expected"]').textContent(), await check.locator('[data-label="found"]').textContent()];
  assert.ok(expected && found && expected !== found);
  await draw(page);
  assert.match(await send(page), /^Not sent/);
  assert.equal(await page.locator("#left").textContent(), "");
  assert.equal(sealed().length, 0);
});

test("a wrong hash turns red, with what was expected and found", async () => {
  const { page, sealed } = await open();
  assert.match(await verify(page, { hash: OTHER }), /^Nothing is sent to this server\./);
  const check = row(page, "enclave hash");
  assert.equal(await check.getAttribute("data-outcome"), "failed");
  assert.match(await check.locator('[data-label="expected"]').textContent(), /abab/);
  assert.match(await check.locator('[data-label="found"]').textContent(), /[0-9a-f]{64}/);
  assert.ok((await texts(page)).includes("passed"), "each check stands for itself");
  await draw(page);
  assert.match(await send(page), /^Not sent/);
  assert.equal(sealed().length, 0);
});

test("without an expectation nothing is verified", async () => {
  const { page, sealed } = await open();
  assert.match(await verify(page, { debug: false }), /^Nothing is sent to this server\./);
  await draw(page);
  await send(page);
  assert.equal(sealed().length, 0);
});

test("an expired key is not used", async () => {
  const { page, sealed } = await open();
  await verify(page);
  await draw(page);
  await page.clock.setFixedTime(Date.now() + 2 * DAY);
  assert.match(await send(page), /was accepted until Unix time/);
  assert.equal(sealed().length, 0);
  assert.match(await page.locator("#verdict").textContent(), /^Nothing is sent to this server\./);
});

test("without a network it says so, and goes on when there is one", async () => {
  const { page, context } = await open();
  await verify(page);
  await draw(page);
  await context.setOffline(true);
  assert.match(await send(page), /No answer.*Is the network there/);
  await context.setOffline(false);
  assert.match(await send(page), /^Answered/);
});

test("a server that was started anew is verified anew", async () => {
  const port = await freePort();
  let restarted = await startServerAt(port, "--demo", DEMO);
  try {
    const { page } = await open(`${restarted.url}/demo`);
    await verify(page);
    await draw(page);
    assert.match(await send(page), /came back\.$/);
    await restarted.stop();
    restarted = await startServerAt(port, "--demo", DEMO);
    assert.match(await send(page), /keys were new, so it was verified again/);
    assert.match(await page.locator("#answer").textContent(), /^It is a 1/);
  } finally {
    await restarted.stop();
  }
});

test("twenty megabytes go, and it is seen how", async () => {
  const { page } = await open();
  await verify(page);
  await draw(page);
  await page.getByLabel("Times in one request").fill("6500");
  await page.evaluate(() => {
    globalThis.moved = [];
    const progress = document.getElementById("progress");
    new MutationObserver(() => globalThis.moved.push(progress.value)).observe(progress, { attributes: true });
  });
  assert.match(await send(page), /Answered: 2\d,\d{3},\d{3} sealed bytes left/);
  assert.equal((await page.evaluate(() => globalThis.moved)).some((value) => value === 1), true);
  assert.match(await page.locator("#answer").textContent(), /^It is a 1/);
});

test("a page that was kept asks nobody but the server", async () => {
  const elsewhere = await startServer("--cors-origin", "*");
  try {
    const { page, asked, troubles } = await open(pathToFileURL(path.join(DEMO, "confonnx-demo.html")).href);
    assert.match(await page.locator("#served").textContent(), /from your own disk.*compare its SHA-256/);
    await page.getByLabel("Server", { exact: true }).fill(elsewhere.url);
    await verify(page);
    await draw(page);
    assert.match(await send(page), /^Answered/);
    assert.match(await page.locator("#answer").textContent(), /^It is a 1/);
    assert.ok(asked.slice(1).every((url) => url.startsWith(elsewhere.url)), JSON.stringify(asked));
    assert.deepEqual(troubles, []);
  } finally {
    await elsewhere.stop();
  }
});

test("a changed file is not run", async () => {
  const change = (name) => (page) =>
    page.route(`**/${name}`, async (route) => {
      const answer = await route.fetch();
      const body = Buffer.concat([await answer.body(), Buffer.from("\n")]);
      await route.fulfill({ response: answer, body });
    });
  const script = await open(undefined, { prepare: change("demo.js") });
  await script.page.waitForLoadState("networkidle");
  assert.equal(await script.page.locator("#served").textContent(), "");
  assert.ok(script.troubles.some((text) => /integrity/.test(text)), script.troubles.join());
  const wasm = await open(undefined, { prepare: change("confonnx.wasm") });
  assert.match(await verify(wasm.page), /^Nothing is sent to this server\. This page failed/);
  assert.equal(wasm.sealed().length, 0);
});
