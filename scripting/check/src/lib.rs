//! The DataScript API as data ([`api`]), and what can be said about a script without running it ([`check`]).
//!
//! Nothing here needs Lua, DPDK or a configuration that was loaded: text goes in, findings come out. The text is parsed
//! (`lower`, `tree`), what is known about its values is worked out from literals and from locals that never change
//! (`value`), what it does is written down as a list of facts (`walk`), and each check goes through that list (`rules`).
#![forbid(unsafe_code)]

pub mod api;
mod check;
mod contained;
mod finding;
pub mod generate;
mod lower;
mod names;
mod nearest;
mod rules;
mod source;
mod syntax;
mod tree;
mod value;
mod visit;
mod walk;

pub use check::{Role, Settings, check, check_names};
pub use contained::{Contained, contained, contained_calls};
pub use finding::{Finding, Rule, Severity, Shown};
pub use names::{Group, Names, Pool, Server};
pub use nearest::nearest;
pub use source::{body, bom_bytes};
pub use syntax::syntax_error;
