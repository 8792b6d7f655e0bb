//! An engine that follows a script instead of a model: the same process, protocol and HTTP surface, with faults on demand.
//!
//! `sparkherd engine --fake SCRIPT` reads a text of one directive a line; blank lines and lines that begin with `#` are
//! skipped, anything else unknown, repeated or malformed is an error. Quoted texts are JSON strings.
//!
//! | directive | what it does | without it |
//! |---|---|---|
//! | `load 500ms` | loading takes this long, with progress all along | no time |
//! | `hold 100MiB` | memory touched while loading | nothing |
//! | `fail-load "message"` | ends the load with a `failed` event | it succeeds |
//! | `exit-at-start 7` | exits with this status before a word is said | it starts |
//! | `answer "text"` | what every request is answered, word by word: one word is one token | a greeting |
//! | `token-delay 20ms` | time each token takes | none |
//! | `hang-after 3 tokens` | no further token ever; `/healthz` stays 200 and the step's age grows | it goes on |
//! | `die-after 5 tokens` | kills its own process, in the middle of whatever runs | it lives |
//! | `balloon 200MiB` | once ready, grows by this | it keeps its size |
//! | `ignore-stop` | takes no notice of `drain` and `stop`; the end of its input still ends it | it obeys |
//!
//! Durations end in `ms` or `s`, sizes in `KiB`, `MiB` or `GiB`. Tokens are counted over all requests after the first
//! generation, which is the start-up probe and meets no fault. A prompt has one token a character.

mod engine;
mod script;

pub use engine::FakeEngine;
pub use script::{Script, ScriptError};
