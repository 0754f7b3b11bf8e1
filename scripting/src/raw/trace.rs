//! Notes what a run does, for a flow whose record has a [`ScriptTrace`].

use std::ffi::{CStr, c_int};

use dataplane::script_trace::{Detail, Place, ScriptStep, ScriptTrace, TraceValue};
use mlua::ffi::{self, lua_Debug, lua_State};

use super::{Arguments, SANDBOX, Slot};
use crate::call::{Answer, Argument, Refusal, Reply, Value};

/// Frames between a function of the API and the script that are looked at: the sandbox's own, `pcall`.
const LEVELS: c_int = 8;

/// True for the functions that traces show: those of the API, not those of the libraries.
pub(super) const fn is_api(name: &str) -> bool {
    matches!(name.as_bytes(), [b'a', b'v', b'i', b'.', ..])
}

/// The trace of the flow whose script runs.
///
/// # Safety
/// `slot` must be valid and not borrowed; nothing else may hold the context or the record mutably meanwhile.
unsafe fn trace<'a>(slot: *mut Slot) -> Option<&'a mut ScriptTrace> {
    // SAFETY: the pointer is null or set by `Machine::go` for the time of the run.
    unsafe { (*slot).context.as_mut() }.and_then(|context| context.record.trace.as_deref_mut())
}

/// How much the flow's trace is to note; `None`: it has none.
///
/// # Safety
/// As for [`trace`].
pub(super) unsafe fn detail(slot: *mut Slot) -> Option<Detail> {
    // SAFETY: the caller's.
    unsafe { trace(slot) }.map(|trace| trace.detail())
}

/// Adds the instructions of a part of a run.
///
/// # Safety
/// As for [`trace`].
pub(super) unsafe fn count(slot: *mut Slot) {
    // SAFETY: the caller's.
    unsafe {
        let instructions = std::mem::take(&mut (*slot).instructions);
        if let Some(trace) = trace(slot) {
            trace.count(instructions);
        }
    }
}

/// Notes a call and what came of it.
///
/// # Safety
/// As for [`trace`], in a function that Lua runs. What `answer` borrows may be the slot's scratch, payload or
/// variables: memory of its own each, to which neither slot nor context is a path here. Raises nothing.
pub(super) unsafe fn note_call(
    function: &'static str,
    arguments: Arguments<'_>,
    answer: &Answer<'_>,
    slot: *mut Slot,
) {
    // SAFETY: the caller's.
    unsafe {
        let Some(trace) = trace(slot) else { return };
        let place = caller(trace, arguments.state);
        // The first argument of a variable is `avi.vs.reqvar` itself.
        let first = if function.starts_with("avi.vs.reqvar") { 2 } else { 1 };
        let arguments = (first..=arguments.count()).map(|position| argument(arguments.at(position)));
        let (arguments, results) = (arguments.collect(), results(answer));
        trace.push(ScriptStep::Call { place, function, arguments, results });
    }
}

/// Where the innermost function of a script is.
///
/// # Safety
/// `state` must be running a C function.
unsafe fn caller(trace: &mut ScriptTrace, state: *mut lua_State) -> Option<Place> {
    // SAFETY: `ar` is filled by `lua_getstack` and read only when that succeeds.
    (1..LEVELS).find_map(|level| unsafe {
        let mut ar: lua_Debug = std::mem::zeroed();
        if ffi::lua_getstack(state, level, &raw mut ar) == 0 {
            return None;
        }
        ffi::lua_getinfo(state, c"Sl".as_ptr(), &raw mut ar);
        place(trace, &ar)
    })
}

fn argument(argument: Argument<'_>) -> TraceValue {
    match argument {
        Argument::Missing | Argument::Nil => TraceValue::Nil,
        Argument::Boolean(value) => TraceValue::Boolean(value),
        Argument::Number(value) => TraceValue::Number(value),
        Argument::String(bytes) => TraceValue::bytes(bytes),
        Argument::Significant => TraceValue::Other("avi.SIG_ENABLE"),
        Argument::Other(kind) => TraceValue::Other(kind),
    }
}

fn results(answer: &Answer<'_>) -> Result<Vec<TraceValue>, String> {
    match answer {
        Ok(Reply::One(value)) => Ok(vec![result(*value)]),
        Ok(Reply::Two(first, second)) => Ok(vec![result(*first), result(*second)]),
        Ok(Reply::Nothing | Reply::Watch | Reply::LookOften | Reply::Wait | Reply::Match { .. }) => {
            Ok(Vec::new())
        }
        Err(Refusal::Text(text)) => Err(text.clone()),
        Err(Refusal::Overrun) => Err("the time budget of the run is over".to_owned()),
    }
}

fn result(value: Value<'_>) -> TraceValue {
    match value {
        Value::Nil => TraceValue::Nil,
        Value::Boolean(value) => TraceValue::Boolean(value),
        Value::Number(value) => TraceValue::Number(value),
        Value::Bytes(bytes) => TraceValue::bytes(bytes),
    }
}

/// Where a frame is; `None` in the sandbox's own code, in the function that makes a script's main function, and on the line
/// that ends the latter behind the text.
///
/// # Safety
/// `ar` must have been filled by `lua_getinfo` with "Sl", for a function that is still alive.
unsafe fn place(trace: &mut ScriptTrace, ar: &lua_Debug) -> Option<Place> {
    // SAFETY: `lua_getinfo` gives NUL-terminated strings.
    let (source, what) = unsafe { (CStr::from_ptr(ar.source), CStr::from_ptr(ar.what)) };
    let line = u32::try_from(ar.currentline).ok().filter(|line| *line > 0)?;
    let added = ar.linedefined == 1 && ar.currentline > 1 && ar.currentline == ar.lastlinedefined;
    if source == SANDBOX || what == c"main" || added {
        return None;
    }
    let name = source.to_string_lossy();
    Some(trace.place(name.strip_prefix('@').unwrap_or(&name), line))
}

/// Takes in an event of the hook while lines are noted. True if nothing else is to be done about it: the clock is looked
/// at after as many instructions as without.
///
/// # Safety
/// As for [`trace`], in a hook, with what Lua gave it. Raises nothing.
pub(super) unsafe fn on_hook(state: *mut lua_State, ar: *mut lua_Debug, slot: *mut Slot) -> bool {
    // SAFETY: the caller's; what `lua_getinfo` gives lives as long as the function that is interrupted.
    unsafe {
        if (*ar).event == ffi::LUA_HOOKLINE {
            ffi::lua_getinfo(state, c"Sl".as_ptr(), ar);
            if let Some(trace) = trace(slot)
                && let Some(place) = place(trace, &*ar)
            {
                trace.push(ScriptStep::Line(place));
            }
            return true;
        }
        (*slot).instructions += 1;
        let interval = u64::try_from((*slot).interval).unwrap_or(1).max(1);
        !(*slot).instructions.is_multiple_of(interval)
    }
}
