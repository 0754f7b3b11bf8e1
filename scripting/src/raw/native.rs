//! Functions of the API as C functions: reading the arguments, the call in safe Rust, the results or an error.

use std::ffi::{CStr, c_int};
use std::marker::PhantomData;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr;

use mlua::ffi::{self, lua_State};

use super::watch::{HOOK_INSTRUCTIONS, SLOW_HOOK_INSTRUCTIONS, UNWATCHED, look_every, stop};
use super::{Arguments, SANDBOX, Slot, trace};
use crate::call::{Answer, Refusal, Reply, Value, captured, count};

/// A function that scripts can call.
pub(crate) trait Native {
    /// Name by which the sandbox finds it and which error texts begin with.
    const NAME: &'static str;
    /// Whether error texts begin with the name.
    const NAMED: bool = true;
    /// Does the work. Must not touch Lua.
    fn call<'s>(arguments: Arguments<'s>, slot: &'s mut Slot) -> Answer<'s>;
}

/// A [`Native`] as Lua takes it.
#[derive(Clone, Copy)]
pub(crate) struct Entry {
    pub(crate) name: &'static str,
    pub(super) function: ffi::lua_CFunction,
}

impl Entry {
    pub(crate) fn of<N: Native>() -> Self {
        Entry { name: N::NAME, function: enter::<N> }
    }
}

/// Bytes of an error text, of a long argument, from which on it is raised only while there is time.
const LONG_ERROR: usize = 4096;

/// What is left of an answer when all destructors have run.
enum Done<'s> {
    Reply(Reply<'s>),
    Raise,
    Overrun,
}

fn attempt<'s, N: Native>(arguments: Arguments<'s>, slot: &'s mut Slot) -> Done<'s> {
    // The slot is needed again after a refusal, which the borrow of a reply would forbid.
    let shared: *mut Slot = slot;
    let answer = catch_unwind(AssertUnwindSafe(|| {
        // SAFETY: `shared` comes from the exclusive borrow just above, which is not used otherwise. Lua is running, and
        // the call is over where it is noted.
        unsafe {
            let answer = N::call(arguments, &mut *shared);
            if const { trace::is_api(N::NAME) } && (*shared).traced {
                trace::note_call(N::NAME, arguments, &answer, shared);
            }
            answer
        }
    }));
    let refusal = match answer {
        Ok(Ok(reply)) => return Done::Reply(reply),
        Ok(Err(refusal)) => refusal,
        Err(_panic) => Refusal::text("internal error"),
    };
    let Refusal::Text(text) = refusal else { return Done::Overrun };
    // SAFETY: as below.
    let over = unsafe { &*shared }.deadline();
    if text.len() > LONG_ERROR && over() {
        return Done::Overrun;
    }
    // SAFETY: the call is over and its answer holds no borrow, so this is the only use of the slot.
    let scratch = unsafe { &mut (*shared).scratch };
    scratch.clear();
    if N::NAMED {
        scratch.extend_from_slice(N::NAME.as_bytes());
        scratch.extend_from_slice(b": ");
    }
    scratch.extend_from_slice(text.as_bytes());
    Done::Raise
}

/// The C function of a [`Native`]; its first upvalue is the slot.
unsafe extern "C-unwind" fn enter<N: Native>(state: *mut lua_State) -> c_int {
    // SAFETY: Lua calls this with a valid state whose stack holds the arguments; the upvalue was set by `closure`
    // and the slot outlives the state. No other borrow of the slot is alive: functions do not call Lua, and the
    // machine does not touch the slot while Lua runs. Only plain data is alive where the calls below may raise.
    unsafe {
        let slot: *mut Slot = ffi::lua_touserdata(state, ffi::lua_upvalueindex(1)).cast();
        let arguments = Arguments { state, count: ffi::lua_gettop(state), stack: PhantomData };
        match attempt::<N>(arguments, &mut *slot) {
            Done::Reply(Reply::Wait) => ffi::lua_yield(state, 0),
            Done::Reply(Reply::Watch) => {
                (*slot).watched = true;
                if (*slot).interval == UNWATCHED {
                    look_every(state, slot, HOOK_INSTRUCTIONS);
                }
                0
            }
            Done::Reply(Reply::LookOften) => {
                (*slot).watched = true;
                look_every(state, slot, SLOW_HOOK_INSTRUCTIONS);
                0
            }
            Done::Reply(reply) => push_reply(state, reply),
            Done::Raise => {
                let text: *const Vec<u8> = &raw const (*slot).scratch;
                raise(state, (*text).as_ptr(), (*text).len())
            }
            Done::Overrun => stop(state, slot),
        }
    }
}

/// # Safety
/// `state` must be running a C function. May raise.
unsafe fn push_reply(state: *mut lua_State, reply: Reply<'_>) -> c_int {
    // SAFETY: at most two values fit into the stack that Lua grants a C function; more are asked for.
    unsafe {
        match reply {
            Reply::Nothing | Reply::Wait | Reply::Watch | Reply::LookOften => 0,
            Reply::One(value) => {
                push(state, value);
                1
            }
            Reply::Two(first, second) => {
                push(state, first);
                push(state, second);
                2
            }
            Reply::Match { bounds, subject, captures } => {
                ffi::luaL_checkstack(state, 40, ptr::null());
                let mut pushed = 0;
                if let Some((first, last)) = bounds {
                    push(state, Value::Number(count(first)));
                    push(state, Value::Number(count(last)));
                    pushed = 2;
                }
                for capture in captures {
                    push(state, captured(subject, *capture));
                    pushed += 1;
                }
                pushed
            }
        }
    }
}

/// # Safety
/// `state` must have a free stack position. May raise.
unsafe fn push(state: *mut lua_State, value: Value<'_>) {
    // SAFETY: the caller grants the stack position; the bytes are valid for the length of the slice.
    unsafe {
        match value {
            Value::Nil => ffi::lua_pushnil(state),
            Value::Boolean(b) => ffi::lua_pushboolean(state, c_int::from(b)),
            Value::Number(n) => ffi::lua_pushnumber(state, n),
            Value::Bytes(bytes) => ffi::lua_pushlstring_(state, bytes.as_ptr().cast(), bytes.len()),
        }
    }
}

/// Raises a text, with file and line of the innermost frame of a script before it.
///
/// # Safety
/// `state` must be running a C function, `text` valid for `len` bytes. Does not return.
unsafe fn raise(state: *mut lua_State, text: *const u8, len: usize) -> c_int {
    // SAFETY: a C function has 20 free stack positions; `luaL_where` takes any level.
    unsafe {
        ffi::luaL_where(state, script_level(state));
        ffi::lua_pushlstring_(state, text.cast(), len);
        ffi::lua_concat(state, 2);
        ffi::lua_error(state)
    }
}

/// The level of the innermost function that is neither C nor the sandbox's own.
///
/// # Safety
/// `state` must be running.
unsafe fn script_level(state: *mut lua_State) -> c_int {
    for level in 1..6 {
        // SAFETY: `ar` is filled by `lua_getstack` and read only when that succeeds; strings of `lua_getinfo` live
        // as long as the function.
        unsafe {
            let mut ar: ffi::lua_Debug = std::mem::zeroed();
            if ffi::lua_getstack(state, level, &raw mut ar) == 0 {
                break;
            }
            ffi::lua_getinfo(state, c"S".as_ptr(), &raw mut ar);
            if CStr::from_ptr(ar.source) != SANDBOX {
                return level;
            }
        }
    }
    1
}
