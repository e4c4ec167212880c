//! A process of its own for each model: ONNX Runtime, that model and the tensors of its requests are there, and nothing
//! else. Keys, tokens and messages stay with the process that starts it, the key holder.
//!
//! The key holder writes tensors into memory that both have, wakes the box, is woken by it and copies the answer
//! (`exchange`, `lane`); while the model runs, none of its threads waits for that alone. What the box
//! says is checked like what a stranger sends (`wire`). A box that ends costs the requests it was running, and is started
//! again.

mod channel;
mod child;
mod exchange;
mod host;
mod keeper;
mod lane;
mod message;
mod process;
mod sandbox;
mod shared;
mod wire;

pub use child::run;
pub use host::{Answered, BoxedModel, Boxes, Reserved, Running};
pub use process::{ARGUMENT, BoxLimits};
pub use shared::Deaths;
pub use wire::{Answer, Failure, Garbled, Part};
