//! From Lua values to the types of the API. The text of every error names the argument by its position.

use std::borrow::Cow;

use crate::call::{Argument, Refusal, count};
use crate::number;
use crate::raw::Arguments;

fn wrong(position: usize, wanted: &str, found: Argument<'_>) -> Refusal {
    Refusal::Text(format!("bad argument #{position} ({wanted} expected, got {})", kind(found)))
}

/// The name of an argument's type.
pub(crate) fn kind(argument: Argument<'_>) -> &'static str {
    match argument {
        Argument::Missing => "no value",
        Argument::Nil => "nil",
        Argument::Boolean(_) => "boolean",
        Argument::Number(_) => "number",
        Argument::String(_) => "string",
        Argument::Significant => "avi.SIG_ENABLE",
        Argument::Other(name) => name,
    }
}

/// A string, or the text of a number, which is put into `buffer`.
pub(crate) fn byte_text<'t>(
    arguments: Arguments<'t>,
    position: usize,
    buffer: &'t mut Vec<u8>,
) -> Result<&'t [u8], Refusal> {
    match arguments.at(position) {
        Argument::String(text) => Ok(text),
        Argument::Number(n) => {
            number::write(n, buffer);
            Ok(buffer)
        }
        other => Err(wrong(position, "string", other)),
    }
}

/// A whole number, or a string that spells one; a fraction is cut off.
#[allow(clippy::cast_possible_truncation)]
pub(crate) fn integer(arguments: Arguments<'_>, position: usize) -> Result<i64, Refusal> {
    match arguments.number_at(position) {
        // `as` saturates, which is what a position or a count wants; NaN becomes 0.
        Some(n) => Ok(n as i64),
        None => Err(wrong(position, "number", arguments.at(position))),
    }
}

/// A number of bytes; `None` where the argument is missing or nil. A fraction is rounded up.
pub(crate) fn byte_count(arguments: Arguments<'_>, position: usize) -> Result<Option<usize>, Refusal> {
    let n = match arguments.at(position) {
        Argument::Missing | Argument::Nil => return Ok(None),
        Argument::Number(n) => n,
        other => arguments.number_at(position).ok_or_else(|| wrong(position, "number", other))?,
    };
    // Most are whole. A negative one becomes 0 here.
    let whole = integer_of(n);
    if count(whole) == n {
        return Ok(Some(whole.min(u32::MAX as usize)));
    }
    if n.is_nan() || n < 0.0 {
        return Err(Refusal::Text(format!("bad argument #{position} (must not be {})", number::text(n))));
    }
    let whole = n.ceil().min(f64::from(u32::MAX));
    Ok(Some(integer_of(whole)))
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
fn integer_of(n: f64) -> usize {
    n as usize
}

/// True for nil and for what was not given.
pub(crate) fn absent(argument: Argument<'_>) -> bool {
    matches!(argument, Argument::Missing | Argument::Nil)
}

/// A key, value or table name as stored: strings as they are, numbers and booleans as their text, nil as `None`.
pub(crate) fn stored(arguments: Arguments<'_>, position: usize) -> Result<Option<Cow<'_, [u8]>>, Refusal> {
    match arguments.at(position) {
        Argument::Missing | Argument::Nil => Ok(None),
        Argument::String(text) => Ok(Some(Cow::Borrowed(text))),
        Argument::Number(n) => Ok(Some(Cow::Owned(number::text(n).into_bytes()))),
        Argument::Boolean(b) => Ok(Some(Cow::Borrowed(if b { b"true" } else { b"false" }))),
        other => Err(wrong(position, "string, number or boolean", other)),
    }
}

/// A lifetime in seconds: a number, not the text of one. `None` where it is missing or nil.
pub(crate) fn lifetime(arguments: Arguments<'_>, position: usize) -> Result<Option<f64>, Refusal> {
    match arguments.at(position) {
        Argument::Missing | Argument::Nil => Ok(None),
        Argument::Number(n) => Ok(Some(n)),
        other => Err(wrong(position, "number", other)),
    }
}

/// The name of something in the configuration.
pub(crate) fn name(arguments: Arguments<'_>, position: usize) -> Result<Cow<'_, str>, Refusal> {
    match arguments.at(position) {
        // Names are short, and what finds where a text is not UTF-8 takes its time to begin.
        Argument::String(text) => {
            Ok(std::str::from_utf8(text).map_or_else(|_| String::from_utf8_lossy(text), Cow::Borrowed))
        }
        Argument::Number(n) => Ok(Cow::Owned(number::text(n))),
        other => Err(wrong(position, "string", other)),
    }
}

/// A name that may be left out.
pub(crate) fn optional_name(
    arguments: Arguments<'_>,
    position: usize,
) -> Result<Option<Cow<'_, str>>, Refusal> {
    if absent(arguments.at(position)) { Ok(None) } else { name(arguments, position).map(Some) }
}

/// A port, as a number or as a string of digits; `None` where it is missing or nil.
pub(crate) fn port(arguments: Arguments<'_>, position: usize) -> Result<Option<u16>, Refusal> {
    let text = match arguments.at(position) {
        Argument::Missing | Argument::Nil => return Ok(None),
        Argument::Number(n) => number::text(n),
        Argument::String(text) if text.iter().all(u8::is_ascii_digit) => {
            String::from_utf8_lossy(text).into_owned()
        }
        other => return Err(wrong(position, "port number", other)),
    };
    match text.parse() {
        Ok(port) => Ok(Some(port)),
        Err(_) => Err(Refusal::Text(format!("bad argument #{position} ('{text}' is no port, 0 to 65535)"))),
    }
}
