//! What a language model needs around its tensors: text to tokens and back, the choice of the next token, the messages of
//! the OpenAI API, and whose turn it is when several callers wait.
//!
//! No IO, no clock, no randomness but by seeds that are arguments. Requests come from strangers: every length is bounded
//! before work is done for it, and errors say what was expected and found, never what a message says.
#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::panic
)]
#![cfg_attr(
    test,
    allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects,
        clippy::panic
    )
)]

pub mod decode;
pub mod openai;
pub mod sample;
pub mod text;
