//! What scripts can do, without Lua: the methods of [`Context`] carry the semantics of the DataScript API, so that
//! any [`crate::policy::Policy`] has them and tests check them without an interpreter. `scripting` converts
//! arguments and results and nothing else.
//!
//! Errors of these methods become catchable Lua errors; their `Display` is the text, without the function's name.

use crate::policy::Context;
use crate::snapshot::{PoolGroupId, PoolId, ServerId};

/// Why a call was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ApiError {
    /// No such pool or pool group.
    #[error("no {kind} named '{name}'{hint}")]
    Unknown {
        /// "pool", "pool group" or "server".
        kind: &'static str,
        /// What the script asked for.
        name: String,
        /// What exists, as a sentence part, or empty.
        hint: String,
    },
    /// It exists, but is not attached to the script's set.
    #[error("{kind} '{name}' is not attached to this DataScript set")]
    NotAttached {
        /// "pool" or "pool group".
        kind: &'static str,
        /// What the script asked for.
        name: String,
    },
    /// An argument out of its range.
    #[error("{0}")]
    Argument(String),
}

/// The pools and groups that a set may name; resolved once per script, not per call.
pub type Attached<T> = [T];

// H-balance fills these in; signatures are the contract between dataplane and scripting.
impl Context<'_> {
    /// `avi.l4.read`: the bytes `[offset, offset + n)` of a side's buffer, or everything from `offset` when n is 0.
    pub fn read(&self, _n: usize, _offset: usize, _server_side: bool) -> Result<&[u8], ApiError> {
        Err(ApiError::Argument(String::new()))
    }
}

#[allow(dead_code, reason = "sketch")]
fn sketch(_: PoolGroupId, _: PoolId, _: ServerId) {}
