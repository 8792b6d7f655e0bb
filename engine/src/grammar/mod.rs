//! Answers that follow a grammar: JSON, JSON of a schema, a regular expression, one of some strings, or Lark.
//!
//! ```text
//! GrammarSource ─► GrammarCompiler (a thread of its own, bounded) ─► Grammar ─┐ one for each request
//!                                                                          Constraint
//!          worker:   step is built ─► begin ─► forward pass ─► next ─► sample ─► accept
//!          mask threads:                └──── compute the mask ──┘
//! ```
//!
//! Sources are strangers' programs. Their size and nesting are checked before anything reads them; compiling happens off the
//! worker, on threads of which there are few; llguidance counts what it spends, and we the bytes it takes: a grammar that
//! wants too much is refused, or fails the one request that follows it.

mod compile;
mod constraint;
mod error;
mod intersections;
mod masks;
mod matcher;
mod memory;
mod slots;
mod source;
#[cfg(test)]
mod tests;
mod vocabulary;

pub use compile::{Grammar, GrammarCompiler};
pub(crate) use constraint::{Constraint, ConstraintError};
pub use error::GrammarError;
pub(crate) use masks::{MaskThreads, NextTokens};
pub use source::GrammarSource;
