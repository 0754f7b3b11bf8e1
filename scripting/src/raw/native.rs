//! Functions of the API as C functions: reading the arguments, the call in safe Rust, the results or an error.

use std::ffi::{CStr, c_int};
use std::marker::PhantomData;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr;

use mlua::ffi::{self, lua_State};

use super::watch::{HOOK_INSTRUCTIONS, SLOW_HOOK_INSTRUCTIONS, UNWATCHED, look_every, stop};
use super::{Arguments, SANDBOX, Slot, slot, trace};
use crate::call::{Answer, Quick, Refusal, Reply, Value, captured, count};

/// A function that scripts can call.
pub(crate) trait Native {
    /// Name by which the sandbox finds it and which error texts begin with.
    const NAME: &'static str;
    /// Whether error texts begin with the name.
    const NAMED: bool = true;
    /// Does the work. Must not touch Lua.
    fn call<'s>(arguments: Arguments<'s>, slot: &'s mut Slot) -> Answer<'s>;
    /// Does the work of the usual calls, before [`Native::call`] and instead of it. Must not touch Lua.
    #[inline]
    fn quick(_arguments: Arguments<'_>, _slot: &mut Slot) -> Quick {
        Quick::Other
    }
    /// What the result depends on, if it is one string that is kept: what it was for the last time, and what it is now,
    /// never 0.
    fn kept(_slot: &mut Slot) -> Option<(&mut u64, u64)> {
        None
    }
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
    // SAFETY: the call is over and its answer holds no borrow where it is a refusal, so this is the only use of the slot.
    let refused = |refusal| refused::<N>(refusal, unsafe { &mut *shared });
    match answer {
        Ok(Ok(reply)) => Done::Reply(reply),
        Ok(Err(refusal)) => refused(refusal),
        Err(_panic) => refused(Refusal::text(PANICKED)),
    }
}

/// Puts the text of a refusal where it is raised from.
#[cold]
fn refused<'s, N: Native>(refusal: Refusal, slot: &mut Slot) -> Done<'s> {
    let Refusal::Text(text) = refusal else { return Done::Overrun };
    let over = slot.deadline();
    if text.len() > LONG_ERROR && over() {
        return Done::Overrun;
    }
    slot.scratch.clear();
    if N::NAMED {
        slot.scratch.extend_from_slice(N::NAME.as_bytes());
        slot.scratch.extend_from_slice(b": ");
    }
    slot.scratch.extend_from_slice(text.as_bytes());
    Done::Raise
}

/// The C function of a [`Native`]; its upvalue is the last result where that is kept.
unsafe extern "C-unwind" fn enter<N: Native>(state: *mut lua_State) -> c_int {
    let slot = slot::active();
    if slot.is_null() {
        // SAFETY: Lua calls this with a valid state.
        return unsafe { raise(state, OUTSIDE.as_ptr(), OUTSIDE.len()) };
    }
    // SAFETY: Lua calls this with a valid state whose stack holds the arguments. The slot is that of the machine that
    // runs. No other borrow of it is alive: functions do not call Lua, and the machine does not touch the slot while
    // Lua runs. Only plain data is alive where the calls below may raise.
    unsafe {
        let kept = N::kept(&mut *slot).map(|(last, key)| (ptr::from_mut(last), key));
        if let Some((last, key)) = kept
            && *last == key
            && !(*slot).traced
        {
            ffi::lua_pushvalue(state, ffi::lua_upvalueindex(1));
            return 1;
        }
        let arguments = Arguments { state, count: ffi::lua_gettop(state), stack: PhantomData };
        if !(*slot).traced
            && let Some(results) = quick::<N>(arguments, slot)
        {
            return results;
        }
        match attempt::<N>(arguments, &mut *slot) {
            Done::Reply(Reply::Nothing) => 0,
            Done::Reply(Reply::One(value)) => {
                push(state, value);
                if let Some((last, key)) = kept {
                    ffi::lua_pushvalue(state, -1);
                    ffi::lua_replace(state, ffi::lua_upvalueindex(1));
                    *last = key;
                }
                1
            }
            Done::Reply(reply) => give(state, slot, reply),
            Done::Raise => {
                let text: *const Vec<u8> = &raw const (*slot).scratch;
                raise(state, (*text).as_ptr(), (*text).len())
            }
            Done::Overrun => stop(state, slot),
        }
    }
}

/// Does a usual call; the number of its results. `None`: it is not a usual one.
///
/// # Safety
/// As for [`give`].
#[inline]
unsafe fn quick<N: Native>(arguments: Arguments<'_>, slot: *mut Slot) -> Option<c_int> {
    let state = arguments.state;
    // SAFETY: the caller's; the slot is not borrowed any more when results are pushed.
    unsafe {
        let Ok(done) = catch_unwind(AssertUnwindSafe(|| N::quick(arguments, &mut *slot))) else {
            return Some(raise(state, PANICKED.as_ptr(), PANICKED.len()));
        };
        let results = match done {
            Quick::Other => return None,
            Quick::Nothing => return Some(0),
            Quick::Nil => {
                ffi::lua_pushnil(state);
                return Some(1);
            }
            Quick::Number(number) => {
                ffi::lua_pushnumber(state, number);
                return Some(1);
            }
            Quick::Text => 1,
            Quick::TextAndNumber(_) => 2,
        };
        let text: *const Vec<u8> = &raw const (*slot).scratch;
        ffi::lua_pushlstring_(state, (*text).as_ptr().cast(), (*text).len());
        if let Quick::TextAndNumber(number) = done {
            ffi::lua_pushnumber(state, number);
        }
        Some(results)
    }
}

/// What a function says whose code has panicked.
const PANICKED: &str = "internal error";

/// What a function says that is called while no script runs.
const OUTSIDE: &str = "called outside of a run";

/// Does what a reply asks for; the number of its results.
///
/// # Safety
/// `state` must be running a C function, `slot` valid and not borrowed but by the reply. May raise.
unsafe fn give(state: *mut lua_State, slot: *mut Slot, reply: Reply<'_>) -> c_int {
    // SAFETY: the caller's; setting a hook touches nothing that a reply borrows.
    unsafe {
        match reply {
            Reply::Wait => ffi::lua_yield(state, 0),
            Reply::Watch => {
                (*slot).watched = true;
                if (*slot).interval == UNWATCHED {
                    look_every(state, slot, HOOK_INSTRUCTIONS);
                }
                0
            }
            Reply::LookOften => {
                (*slot).watched = true;
                look_every(state, slot, SLOW_HOOK_INSTRUCTIONS);
                0
            }
            reply => push_reply(state, reply),
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
