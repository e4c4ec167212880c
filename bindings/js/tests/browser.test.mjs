// The package in Chromium, under a Content-Security-Policy that allows its WebAssembly and its server, and nothing else.

import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { after, before, test } from "node:test";

import { launch } from "./page.mjs";
import { startFiles, startServer } from "./server.mjs";

const csp = () => `default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; worker-src 'self'; connect-src 'self' ${server?.url}`;

const WORKER = `
import { Tensor, connect } from "/lib/browser.js";
onmessage = async ({ data: url }) => {
  try {
    const client = await connect(url, { allowDebug: true });
    const answer = await client.infer({ image: new Tensor(new Float32Array(784), [1, 1, 28, 28]) });
    postMessage(Object.values(answer)[0].shape);
  } catch (error) {
    postMessage(String(error));
  }
};`;

let browser, files, server, context;
before(async () => {
  files = await startFiles(() => csp(), {
    "/index.html": "<!doctype html><title>page</title>",
    "/worker.js": WORKER,
  });
  server = await startServer("--cors-origin", files.url);
  browser = await launch();
  context = await browser.newContext();
});
after(async () => {
  await browser?.close();
  await server?.stop();
  files?.stop();
});

/** A page that notes what its policy forbids. */
async function open() {
  const page = await context.newPage();
  const violations = [];
  page.on("console", (message) => {
    if (/Content Security Policy|Refused to/.test(message.text())) violations.push(message.text());
  });
  await page.goto(`${files.url}/index.html`);
  return { page, violations };
}

test("a page infers, resumes, streams and tells how an upload goes", async () => {
  const { page, violations } = await open();
  const found = await page.evaluate(async (url) => {
    const { Tensor, connect } = await import("/lib/browser.js");
    const client = await connect(url, { allowDebug: true });
    const image = new Float32Array(784);
    for (let row = 4; row < 24; row++) image[row * 28 + 13] = image[row * 28 + 14] = 1;
    let scores;
    for (let n = 0; n < 4; n++) scores = Object.values(await client.infer({ image: new Tensor(image, [1, 1, 28, 28]) }))[0];
    const streamed = await client.stream("GET", "/v2");
    const seen = [];
    const large = new Tensor(new Float32Array(5 << 20), [5 << 20]);
    const refused = await client.infer({ image: large }, { onProgress: (progress) => seen.push(progress) }).catch((error) => error);
    return {
      digit: scores.data.indexOf(Math.max(...scores.data)),
      tee: client.proof.tee,
      name: (await new Response(streamed.body).json()).name,
      refused: [refused.kind, refused.status],
      progress: seen.at(-1),
      half: typeof Float16Array === "undefined" ? "none" : new Tensor(new Float16Array([0.5])).dtype,
    };
  }, server.url);
  assert.equal(found.digit, 1);
  assert.equal(found.tee, "insecure");
  assert.ok(found.name);
  assert.deepEqual(found.refused, ["refused", 400]);
  assert.equal(found.progress.sent, found.progress.total);
  assert.ok(found.progress.total > 20 << 20);
  assert.ok(["none", "float16"].includes(found.half));
  assert.deepEqual(violations, []);
});

test("a worker infers", async () => {
  const { page, violations } = await open();
  const shape = await page.evaluate(
    (url) =>
      new Promise((resolve) => {
        const worker = new Worker("/worker.js", { type: "module" });
        worker.onmessage = ({ data }) => resolve(data);
        worker.onerror = ({ message }) => resolve(message);
        worker.postMessage(url);
      }),
    server.url,
  );
  assert.deepEqual(shape, [1, 10]);
  assert.deepEqual(violations, []);
});

test("the policy holds: what it does not allow is seen", async () => {
  const { page, violations } = await open();
  await page.evaluate(() => fetch("https://elsewhere.example").catch(() => {}));
  assert.equal(violations.length > 0, true);
});

test("a server that was not told of the page is not read", async () => {
  const other = await startServer();
  try {
    const { page } = await open();
    const kind = await page.evaluate(async (url) => {
      const { connect } = await import("/lib/browser.js");
      const client = await connect(url, { allowDebug: true });
      return client.attest().then(() => "attested", (error) => error.kind);
    }, other.url);
    assert.equal(kind, "transport");
  } finally {
    await other.stop();
  }
});

test("Chromium finds in the vectors what is found natively", async () => {
  const { page } = await open();
  const native = (input, ...args) =>
    execFileSync(process.env.CONFONNX_VECTORS, args, { input, encoding: "utf8", maxBuffer: 1 << 28 });
  const cases = native("", "collect");
  const found = await page.evaluate(async (cases) => {
    const { default: init, runVectors } = await import("/tests/wasm/confonnx.js");
    await init({ module_or_path: "/tests/wasm/confonnx_bg.wasm" });
    return runVectors(cases);
  }, cases);
  assert.equal(found, native(cases, "run").trimEnd());
});
