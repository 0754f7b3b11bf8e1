//! What LuaJIT itself says about a text.

use dataplane::snapshot::Source;
use script_check::{Finding, body};

use crate::raw::Machine;
use crate::source::{ScriptError, chunk_name};

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

/// A syntax error as a finding, with what to write instead.
pub(crate) fn syntax_finding(source: &Source, error: &ScriptError) -> Finding {
    let mut finding = script_check::syntax_error(&source.text, error.line.max(1), &error.message);
    if error.line == 0 {
        finding.span = 0..0;
        finding.cure = "give the text of a Lua script".to_owned();
    }
    finding
}

/// Takes `name:line: message` apart.
fn place_and_message(text: &str) -> Option<(usize, &str)> {
    text.match_indices(": ").find_map(|(at, _)| {
        let (before, after) = text.split_at(at);
        let (_, line) = before.rsplit_once(':')?;
        Some((line.parse().ok()?, after.strip_prefix(": ")?))
    })
}
