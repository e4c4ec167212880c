import { readFile } from "node:fs/promises";

import * as browser from "./browser.js";

export { Client, ConfonnxError, Tensor } from "./browser.js";

/** Loads the WebAssembly, once. */
export async function load(source) {
  await browser.load(source ?? (await readFile(new URL("../wasm/confonnx_bg.wasm", import.meta.url))));
}

/** A client of the server at `url`. No network until the first call. */
export async function connect(url, options) {
  await load();
  return new browser.Client(url, options);
}
