//! The DataScript API as data ([`api`]), and what can be said about a script without running it.
//!
//! Nothing here needs Lua, DPDK or a configuration that was loaded: text goes in, findings come out.
#![forbid(unsafe_code)]

pub mod api;
pub mod generate;
mod nearest;

pub use nearest::nearest;
