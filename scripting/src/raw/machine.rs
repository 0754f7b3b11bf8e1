//! The Lua state with the sandbox: how it is set up, what is compiled in it, its memory.

use std::ffi::c_int;
use std::ptr::{self, NonNull};

use dataplane::snapshot::ScriptSetId;
use mlua::chunk::ChunkMode;
use mlua::ffi::{self, lua_State};
use mlua::{Function, LightUserData, Lua, LuaOptions, StdLib, Table, Value as LuaValue};
use script_check::Contained;

use super::SANDBOX;
use super::arguments::significant_address;
use super::coroutines::Thread;
use super::native::Entry;
use super::slot::Slot;
use super::watch::UNWATCHED;
use crate::call::{Clock, Coroutine};
use crate::pattern::Captures;

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

/// One Lua state and its coroutines.
pub(crate) struct Machine {
    pub(super) slot: NonNull<Slot>,
    pub(super) lua: Lua,
    pub(super) main: *mut lua_State,
    /// Registry references of the functions of the sandbox that run scripts, and contained scripts that index strings.
    pub(super) driver: c_int,
    pub(super) indexing: c_int,
    /// Makes the main function of a contained script.
    pub(super) contain: Option<Function>,
    /// Registry reference of the table that keeps the coroutines alive.
    pub(super) anchors: c_int,
    pub(super) coroutines: Vec<Thread>,
    /// Finished coroutines that can run again.
    pub(super) idle: Vec<Coroutine>,
    /// Places of dead coroutines.
    pub(super) vacant: Vec<Coroutine>,
    /// Runs in a row for which no hook was needed.
    pub(super) unwatched: u32,
}

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
            vip_kept: 0,
            port_kept: 0,
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
        // SAFETY: `exec_raw` runs the closure protected; nothing in it has a destructor.
        unsafe { self.lua.exec_raw::<()>((), |state| *main = state)? };
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
        // SAFETY: as in `prepare`, with free stack positions; `enter` keeps a result in its upvalue.
        unsafe {
            self.lua.exec_raw((), |state| {
                ffi::lua_pushnil(state);
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

    /// Compiles a contained script, of which calling the compiled text gives the main function.
    pub(crate) fn compile_contained(
        &self,
        name: &str,
        text: &[u8],
        Contained { indexes, straight }: Contained,
    ) -> mlua::Result<Compiled> {
        let outer = self.function(name, text)?;
        let contain = self.contain.as_ref().ok_or_else(|| mlua::Error::runtime("there is no sandbox"))?;
        let main = self.reference(contain.call((outer, indexes))?)?;
        Ok(Compiled::Contained { main, indexes, watched: !straight })
    }

    /// Compiles a script, wrapped like a module.
    pub(crate) fn compile(&self, name: &str, text: &[u8], modules: &Modules) -> mlua::Result<Compiled> {
        let outer = self.function(name, text)?;
        let script = self.lua.create_table()?;
        script.raw_set("outer", outer)?;
        script.raw_set("modules", &modules.0)?;
        script.raw_set("count", 0)?;
        script.raw_set("idle", false)?;
        Ok(Compiled::Any(self.reference(LuaValue::Table(script))?))
    }

    /// Lets a script go that nobody starts any more: the collector may have it, once the runs of it that wait have gone on to
    /// their ends.
    pub(crate) fn release(&self, script: Compiled) {
        let (Compiled::Any(reference) | Compiled::Contained { main: reference, .. }) = script;
        self.forget(reference);
        // SAFETY: as in `reference`, whose reference is given back once: `Compiled` is not used again. It does not fail.
        let _ = unsafe {
            self.lua.exec_raw::<()>((), |state| {
                ffi::luaL_unref(state, ffi::LUA_REGISTRYINDEX, reference);
            })
        };
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
        // SAFETY: made by `Box::leak` in `new`, freed only here. It is the active one only within `go`.
        drop(unsafe { Box::from_raw(self.slot.as_ptr()) });
    }
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
