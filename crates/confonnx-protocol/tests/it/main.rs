//! Client and server against each other, against independent peers, and with everything that somebody in between can
//! do.

#![allow(clippy::restriction, reason = "a test may panic")]

mod case;
mod flaws;
mod interop;
mod resumption;
mod ring;
mod sealing;
mod support;
mod theirs;
mod vectors;
