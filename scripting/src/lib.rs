//! DataScripts on LuaJIT: [`LuaPolicy`] is the [`dataplane::policy::Policy`] that runs them, [`check`] finds what
//! is wrong with them before anything runs.
//!
//! What a script calls is declared in `api` (arguments and results; what a call does is in [`dataplane::api`]) and
//! `strings`; the world around it is built by `sandbox.lua`; `raw` is the only module that talks to Lua's C interface
//! and the only one with unsafe code.
#![deny(unsafe_code)]

mod api;
mod arguments;
mod call;
mod check;
mod compile;
mod number;
mod parsers;
mod pattern;
mod policy;
mod raw;
mod script;
mod source;
mod strings;
mod text;

pub use call::Clock;
pub use check::{check, check_script, names, sources};
pub use parsers::builtin_parser;
pub use policy::LuaPolicy;
pub use script::{QUARANTINE_AFTER, QUARANTINE_SECONDS};
pub use source::{ScriptError, Severity};
