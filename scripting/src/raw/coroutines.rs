//! The coroutines that scripts run in: made once, used again.

use std::cell::Cell;
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
    /// What stands at the bottom of its stack from run to run.
    held: Held,
}

/// The values that start a script, kept by a coroutine for the next run of the same one.
struct Held {
    /// Registry reference of the last of them; none once the script is let go. A waiting run's script may be.
    script: Cell<c_int>,
    /// How many there are: a function, and what it is called with. None in an idle coroutine whose script is let go.
    values: Cell<c_int>,
}

impl Thread {
    fn new(state: *mut lua_State) -> Self {
        Thread {
            state,
            watched: true,
            held: Held { script: Cell::new(ffi::LUA_NOREF), values: Cell::new(0) },
        }
    }

    /// Puts the function of a script, or a driver and the script that it is called with, on the stack. Tells how many
    /// arguments there are.
    ///
    /// # Safety
    /// The coroutine must be an idle one, the references must be alive.
    pub(super) unsafe fn load(&mut self, driver: Option<c_int>, script: c_int) -> c_int {
        let arguments = c_int::from(driver.is_some());
        // SAFETY: an idle coroutine is alive (anchored), and nothing but the held values is on its stack; these push
        // without allocating.
        unsafe {
            if self.held.script.get() != script {
                self.hold(driver, script);
            }
            ffi::lua_pushvalue(self.state, 1);
            if self.held.values.get() > 1 {
                ffi::lua_pushvalue(self.state, 2);
            }
        }
        arguments
    }

    /// Fetches what a run starts with, to be kept.
    ///
    /// # Safety
    /// As for [`Thread::load`].
    #[inline(never)]
    unsafe fn hold(&mut self, driver: Option<c_int>, script: c_int) {
        // SAFETY: the caller's.
        unsafe {
            ffi::lua_settop(self.state, 0);
            if let Some(driver) = driver {
                ffi::lua_rawgeti_(self.state, ffi::LUA_REGISTRYINDEX, driver);
            }
            ffi::lua_rawgeti_(self.state, ffi::LUA_REGISTRYINDEX, script);
        }
        let values = c_int::from(driver.is_some()) + 1;
        self.held = Held { script: Cell::new(script), values: Cell::new(values) };
    }

    /// Drops what a finished run has left: all but the held values, and those, too, if their script is let go.
    ///
    /// # Safety
    /// The coroutine must be alive, and no run be in it.
    unsafe fn tidy(&self) {
        if self.held.script.get() == ffi::LUA_NOREF {
            self.held.values.set(0);
        }
        // SAFETY: the caller's; the stack only gets shorter.
        unsafe {
            if ffi::lua_gettop(self.state) != self.held.values.get() {
                ffi::lua_settop(self.state, self.held.values.get());
            }
        }
    }
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
        match self.idle.pop() {
            Some(coroutine) => Some(coroutine),
            None => self.new_coroutine(),
        }
    }

    #[cold]
    fn new_coroutine(&mut self) -> Option<Coroutine> {
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
            Some(thread) => *thread = Thread::new(request.thread),
            None => self.coroutines.push(Thread::new(request.thread)),
        }
        Some(place)
    }

    /// Keeps a finished coroutine for another run.
    pub(super) fn retire(&mut self, coroutine: Coroutine) {
        if self.idle.len() >= IDLE_COROUTINES {
            self.discard(coroutine);
            return;
        }
        if let Some(thread) = self.coroutines.get(coroutine.0).filter(|thread| !thread.state.is_null()) {
            // SAFETY: a finished coroutine is alive.
            unsafe { thread.tidy() };
            self.idle.push(coroutine);
        }
    }

    /// Forgets a script whose reference is given back, which may become another one's. Idle coroutines do not keep it
    /// alive; those in which a run of it waits do until they are idle.
    pub(super) fn forget(&self, script: c_int) {
        for thread in self.coroutines.iter().filter(|thread| thread.held.script.get() == script) {
            thread.held.script.set(ffi::LUA_NOREF);
        }
        let idle = self.idle.iter().filter_map(|place| self.coroutines.get(place.0));
        for thread in idle.filter(|thread| !thread.state.is_null()) {
            // SAFETY: an idle coroutine is alive.
            unsafe { thread.tidy() };
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
