//! What talks to Lua's C interface, and nothing else does: this file and those of `raw/`. Everything unsafe of this crate is here.
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

use std::ffi::{CStr, c_int, c_void};
use std::marker::PhantomData;
use std::ptr::{self, NonNull};

use dataplane::policy::Context;
use dataplane::script_profile::ScriptProfile;
use dataplane::script_trace::Detail;
use dataplane::snapshot::ScriptSetId;
use mlua::chunk::ChunkMode;
use mlua::ffi::{self, lua_State};
use mlua::{Function, LightUserData, Lua, LuaOptions, StdLib, Table, Value as LuaValue};
use script_check::Contained;

use crate::call::{Argument, Clock, Coroutine, Failure, Refusal, Step, count};
use crate::pattern::Captures;

mod native;
mod profile;
mod trace;
mod traceback;

pub(crate) use native::{Entry, Native};
use traceback::describe;

/// VM instructions between two looks at the clock, some microseconds apart.
const HOOK_INSTRUCTIONS: c_int = 1000;

/// The same for a script that works on long strings: where the last look is more than [`SLOW`] ago.
const SLOW_HOOK_INSTRUCTIONS: c_int = 20;

const SLOW: u64 = 100_000; // nanoseconds

/// No hook at all, as the number of instructions between two looks at the clock.
const UNWATCHED: c_int = 0;

/// Runs in a row that need no hook after which it is taken off: that is as dear as some runs with it.
const UNWATCHED_RUNS: u32 = 16;

/// Chunk name of the crate's own Lua code; such frames are left out of messages.
pub(crate) const SANDBOX: &CStr = c"=[weir]";

/// The address of this is the registry key of the [`Slot`].
static SLOT_KEY: u8 = 0;
/// The address of this is `avi.SIG_ENABLE`.
static SIGNIFICANT: u8 = 0;

/// What the functions of the API share with the machine that runs them.
pub(crate) struct Slot {
    /// Null outside of a run.
    context: *mut Context<'static>,
    set: ScriptSetId,
    clock: Clock,
    deadline: u64,
    /// The last look at the clock.
    looked: u64,
    overrun: bool,
    /// VM instructions between two looks at the clock, as the hook is set; [`UNWATCHED`], or negative where it must be set.
    interval: c_int,
    /// The run needs looks at the clock.
    watched: bool,
    need: usize,
    /// The flow has a trace; it notes lines, too; instructions since the run began or went on, counted with lines.
    traced: bool,
    lines: bool,
    instructions: u64,
    /// A profile is being made; of the script that runs.
    profile: Option<Box<ScriptProfile>>,
    sampled: bool,
    /// Registry reference of the text raised at the end of the budget.
    overrun_text: c_int,
    /// Bytes of results and error texts, so that nothing with a destructor is alive while they are pushed.
    pub(crate) scratch: Vec<u8>,
    /// Captures of the last match.
    pub(crate) captures: Captures,
}

impl Slot {
    /// The context of the run, to read.
    pub(crate) fn context(&self) -> Result<&Context<'_>, Refusal> {
        // SAFETY: `Machine::go` sets the pointer from a live `&mut Context` and clears it before that borrow ends;
        // the result is bound to a borrow of the slot, which a function of the API holds only within `go`. A shared
        // `Context` is covariant, so shortening its lifetime is sound.
        unsafe { self.context.as_ref() }.ok_or_else(|| Refusal::text("called outside of a run"))
    }

    /// Calls `f` with the context of the run.
    pub(crate) fn with_context<R>(&mut self, f: impl FnOnce(&mut Context<'_>) -> R) -> Result<R, Refusal> {
        // SAFETY: as in `context`; the borrow is exclusive because the slot is borrowed exclusively. The closure is
        // generic over the lifetime, so it cannot put anything of its own into the context.
        let context =
            unsafe { self.context.as_mut() }.ok_or_else(|| Refusal::text("called outside of a run"))?;
        Ok(f(context))
    }

    /// The DataScript set whose script runs.
    pub(crate) fn set(&self) -> ScriptSetId {
        self.set
    }

    /// Notes how many bytes a `collect` waits for.
    pub(crate) fn wait_for(&mut self, need: usize) {
        self.need = need;
    }

    /// What tells whether the run's time is over.
    pub(crate) fn deadline(&self) -> impl Fn() -> bool + use<> {
        let (clock, deadline) = (self.clock, self.deadline);
        move || clock() >= deadline
    }
}

/// The arguments of a call. They stay where they are, on Lua's stack, until the function returns.
#[derive(Clone, Copy)]
pub(crate) struct Arguments<'s> {
    state: *mut lua_State,
    count: c_int,
    stack: PhantomData<&'s ()>,
}

impl<'s> Arguments<'s> {
    /// Number of arguments given.
    pub(crate) fn count(self) -> usize {
        usize::try_from(self.count).unwrap_or(0)
    }

    /// The argument at `position`, counted from 1.
    pub(crate) fn at(self, position: usize) -> Argument<'s> {
        let Ok(index) = c_int::try_from(position) else { return Argument::Missing };
        if index < 1 || index > self.count {
            return Argument::Missing;
        }
        // SAFETY: `index` is a valid stack position. None of these calls allocates or raises: `lua_tolstring` is
        // used on strings only, where it converts nothing. The string lives as long as its stack position, which
        // nothing removes before the C function returns ('s).
        unsafe {
            match ffi::lua_type(self.state, index) {
                ffi::LUA_TNIL => Argument::Nil,
                ffi::LUA_TBOOLEAN => Argument::Boolean(ffi::lua_toboolean(self.state, index) != 0),
                ffi::LUA_TNUMBER => Argument::Number(ffi::lua_tonumber(self.state, index)),
                ffi::LUA_TSTRING => {
                    let mut len = 0;
                    let text = ffi::lua_tolstring(self.state, index, &raw mut len);
                    Argument::String(std::slice::from_raw_parts(text.cast(), len))
                }
                ffi::LUA_TLIGHTUSERDATA
                    if ptr::eq(ffi::lua_touserdata(self.state, index), significant_address()) =>
                {
                    Argument::Significant
                }
                other => Argument::Other(type_name(other)),
            }
        }
    }

    /// The number that a string spells as Lua reads it (`"10"`, `" 0x1f "`), or the number itself.
    pub(crate) fn number_at(self, position: usize) -> Option<f64> {
        let index = c_int::try_from(position).ok().filter(|i| (1..=self.count).contains(i))?;
        // SAFETY: a valid stack position; neither call allocates or raises.
        unsafe { (ffi::lua_isnumber(self.state, index) != 0).then(|| ffi::lua_tonumber(self.state, index)) }
    }
}

fn type_name(kind: c_int) -> &'static str {
    match kind {
        ffi::LUA_TTABLE => "table",
        ffi::LUA_TFUNCTION => "function",
        ffi::LUA_TTHREAD => "thread",
        _ => "userdata",
    }
}

fn significant_address() -> *const c_void {
    (&raw const SIGNIFICANT).cast()
}

/// Lets the hook look at the clock after each so many instructions. Setting it is dear, so it stays from run to run; it is
/// one for all coroutines.
///
/// # Safety
/// `state` must be alive, `slot` valid and its own.
unsafe fn look_every(state: *mut lua_State, slot: *mut Slot, instructions: c_int) {
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
unsafe fn stop(state: *mut lua_State, slot: *mut Slot) -> c_int {
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
    // SAFETY: Lua calls hooks with free stack positions. The registry entry is set by `Machine::new`, and the slot
    // is not borrowed: hooks run between instructions, never inside a function of the API.
    unsafe {
        ffi::lua_pushlightuserdata(state, (&raw const SLOT_KEY).cast_mut().cast());
        ffi::lua_rawget_(state, ffi::LUA_REGISTRYINDEX);
        let slot: *mut Slot = ffi::lua_touserdata(state, -1).cast();
        ffi::lua_settop(state, -2);
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

/// A compiled script, by a registry reference.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Compiled {
    /// The table that the driver takes: the function that makes its main function (`outer`), its `modules`, and the worlds
    /// that wait for their next run.
    Any(c_int),
    /// The main function of a contained script, or the table with it if it may look up a field of a string; and whether it
    /// needs looks at the clock.
    Contained { main: c_int, indexes: bool, watched: bool },
}

/// One Lua thread, null when it is dead.
struct Thread {
    state: *mut lua_State,
    /// What runs in it needs looks at the clock.
    watched: bool,
}

/// One Lua state and its coroutines.
pub(crate) struct Machine {
    slot: NonNull<Slot>,
    lua: Lua,
    main: *mut lua_State,
    /// Registry references of the functions of the sandbox that run scripts, and contained scripts that index strings.
    driver: c_int,
    indexing: c_int,
    /// Makes the main function of a contained script.
    contain: Option<Function>,
    /// Registry reference of the table that keeps the coroutines alive.
    anchors: c_int,
    coroutines: Vec<Thread>,
    /// Finished coroutines that can run again.
    idle: Vec<Coroutine>,
    /// Places of dead coroutines.
    vacant: Vec<Coroutine>,
    /// Runs in a row for which no hook was needed.
    unwatched: u32,
}

/// Finished coroutines that are kept for the next runs.
const IDLE_COROUTINES: usize = 32;

impl Machine {
    /// A state with the sandbox of `source` around `entries`.
    ///
    /// `source` is called with the table of entries by name, the metatable of strings and `avi.SIG_ENABLE`, and
    /// gives three functions: the driver, what makes the main function of a contained script, and what runs that if it may
    /// look up a field of a string.
    pub(crate) fn new(source: &str, entries: &[Entry], clock: Clock) -> mlua::Result<Machine> {
        let libraries = StdLib::TABLE | StdLib::STRING | StdLib::MATH | StdLib::BIT | StdLib::OS;
        let lua = Lua::new_with(libraries, LuaOptions::new())?;
        lua.gc_stop();
        let slot = NonNull::from(Box::leak(Box::new(Slot {
            context: ptr::null_mut(),
            set: ScriptSetId(0),
            clock,
            deadline: 0,
            looked: 0,
            overrun: false,
            interval: UNWATCHED,
            watched: false,
            need: 0,
            traced: false,
            lines: false,
            instructions: 0,
            profile: None,
            sampled: false,
            overrun_text: ffi::LUA_NOREF,
            scratch: Vec::new(),
            captures: Captures::new(),
        })));
        let mut machine = Machine {
            slot,
            lua,
            main: ptr::null_mut(),
            driver: ffi::LUA_NOREF,
            indexing: ffi::LUA_NOREF,
            contain: None,
            anchors: ffi::LUA_NOREF,
            coroutines: Vec::new(),
            idle: Vec::new(),
            vacant: Vec::new(),
            unwatched: 0,
        };
        machine.prepare(source, entries)?;
        Ok(machine)
    }

    fn prepare(&mut self, source: &str, entries: &[Entry]) -> mlua::Result<()> {
        let slot: *mut Slot = self.slot.as_ptr();
        let main = &mut self.main;
        // SAFETY: `exec_raw` runs the closure protected, with free stack positions; nothing in it has a destructor.
        unsafe {
            self.lua.exec_raw::<()>((), |state| {
                *main = state;
                ffi::lua_pushlightuserdata(state, (&raw const SLOT_KEY).cast_mut().cast());
                ffi::lua_pushlightuserdata(state, slot.cast());
                ffi::lua_rawset(state, ffi::LUA_REGISTRYINDEX);
            })?;
        }
        let text = self.lua.create_string("the time budget of the run is over")?;
        let text = self.reference(LuaValue::String(text))?;
        // SAFETY: no Lua code runs now, so this is the only use of the slot.
        unsafe { (*slot).overrun_text = text };
        let natives = self.lua.create_table()?;
        for entry in entries {
            natives.raw_set(entry.name, self.closure(*entry)?)?;
        }
        let strings: Table = self.lua.load("return getmetatable('')").eval()?;
        let significant = LuaValue::LightUserData(LightUserData(significant_address().cast_mut()));
        let sandbox = self.function(SANDBOX.to_str().unwrap_or("=[weir]"), source.as_bytes())?;
        let made: (Function, Function, Function) = sandbox.call((natives, strings, significant))?;
        let (driver, contain, indexing) = made;
        self.driver = self.reference(LuaValue::Function(driver))?;
        self.contain = Some(contain);
        self.indexing = self.reference(LuaValue::Function(indexing))?;
        let anchors = self.lua.create_table()?;
        self.anchors = self.reference(LuaValue::Table(anchors))?;
        Ok(())
    }

    /// Bounds the memory of the state, in bytes, what is in use now included.
    pub(crate) fn limit_memory(&self, bytes: usize) -> mlua::Result<()> {
        self.lua.set_memory_limit(bytes)?;
        Ok(())
    }

    fn closure(&self, entry: Entry) -> mlua::Result<Function> {
        let slot: *mut Slot = self.slot.as_ptr();
        // SAFETY: as in `prepare`; `enter` expects the slot as its first upvalue.
        unsafe {
            self.lua.exec_raw((), |state| {
                ffi::lua_pushlightuserdata(state, slot.cast());
                ffi::lua_pushcclosure(state, entry.function, 1);
            })
        }
    }

    fn function(&self, name: &str, text: &[u8]) -> mlua::Result<Function> {
        self.lua.load(text).set_name(name).set_mode(ChunkMode::Text).into_function()
    }

    fn reference(&self, value: LuaValue) -> mlua::Result<c_int> {
        let mut reference = ffi::LUA_NOREF;
        let place = &mut reference;
        // SAFETY: as in `prepare`; the argument is on the stack and `luaL_ref` takes it off.
        unsafe {
            self.lua.exec_raw::<()>(value, |state| {
                *place = ffi::luaL_ref(state, ffi::LUA_REGISTRYINDEX);
            })?;
        }
        Ok(reference)
    }

    /// Compiles a text and throws the result away: for its errors.
    pub(crate) fn try_compile(&self, name: &str, text: &[u8]) -> mlua::Result<()> {
        self.function(name, text).map(drop)
    }

    /// A table of modules, by name: `texts` are wrapped so that calling the compiled text gives the main function.
    pub(crate) fn modules(&self, texts: &[(String, String, Vec<u8>)]) -> mlua::Result<Modules> {
        let table = self.lua.create_table()?;
        for (module, name, text) in texts {
            table.raw_set(module.as_str(), self.function(name, text)?)?;
        }
        Ok(Modules(table))
    }

    /// Compiles a script, wrapped like a module; `contained` is what is known of a contained one.
    pub(crate) fn compile(
        &self,
        name: &str,
        text: &[u8],
        modules: &Modules,
        contained: Option<Contained>,
    ) -> mlua::Result<Compiled> {
        let outer = self.function(name, text)?;
        if let (Some(Contained { indexes, straight }), Some(contain)) = (contained, &self.contain) {
            let main = self.reference(contain.call((outer, indexes))?)?;
            return Ok(Compiled::Contained { main, indexes, watched: !straight });
        }
        let script = self.lua.create_table()?;
        script.raw_set("outer", outer)?;
        script.raw_set("modules", &modules.0)?;
        script.raw_set("count", 0)?;
        script.raw_set("idle", false)?;
        Ok(Compiled::Any(self.reference(LuaValue::Table(script))?))
    }

    /// Lets a script go that nobody starts any more; runs of it that wait go on.
    pub(crate) fn release(&self, script: Compiled) {
        let (Compiled::Any(reference) | Compiled::Contained { main: reference, .. }) = script;
        // SAFETY: as in `reference`, whose reference is given back once: `Compiled` is not used again. It does not fail.
        let _ = unsafe {
            self.lua.exec_raw::<()>((), |state| {
                ffi::luaL_unref(state, ffi::LUA_REGISTRYINDEX, reference);
            })
        };
    }

    /// Runs a script of `set` until it ends, waits or fails; it may take `budget` nanoseconds. Tells what it took, too.
    pub(crate) fn start(
        &mut self,
        script: Compiled,
        set: ScriptSetId,
        budget: u64,
        context: &mut Context<'_>,
    ) -> (Step, u64) {
        let Some(coroutine) = self.coroutine() else {
            return (Step::Failed(Failure::Memory("no memory for a coroutine".to_owned())), 0);
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
        // SAFETY: an idle coroutine is alive (anchored) and its stack is empty; these push without allocating.
        unsafe {
            if let Some(driver) = driver {
                ffi::lua_rawgeti_(state, ffi::LUA_REGISTRYINDEX, driver);
            }
            ffi::lua_rawgeti_(state, ffi::LUA_REGISTRYINDEX, argument);
        }
        self.go(coroutine, (state, watched), c_int::from(driver.is_some()), (set, budget), context)
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

    fn thread(&self, coroutine: Coroutine) -> Option<(*mut lua_State, bool)> {
        let thread = self.coroutines.get(coroutine.0).filter(|thread| !thread.state.is_null())?;
        Some((thread.state, thread.watched))
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
            let detail = trace::detail(slot);
            (*slot).traced = detail.is_some();
            if (*slot).lines != (detail == Some(Detail::Lines)) {
                (*slot).lines = !(*slot).lines;
                (*slot).interval = -1;
            }
            (*slot).watched = watched;
            look_every(thread, slot, self.interval(watched));
            let status = ffi::lua_resume_(thread, arguments);
            if (*slot).lines {
                trace::count(slot);
            }
            (*slot).context = ptr::null_mut();
            (status, ((*slot).clock)().saturating_sub(began))
        };
        (self.step(coroutine, thread, status), spent)
    }

    /// What a coroutine has come to with this result of its resume.
    fn step(&mut self, coroutine: Coroutine, thread: *mut lua_State, status: c_int) -> Step {
        // SAFETY: no Lua code runs while the machine is borrowed, so this is the only use of the slot.
        let slot = unsafe { self.slot.as_ref() };
        let (overrun, need, watched) = (slot.overrun, slot.need, slot.watched);
        match status {
            ffi::LUA_OK => {
                self.retire(coroutine);
                Step::Done
            }
            ffi::LUA_YIELD => {
                if let Some(thread) = self.coroutines.get_mut(coroutine.0) {
                    thread.watched = watched;
                }
                Step::Waiting(coroutine, need)
            }
            _ => {
                // SAFETY: the coroutine is dead but still anchored, its error value on top of its stack.
                let text = unsafe { describe(thread) };
                self.discard(coroutine);
                Step::Failed(match status {
                    _ if overrun => Failure::Budget(text),
                    ffi::LUA_ERRMEM => Failure::Memory(text),
                    _ => Failure::Error(text),
                })
            }
        }
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

    fn coroutine(&mut self) -> Option<Coroutine> {
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
    fn retire(&mut self, coroutine: Coroutine) {
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

    /// Bytes that the state uses.
    pub(crate) fn memory(&self) -> usize {
        // SAFETY: reads two counters.
        let (kilobytes, bytes) = unsafe {
            (ffi::lua_gc(self.main, ffi::LUA_GCCOUNT, 0), ffi::lua_gc(self.main, ffi::LUA_GCCOUNTB, 0))
        };
        usize::try_from(kilobytes).unwrap_or(0) * 1024 + usize::try_from(bytes).unwrap_or(0)
    }

    /// Collects a little garbage, more for more `kilobytes`. True when a cycle is complete.
    pub(crate) fn collect_step(&mut self, kilobytes: usize) -> bool {
        let mut request =
            GarbageStep { kilobytes: c_int::try_from(kilobytes).unwrap_or(1024), complete: false };
        // SAFETY: `garbage_step` gets the request it expects, alive during the call; `lua_cpcall` is protected.
        unsafe {
            if ffi::lua_cpcall(self.main, garbage_step, (&raw mut request).cast()) != ffi::LUA_OK {
                ffi::lua_settop(self.main, -2);
            }
            ffi::lua_gc(self.main, ffi::LUA_GCSTOP, 0);
        }
        request.complete
    }

    /// Collects all garbage.
    pub(crate) fn collect_all(&mut self) {
        // A failure means that an allocation of the collector's own failed: what was freed is freed.
        let _ = self.lua.gc_collect();
        self.lua.gc_stop();
    }
}

/// A table of modules.
#[derive(Debug)]
pub(crate) struct Modules(Table);

impl Drop for Machine {
    fn drop(&mut self) {
        // The functions that hold the slot's address go with the state; nothing runs any of them any more: the
        // sandbox has no finalizers. So the slot may go first.
        // SAFETY: made by `Box::leak` in `new`, freed only here.
        drop(unsafe { Box::from_raw(self.slot.as_ptr()) });
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

struct GarbageStep {
    kilobytes: c_int,
    complete: bool,
}

unsafe extern "C-unwind" fn garbage_step(state: *mut lua_State) -> c_int {
    // SAFETY: called by `lua_cpcall` with the request as light userdata; only plain data is alive.
    unsafe {
        let request: *mut GarbageStep = ffi::lua_touserdata(state, 1).cast();
        (*request).complete = ffi::lua_gc(state, ffi::LUA_GCSTEP, (*request).kilobytes) != 0;
    }
    0
}
