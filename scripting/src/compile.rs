//! What LuaJIT itself says about a text.

use dataplane::snapshot::Source;

use crate::raw::Machine;
use crate::source::{ScriptError, body, chunk_name};

/// The syntax error of a text, if there is one.
pub(crate) fn compile_error(machine: &Machine, source: &Source) -> Option<ScriptError> {
    if body(&source.text).first() == Some(&0x1b) {
        return Some(ScriptError::whole(source, "compiled Lua is not accepted: give the text".to_owned()));
    }
    let error = machine.try_compile(&chunk_name(source), body(&source.text)).err()?;
    let text = match error {
        mlua::Error::SyntaxError { message, .. } => message,
        other => other.to_string(),
    };
    let Some((line, message)) = place_and_message(&text) else {
        return Some(ScriptError::whole(source, text));
    };
    Some(ScriptError::on_line(source, line, message.to_owned()))
}

/// Takes `name:line: message` apart.
fn place_and_message(text: &str) -> Option<(usize, &str)> {
    text.match_indices(": ").find_map(|(at, _)| {
        let (before, after) = text.split_at(at);
        let (_, line) = before.rsplit_once(':')?;
        Some((line.parse().ok()?, after.strip_prefix(": ")?))
    })
}
