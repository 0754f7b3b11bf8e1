//! What a coroutine died of, as text.

use std::ffi::{CStr, c_int};

use mlua::ffi::{self, lua_State};

use super::{SANDBOX, type_name};
use crate::source::DOT;

/// Frames that a traceback shows.
const TRACEBACK_FRAMES: c_int = 16;

/// The error value of a dead coroutine and the frames it died in, without allocating in Lua.
///
/// # Safety
/// `thread` must be a coroutine whose resume has failed.
pub(super) unsafe fn describe(thread: *mut lua_State) -> String {
    // SAFETY: the error value is on top of the stack; `lua_tolstring` is used on strings only.
    let mut text = unsafe {
        match ffi::lua_type(thread, -1) {
            ffi::LUA_TSTRING => {
                let mut len = 0;
                let bytes = ffi::lua_tolstring(thread, -1, &raw mut len);
                String::from_utf8_lossy(std::slice::from_raw_parts(bytes.cast(), len.min(2048))).into_owned()
            }
            ffi::LUA_TNUMBER => crate::number::text(ffi::lua_tonumber(thread, -1)),
            ffi::LUA_TNIL => "error with a nil value".to_owned(),
            ffi::LUA_TBOOLEAN => "error with a boolean value".to_owned(),
            other => format!("error with a {} value", type_name(other)),
        }
    };
    text = with_fields(text);
    let message = text.clone();
    text.push_str("\nstack traceback:");
    for level in 0..TRACEBACK_FRAMES {
        // SAFETY: `ar` is filled by `lua_getstack` and read only when that succeeds.
        let frame = unsafe {
            let mut ar: ffi::lua_Debug = std::mem::zeroed();
            if ffi::lua_getstack(thread, level, &raw mut ar) == 0 {
                break;
            }
            ffi::lua_getinfo(thread, c"nSl".as_ptr(), &raw mut ar);
            frame(&ar, &message)
        };
        text.push_str(&frame.unwrap_or_default());
    }
    text
}

/// A message in the words of the script: a function of the API is a field for it, where `wrapped_contained` makes it an
/// upvalue.
fn with_fields(message: String) -> String {
    const UPVALUE: &str = "upvalue '";
    if !message.contains(DOT) {
        return message;
    }
    let mut parts = message.split(UPVALUE);
    let mut plain = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let name = part.split('\'').next().unwrap_or_default();
        let kept = name.rfind(DOT).and_then(|dot| part.get(dot + DOT.len_utf8()..));
        plain.push_str(if kept.is_some() { "field '" } else { UPVALUE });
        plain.push_str(kept.unwrap_or(part));
    }
    plain
}

/// One line of a traceback; `None` for the sandbox's own code. The line of the function that failed is in the message.
///
/// # Safety
/// `ar` must have been filled by `lua_getinfo` with "nSl", for a function that is still alive.
unsafe fn frame(ar: &ffi::lua_Debug, message: &str) -> Option<String> {
    // SAFETY: `lua_getinfo` gives NUL-terminated strings; the name may be missing.
    let (source, short, name) = unsafe {
        let name = (!ar.name.is_null()).then(|| CStr::from_ptr(ar.name));
        (CStr::from_ptr(ar.source), CStr::from_ptr(ar.short_src.as_ptr()), name)
    };
    if source == SANDBOX {
        return None;
    }
    let mut place = short.to_string_lossy().into_owned();
    let failed_at =
        || message.strip_prefix(place.as_str())?.strip_prefix(':')?.split(':').next()?.parse().ok();
    match ar.currentline {
        line if line > 0 => place.push_str(&format!(":{line}")),
        _ => {
            if let Some(line) = failed_at() {
                let line: u32 = line;
                place.push_str(&format!(":{line}"));
            }
        }
    }
    let function = match name {
        Some(name) => {
            // A function of the API, as an upvalue; else it would be known by its last name, too.
            let name = name.to_string_lossy();
            format!("in function '{}'", name.rsplit(DOT).next().unwrap_or(&name))
        }
        None if ar.linedefined <= 1 => "in main chunk".to_owned(),
        None => format!("in function <line {}>", ar.linedefined),
    };
    Some(format!("\n    {place}: {function}"))
}
