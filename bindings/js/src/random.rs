//! Randomness: WebCrypto's, which a page, a worker and Node all have.

use std::convert::Infallible;

use rand_core::{TryCryptoRng, TryRng, utils};
use wasm_bindgen::prelude::wasm_bindgen;

#[wasm_bindgen]
extern "C" {
    #[wasm_bindgen(js_namespace = crypto, js_name = getRandomValues)]
    fn get_random_values(into: &mut [u8]);
}

/// The platform's generator.
pub(crate) struct Platform;

impl TryRng for Platform {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        utils::next_word_via_fill(self)
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        utils::next_word_via_fill(self)
    }

    fn try_fill_bytes(&mut self, out: &mut [u8]) -> Result<(), Infallible> {
        // WebCrypto gives so many bytes at a time at most. It throws where there is no randomness, which ends the
        // WebAssembly.
        out.chunks_mut(65_536).for_each(get_random_values);
        Ok(())
    }
}

impl TryCryptoRng for Platform {}
