//! The hook that looks at the clock while a script runs, and the end of runs whose time is over.

use std::ffi::c_int;

use mlua::ffi::{self, lua_State};

use super::slot::{self, Slot};
use super::{profile, trace};

/// VM instructions between two looks at the clock, some microseconds apart.
pub(super) const HOOK_INSTRUCTIONS: c_int = 1000;

/// The same for a script that works on long strings: where the last look is more than [`SLOW`] ago.
pub(super) const SLOW_HOOK_INSTRUCTIONS: c_int = 20;

const SLOW: u64 = 100_000; // nanoseconds

/// No hook at all, as the number of instructions between two looks at the clock.
pub(super) const UNWATCHED: c_int = 0;

/// Lets the hook look at the clock after each so many instructions. Setting it is dear, so it stays from run to run; it is
/// one for all coroutines.
///
/// # Safety
/// `state` must be alive, `slot` valid and its own.
pub(super) unsafe fn look_every(state: *mut lua_State, slot: *mut Slot, instructions: c_int) {
    // SAFETY: setting a hook neither allocates nor raises.
    unsafe {
        if (*slot).interval != instructions {
            match ((*slot).lines, instructions) {
                (true, _) => ffi::lua_sethook(state, Some(hook), ffi::LUA_MASKCOUNT | ffi::LUA_MASKLINE, 1),
                (false, UNWATCHED) => ffi::lua_sethook(state, None, 0, 0),
                (false, _) => ffi::lua_sethook(state, Some(hook), ffi::LUA_MASKCOUNT, instructions),
            };
            (*slot).interval = instructions;
        }
    }
}

/// Ends a run whose time is over: from here on every instruction raises, so that no `pcall` survives.
///
/// # Safety
/// `state` must be running, `slot` valid. Does not return.
pub(super) unsafe fn stop(state: *mut lua_State, slot: *mut Slot) -> c_int {
    // SAFETY: the reference was made by `Machine::new`; hooks and C functions have free stack positions.
    unsafe {
        (*slot).overrun = true;
        look_every(state, slot, 1);
        ffi::lua_rawgeti_(state, ffi::LUA_REGISTRYINDEX, (*slot).overrun_text);
        ffi::lua_error(state)
    }
}

/// The count hook: compares the clock with the run's deadline.
unsafe extern "C-unwind" fn hook(state: *mut lua_State, ar: *mut ffi::lua_Debug) {
    let slot = slot::active();
    if slot.is_null() {
        return;
    }
    // SAFETY: Lua calls hooks with free stack positions. The slot is that of the machine that runs, and it is not
    // borrowed: hooks run between instructions, never inside a function of the API.
    unsafe {
        if (*slot).lines && trace::on_hook(state, ar, slot) {
            return;
        }
        let now = ((*slot).clock)();
        if (*slot).overrun || now >= (*slot).deadline {
            stop(state, slot);
        }
        if (*slot).sampled {
            profile::sample(state, slot, now);
        }
        if now.saturating_sub((*slot).looked) > SLOW {
            look_every(state, slot, SLOW_HOOK_INSTRUCTIONS);
        }
        (*slot).looked = now;
    }
}
