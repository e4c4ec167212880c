// What is in the package, and what must not be.

import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { copyFile, mkdtemp, readFile, readdir, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { after, before, test } from "node:test";
import { fileURLToPath } from "node:url";
import { gzipSync } from "node:zlib";

import { ROOT, startServer } from "./server.mjs";

const PACKAGE = fileURLToPath(new URL("..", import.meta.url));

let server;
before(async () => {
  server = await startServer();
});
after(() => server.stop());

test("nothing in it makes code of text, and the WebAssembly is small", async () => {
  for (const folder of ["lib", "wasm"]) {
    for (const name of await readdir(path.join(PACKAGE, folder))) {
      if (!name.endsWith(".js")) continue;
      const text = await readFile(path.join(PACKAGE, folder, name), "utf8");
      assert.doesNotMatch(text, /new Function|eval\(|setTimeout\(["'`]/, name);
    }
  }
  const packed = gzipSync(await readFile(path.join(PACKAGE, "wasm/confonnx_bg.wasm")), { level: 9 }).length;
  console.log(`confonnx_bg.wasm: ${packed} bytes with gzip`);
  assert.ok(packed <= 1_500_000, `${packed} bytes`);
});

test("it installs in an empty folder and runs there", async () => {
  const folder = await mkdtemp(path.join(tmpdir(), "confonnx-"));
  const run = (command, ...args) => execFileSync(command, args, { cwd: folder, encoding: "utf8", stdio: ["ignore", "pipe", "pipe"] });
  const [{ filename, files }] = JSON.parse(execFileSync("npm", ["pack", "--json", "--pack-destination", folder], { cwd: PACKAGE, encoding: "utf8" }));
  const names = files.map(({ path: name }) => name);
  assert.ok(names.includes("types/index.d.ts") && names.includes("wasm/confonnx_bg.wasm"), names.join());
  assert.ok(!names.some((name) => name.startsWith("tests/")), names.join());
  const manifest = JSON.parse(await readFile(path.join(PACKAGE, "package.json"), "utf8"));
  assert.equal(manifest.dependencies, undefined);
  assert.ok(!Object.keys(manifest.scripts).some((name) => /install/.test(name)));
  await writeFile(path.join(folder, "package.json"), '{ "type": "module" }');
  run("npm", "install", "--offline", "--no-audit", "--no-fund", `./${filename}`);
  // The program of docs/guides/languages.md.
  await copyFile(path.join(ROOT, "examples/languages/first.mjs"), path.join(folder, "first.mjs"));
  assert.equal(run("node", "first.mjs", server.url, "insecure"), "digit 1\n");
  assert.throws(() => run("node", "first.mjs", server.url, "4a".repeat(32)), /enclave hash: expected 4a4a/);
});
