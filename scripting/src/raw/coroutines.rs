//! The coroutines that scripts run in: made once, used again.

use std::ffi::c_int;
use std::ptr;

use mlua::ffi::{self, lua_State};

use super::machine::Machine;
use crate::call::Coroutine;

/// One Lua thread, null when it is dead.
pub(super) struct Thread {
    pub(super) state: *mut lua_State,
    /// What runs in it needs looks at the clock.
    pub(super) watched: bool,
}

/// Finished coroutines that are kept for the next runs.
const IDLE_COROUTINES: usize = 32;

impl Machine {
    pub(super) fn thread(&self, coroutine: Coroutine) -> Option<(*mut lua_State, bool)> {
        let thread = self.coroutines.get(coroutine.0).filter(|thread| !thread.state.is_null())?;
        Some((thread.state, thread.watched))
    }

    /// One that can run.
    pub(super) fn coroutine(&mut self) -> Option<Coroutine> {
        if let Some(coroutine) = self.idle.pop() {
            return Some(coroutine);
        }
        let place = self.vacant.pop().unwrap_or(Coroutine(self.coroutines.len()));
        let mut request = NewThread {
            anchors: self.anchors,
            place: c_int::try_from(place.0).ok()?.checked_add(1)?,
            thread: ptr::null_mut(),
        };
        // SAFETY: `new_thread` gets the request it expects, alive during the call; `lua_cpcall` is protected.
        let status = unsafe {
            let status = ffi::lua_cpcall(self.main, new_thread, (&raw mut request).cast());
            if status != ffi::LUA_OK {
                ffi::lua_settop(self.main, -2);
            }
            status
        };
        if status != ffi::LUA_OK {
            if place.0 < self.coroutines.len() {
                self.vacant.push(place);
            }
            return None;
        }
        match self.coroutines.get_mut(place.0) {
            Some(thread) => thread.state = request.thread,
            None => self.coroutines.push(Thread { state: request.thread, watched: true }),
        }
        Some(place)
    }

    /// Keeps a finished coroutine for another run.
    pub(super) fn retire(&mut self, coroutine: Coroutine) {
        if self.idle.len() >= IDLE_COROUTINES {
            self.discard(coroutine);
            return;
        }
        if let Some((thread, _)) = self.thread(coroutine) {
            // SAFETY: a finished coroutine is alive; what the script returned is dropped.
            unsafe { ffi::lua_settop(thread, 0) };
            self.idle.push(coroutine);
        }
    }

    /// Forgets a coroutine; it never runs again.
    pub(crate) fn discard(&mut self, coroutine: Coroutine) {
        let Some(thread) = self.coroutines.get_mut(coroutine.0) else { return };
        if thread.state.is_null() {
            return;
        }
        thread.state = ptr::null_mut();
        let Ok(place) = c_int::try_from(coroutine.0 + 1) else { return };
        // SAFETY: the main state has free stack positions; the table has this place already, so that nothing is
        // allocated.
        unsafe {
            ffi::lua_rawgeti_(self.main, ffi::LUA_REGISTRYINDEX, self.anchors);
            ffi::lua_pushnil(self.main);
            ffi::lua_rawseti_(self.main, -2, place);
            ffi::lua_settop(self.main, -2);
        }
        self.vacant.push(coroutine);
    }
}

struct NewThread {
    anchors: c_int,
    place: c_int,
    thread: *mut lua_State,
}

unsafe extern "C-unwind" fn new_thread(state: *mut lua_State) -> c_int {
    // SAFETY: called by `lua_cpcall` with the request as light userdata; only plain data is alive.
    unsafe {
        let request: *mut NewThread = ffi::lua_touserdata(state, 1).cast();
        ffi::lua_rawgeti_(state, ffi::LUA_REGISTRYINDEX, (*request).anchors);
        let thread = ffi::lua_newthread(state);
        ffi::lua_rawseti_(state, -2, (*request).place);
        (*request).thread = thread;
    }
    0
}
