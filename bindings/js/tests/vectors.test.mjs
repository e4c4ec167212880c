// Every test vector, natively and in WebAssembly: the same JSON, byte by byte. Then the client's conversation with a server's
// key ring in memory, by a clock that stands still: the scenes of crates/confonnx-client/tests/it/conversation.rs.

import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { readFile } from "node:fs/promises";
import test from "node:test";

import init, { play, runVectors, scenes } from "./wasm/confonnx.js";

const native = (...args) => execFileSync(process.env.CONFONNX_VECTORS, args, { encoding: "utf8", maxBuffer: 1 << 28 });

await init({ module_or_path: await readFile(new URL("./wasm/confonnx_bg.wasm", import.meta.url)) });

test("WebAssembly finds what is found natively", () => {
  const cases = native("collect");
  const texts = [runVectors(cases), execFileSync(process.env.CONFONNX_VECTORS, ["run"], { input: cases, encoding: "utf8", maxBuffer: 1 << 28 }).trimEnd()];
  const [found, expected] = texts.map((text) => JSON.parse(text));
  assert.equal(found.length, expected.length);
  assert.ok(found.length > 180, `${found.length} cases`);
  for (const [at, one] of found.entries()) {
    assert.deepEqual(one, expected[at], `${one.suite}/${one.name}`);
    if (one.expected !== null) assert.deepEqual(one.found, one.expected, `${one.suite}/${one.name}`);
  }
  assert.equal(texts[0], texts[1]);
  // Evidence of every kind of TEE is among them, and collateral of those that need it.
  const judged = new Set(found.filter(({ suite }) => suite === "proofs").map(({ name }) => name.split(".")[0]));
  assert.deepEqual([...judged].sort(), ["azure", "nitro", "sgx", "snp", "tdx", "tpm"]);
});

test("the conversation goes in WebAssembly as it does natively", async (all) => {
  assert.ok(scenes().length >= 9, scenes().join());
  assert.ok(!play("no such scene"));
  for (const scene of scenes()) await all.test(scene, () => assert.ok(play(scene)));
});
