//! What a language model needs around its tensors: text to tokens and back, the choice of the next token, the messages of
//! the OpenAI API, and whose turn it is when several callers wait; and what turns a sentence encoder's tensors into vectors.
//!
//! No IO, no clock, no randomness but by seeds that are arguments. Requests come from strangers: every length is bounded
//! before work is done for it, and errors say what was expected and found, never what a message says.

#![cfg_attr(test, allow(clippy::restriction, reason = "a test may panic"))]

pub mod constrain;
pub mod decode;
pub mod embed;
pub mod openai;
pub mod sample;
pub mod text;
