//! A process of its own for each model: ONNX Runtime, that model and the tensors of its requests are there, and nothing
//! else. Keys, tokens and messages stay with the process that starts it, the key holder.
//!
//! The key holder writes tensors into a memory file, wakes the box by a socket and reads the answer out of the file; it
//! maps nothing that the box can write. What the box says is checked like what a stranger sends (`wire`). A box that ends
//! costs the requests it was running, and is started again.

mod channel;
mod child;
mod host;
mod lane;
mod message;
mod process;
mod sandbox;
mod wire;

pub use child::run;
pub use host::{BoxedModel, Boxes, Deaths};
pub use process::ARGUMENT;
pub use wire::{Answer, Failure, Garbled, Part};
