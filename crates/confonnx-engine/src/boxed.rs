//! A process of its own for each model: ONNX Runtime, that model and the tensors of its requests are there, and nothing
//! else. Keys, tokens and messages stay with the process that starts it, the key holder.
//!
//! The key holder writes tensors into memory that both have, wakes the box and copies the answer (`exchange`). What the box
//! says is checked like what a stranger sends (`wire`). A box that ends costs the requests it was running, and is started
//! again.

mod channel;
mod child;
mod exchange;
mod host;
mod lane;
mod message;
mod process;
mod sandbox;
mod wire;

pub use child::run;
pub use host::{BoxedModel, Boxes, Deaths, Running};
pub use process::{ARGUMENT, BoxLimits};
pub use wire::{Answer, Failure, Garbled, Part};
