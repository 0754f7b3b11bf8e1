//! What talks to Lua's C interface, and nothing else does: the modules below. Everything unsafe of this crate is here.
//!
//! Three rules keep it sound:
//!
//! 1. A Lua error is a foreign exception. Rust cannot catch it, so nothing that may raise runs inside
//!    `catch_unwind`, and nothing with a destructor is alive where something may raise. A function of the API
//!    therefore has three steps: read the arguments (raises nothing), do the work in safe Rust (panics are caught),
//!    push the results or raise (only plain data is alive).
//! 2. What allocates outside of a coroutine goes through `lua_cpcall` or mlua, so that an allocation failure is an
//!    error code.
//! 3. The [`Slot`] is shared between Rust and the C functions by a raw pointer. The functions borrow it only while
//!    they run, and [`Machine`] touches it only while no Lua code runs.
#![allow(unsafe_code)]

use std::ffi::{CStr, c_int};

use mlua::ffi;

mod arguments;
mod coroutines;
mod machine;
mod native;
mod profile;
mod run;
mod slot;
mod trace;
mod traceback;
mod watch;

pub(crate) use arguments::Arguments;
pub(crate) use machine::{Compiled, Machine, Modules};
pub(crate) use native::{Entry, Native};
pub(crate) use slot::Slot;

/// Chunk name of the crate's own Lua code; such frames are left out of messages.
pub(crate) const SANDBOX: &CStr = c"=[weir]";

/// The name of a type of which no function takes a value, as Lua says it.
fn type_name(kind: c_int) -> &'static str {
    match kind {
        ffi::LUA_TTABLE => "table",
        ffi::LUA_TFUNCTION => "function",
        ffi::LUA_TTHREAD => "thread",
        _ => "userdata",
    }
}
