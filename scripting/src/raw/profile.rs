//! Samples of where a script is, for its line profile.

use std::ffi::{CStr, c_int};

use dataplane::script_profile::ScriptProfile;
use mlua::ffi::{self, lua_Debug, lua_State};

use super::{SANDBOX, Slot};

/// VM instructions between two looks while a profile is made: few enough for short scripts, and prime, so that loops are
/// not always met at the same place.
pub(super) const INSTRUCTIONS: c_int = 97;

/// Frames between where the hook strikes and the script's own code that are looked at.
const LEVELS: c_int = 8;

/// Notes where the script is that runs, with the time since the last look.
///
/// # Safety
/// `slot` must be valid and not borrowed; in a hook of a running state. Raises nothing.
pub(super) unsafe fn sample(state: *mut lua_State, slot: *mut Slot, now: u64) {
    // SAFETY: the caller's. `ar` is filled by `lua_getstack` and read only when that succeeds; the strings live as long as
    // the function does, which is running.
    unsafe {
        let Some(profile) = (*slot).profile.as_deref_mut() else { return };
        let spent = now.saturating_sub((*slot).looked);
        for level in 0..LEVELS {
            let mut ar: lua_Debug = std::mem::zeroed();
            if ffi::lua_getstack(state, level, &raw mut ar) == 0 {
                return;
            }
            ffi::lua_getinfo(state, c"Sl".as_ptr(), &raw mut ar);
            if note(profile, CStr::from_ptr(ar.source), ar.currentline, spent) {
                return;
            }
        }
    }
}

/// False where this is not the script's own code.
fn note(profile: &mut ScriptProfile, source: &CStr, line: c_int, nanoseconds: u64) -> bool {
    let Some(line) = u32::try_from(line).ok().filter(|line| *line > 0 && source != SANDBOX) else {
        return false;
    };
    let name = source.to_string_lossy();
    profile.line(name.strip_prefix('@').unwrap_or(&name), line, 1, nanoseconds);
    true
}
