// What is in the package, and what must not be.

import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { mkdtemp, readFile, readdir, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import test from "node:test";
import { fileURLToPath } from "node:url";
import { gzipSync } from "node:zlib";

const PACKAGE = fileURLToPath(new URL("..", import.meta.url));

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
  await writeFile(
    path.join(folder, "main.js"),
    'import { connect } from "@confonnx/client";\n' +
      'const client = await connect("https://models.example", { enclaveHash: "4a".repeat(48) });\n' +
      "console.log(client.url);\n",
  );
  assert.equal(run("node", "main.js").trim(), "https://models.example");
});
