//! The client's conversation in WebAssembly, for the package `@confonnx/client`.
//!
//! Everything that decides is in `confonnx-client`; this crate is its skin, which takes and gives strings and bytes.
//! The JavaScript of `bindings/js/lib` fetches, waits and tells the time.

mod conversation;
mod error;
mod exchange;
mod options;
mod random;
mod tensors;

/// Runs the test vectors in `cases` and gives their results, both as JSON.
///
/// # Errors
/// What is wrong with `cases`.
#[cfg(feature = "vectors")]
#[wasm_bindgen::prelude::wasm_bindgen(js_name = runVectors)]
pub fn run_vectors(cases: &str) -> Result<String, String> {
    confonnx_vectors::run_all(cases).map_err(|err| err.to_string())
}

/// The names of the scenes that the conversation and a server's key ring play in memory.
#[cfg(feature = "vectors")]
#[wasm_bindgen::prelude::wasm_bindgen]
pub fn scenes() -> Vec<String> {
    confonnx_vectors::scenes().map(str::to_owned).collect()
}

/// Plays the scene of that name. WebAssembly ends where it goes otherwise than it should.
#[cfg(feature = "vectors")]
#[wasm_bindgen::prelude::wasm_bindgen]
pub fn play(scene: &str) -> bool {
    confonnx_vectors::play(scene)
}
