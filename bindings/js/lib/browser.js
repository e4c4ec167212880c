import init from "../wasm/confonnx.js";
import { Client } from "./client.js";

export { ConfonnxError } from "./error.js";
export { Tensor } from "./tensor.js";
export { Client };

let loading;

/**
 * Loads the WebAssembly, once. `source` is what to load in place of the file beside this one: a URL, a Response, bytes or a
 * WebAssembly.Module.
 */
export function load(source) {
  loading ??= init({ module_or_path: source ?? new URL("../wasm/confonnx_bg.wasm", import.meta.url) }).catch((error) => {
    loading = undefined;
    throw error;
  });
  return loading.then(() => undefined);
}

/** A client of the server at `url`. No network but for the WebAssembly until the first call. */
export async function connect(url, options) {
  await load();
  return new Client(url, options);
}
