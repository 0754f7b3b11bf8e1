//! Runs of scripts: from their start, or the end of a wait, to their end or the next wait.

use std::ffi::c_int;
use std::ptr;

use dataplane::policy::Context;
use dataplane::script_profile::ScriptProfile;
use dataplane::script_trace::Detail;
use dataplane::snapshot::ScriptSetId;
use mlua::ffi::{self, lua_State};

use super::machine::{Compiled, Machine};
use super::traceback::describe;
use super::watch::{HOOK_INSTRUCTIONS, UNWATCHED, look_every};
use super::{profile, slot, trace};
use crate::call::{Coroutine, Failure, Step, count};

/// Runs in a row that need no hook after which it is taken off: that is as dear as some runs with it.
const UNWATCHED_RUNS: u32 = 16;

impl Machine {
    /// Runs a script of `set` until it ends, waits or fails; it may take `budget` nanoseconds. Tells what it took, too.
    pub(crate) fn start(
        &mut self,
        script: Compiled,
        set: ScriptSetId,
        budget: u64,
        context: &mut Context<'_>,
    ) -> (Step, u64) {
        let Some(coroutine) = self.coroutine() else {
            return (Step::failed(Failure::Memory("no memory for a coroutine".to_owned())), 0);
        };
        let (driver, argument, watched) = match script {
            Compiled::Any(script) => (Some(self.driver), script, true),
            Compiled::Contained { main, indexes, watched } => {
                (indexes.then_some(self.indexing), main, watched)
            }
        };
        let Some(thread) = self.coroutines.get_mut(coroutine.0).filter(|thread| !thread.state.is_null())
        else {
            return (Step::dead(), 0);
        };
        thread.watched = watched;
        let state = thread.state;
        // SAFETY: the coroutine is idle, and who has a `Compiled` has not released it.
        let arguments = unsafe { thread.load(driver, argument) };
        self.go(coroutine, (state, watched), arguments, (set, budget), context)
    }

    /// Goes on after a `collect`, which returns `buffered`. Tells what it took, too.
    pub(crate) fn resume(
        &mut self,
        coroutine: Coroutine,
        buffered: usize,
        set: ScriptSetId,
        budget: u64,
        context: &mut Context<'_>,
    ) -> (Step, u64) {
        let Some((state, watched)) = self.thread(coroutine) else { return (Step::dead(), 0) };
        // SAFETY: a waiting coroutine is alive (anchored); a number is pushed without allocating.
        unsafe { ffi::lua_pushnumber(state, count(buffered)) };
        self.go(coroutine, (state, watched), 1, (set, budget), context)
    }

    /// Sets the hook that the next part of a run needs.
    ///
    /// # Safety
    /// `thread` must be alive, the slot set up but for its hook and for `lines`.
    #[inline(never)]
    unsafe fn watch(&mut self, thread: *mut lua_State) {
        let slot = self.slot.as_ptr();
        // SAFETY: the caller's; no Lua code runs while the machine is borrowed, so this is the only use of the slot.
        unsafe {
            if (*slot).lines != (trace::detail(slot) == Some(Detail::Lines)) {
                (*slot).lines = !(*slot).lines;
                (*slot).interval = -1;
            }
            let interval = self.interval((*slot).watched);
            look_every(thread, slot, interval);
        }
    }

    /// VM instructions between two looks at the clock for the next part of a run.
    fn interval(&mut self, watched: bool) -> c_int {
        // SAFETY: no Lua code runs while the machine is borrowed, so this is the only use of the slot.
        let slot = unsafe { self.slot.as_ref() };
        if slot.profile.is_some() {
            return profile::INSTRUCTIONS;
        }
        if watched || slot.lines {
            self.unwatched = 0;
            return HOOK_INSTRUCTIONS;
        }
        if slot.interval == HOOK_INSTRUCTIONS && self.unwatched < UNWATCHED_RUNS {
            self.unwatched += 1;
            return HOOK_INSTRUCTIONS;
        }
        UNWATCHED
    }

    /// Part of its two callers: one of them is what each new flow with a script pays for.
    #[inline(always)]
    fn go(
        &mut self,
        coroutine: Coroutine,
        (thread, watched): (*mut lua_State, bool),
        arguments: c_int,
        (set, budget): (ScriptSetId, u64),
        context: &mut Context<'_>,
    ) -> (Step, u64) {
        let slot = self.slot.as_ptr();
        // SAFETY: no Lua code runs before `lua_resume_`, so the slot is ours; the context pointer is set from an
        // exclusive borrow that outlives this function and cleared before it returns (nothing unwinds out of
        // `lua_resume_`, which is protected). The coroutine is alive and has its arguments on its stack.
        let (status, spent) = unsafe {
            (*slot).context = ptr::from_mut(context).cast();
            (*slot).set = set;
            let began = ((*slot).clock)();
            (*slot).looked = began;
            (*slot).deadline = began.saturating_add(budget);
            (*slot).overrun = false;
            (*slot).traced = context.record.trace.is_some();
            (*slot).watched = watched;
            let unseen = !watched & !(*slot).traced & !(*slot).lines & (*slot).profile.is_none();
            if !unseen | ((*slot).interval != UNWATCHED) {
                self.watch(thread);
            }
            slot::activate(slot);
            let status = ffi::lua_resume_(thread, arguments);
            slot::activate(ptr::null_mut());
            if (*slot).lines {
                trace::count(slot);
            }
            (*slot).context = ptr::null_mut();
            (status, ((*slot).clock)().saturating_sub(began))
        };
        if status == ffi::LUA_OK {
            self.retire(coroutine);
            return (Step::Done, spent);
        }
        (self.stopped(coroutine, thread, status), spent)
    }

    /// What a coroutine has come to whose resume had this result, if not to its end.
    fn stopped(&mut self, coroutine: Coroutine, thread: *mut lua_State, status: c_int) -> Step {
        // SAFETY: no Lua code runs while the machine is borrowed, so this is the only use of the slot.
        let slot = unsafe { self.slot.as_ref() };
        let (overrun, need, watched) = (slot.overrun, slot.need, slot.watched);
        match status {
            ffi::LUA_YIELD => {
                if let Some(thread) = self.coroutines.get_mut(coroutine.0) {
                    thread.watched = watched;
                }
                Step::Waiting(coroutine, need)
            }
            _ => self.failed(coroutine, thread, status, overrun),
        }
    }

    #[cold]
    fn failed(&mut self, coroutine: Coroutine, thread: *mut lua_State, status: c_int, overrun: bool) -> Step {
        // SAFETY: the coroutine is dead but still anchored, its error value on top of its stack.
        let text = unsafe { describe(thread) };
        self.discard(coroutine);
        Step::failed(match status {
            _ if overrun => Failure::Budget(text),
            ffi::LUA_ERRMEM => Failure::Memory(text),
            _ => Failure::Error(text),
        })
    }

    /// Begins a profile, or ends one and gives it.
    pub(crate) fn profile(&mut self, begin: bool) -> Option<Box<ScriptProfile>> {
        // SAFETY: no Lua code runs while the machine is borrowed, so this is the only use of the slot.
        let slot = unsafe { self.slot.as_mut() };
        std::mem::replace(&mut slot.profile, begin.then(Box::default))
    }

    /// Whether the next run, or part of one, is of the script that the profile is about.
    pub(crate) fn sample(&mut self, sampled: bool) {
        // SAFETY: as in `profile`.
        unsafe { self.slot.as_mut() }.sampled = sampled;
    }

    /// Adds a run to the profile.
    pub(crate) fn profile_run(&mut self, nanoseconds: u64) {
        // SAFETY: as in `profile`.
        if let Some(profile) = unsafe { self.slot.as_mut() }.profile.as_deref_mut() {
            profile.runs += 1;
            profile.nanoseconds += nanoseconds;
        }
    }
}
