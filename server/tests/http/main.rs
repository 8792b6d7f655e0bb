//! The HTTP surface over the fake engine, on loopback.

mod answers;
mod bad_input;
mod harness;
mod life;
mod streams;
