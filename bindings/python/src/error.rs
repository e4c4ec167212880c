//! The only map from Rust errors to exception classes.
