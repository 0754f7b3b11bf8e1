//! Script texts: what is done to them before Lua sees them, and the errors found in them.

use std::ops::Range;

use dataplane::snapshot::Source;
use script_check::{body, bom_bytes};

/// How much an error matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// The configuration is refused.
    Error,
    /// Worth telling; the script runs.
    Warning,
}

/// Something wrong in a script, with its place.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{source_name}:{line}:{column}: {message}")]
pub struct ScriptError {
    /// How much it matters.
    pub severity: Severity,
    /// Name of the source, as in [`Source::name`].
    pub source_name: String,
    /// Line, counted from 1; 0 where the error has no place.
    pub line: usize,
    /// Column in bytes, counted from 1.
    pub column: usize,
    /// The offending bytes of [`Source::text`] as read.
    pub span: Range<usize>,
    /// What is wrong.
    pub message: String,
    /// What would be right, or nothing.
    pub help: Option<String>,
}

impl ScriptError {
    /// An error about the whole source.
    pub(crate) fn whole(source: &Source, message: String) -> Self {
        ScriptError {
            severity: Severity::Error,
            source_name: source.name.clone(),
            line: 0,
            column: 0,
            span: 0..0,
            message,
            help: None,
        }
    }

    /// An error about the bytes `span` of the text as read.
    pub(crate) fn at(source: &Source, span: Range<usize>, message: String) -> Self {
        let before = source.text.get(..span.start).unwrap_or(&[]);
        let line_start = before.iter().rposition(|b| *b == b'\n').map_or(0, |at| at + 1);
        let bom = if line_start == 0 { bom_bytes(&source.text).min(span.start) } else { 0 };
        ScriptError {
            line: before.iter().filter(|b| **b == b'\n').count() + 1,
            column: span.start - line_start - bom + 1,
            span,
            ..ScriptError::whole(source, message)
        }
    }

    /// An error about one line, without the blanks around it.
    pub(crate) fn on_line(source: &Source, line: usize, message: String) -> Self {
        let start = match line.checked_sub(2) {
            None => bom_bytes(&source.text),
            Some(breaks) => {
                let mut ends = source.text.iter().enumerate().filter(|(_, b)| **b == b'\n');
                ends.nth(breaks).map_or(source.text.len(), |(at, _)| at + 1)
            }
        };
        let rest = source.text.get(start..).unwrap_or(&[]);
        let text = rest.split(|b| *b == b'\n').next().unwrap_or(&[]);
        let indent = text.len() - text.trim_ascii_start().len();
        let length = text.trim_ascii().len();
        let indent = if length == 0 { 0 } else { indent };
        ScriptError::at(source, start + indent..start + indent + length, message)
    }

    pub(crate) fn with_help(self, help: String) -> Self {
        ScriptError { help: Some(help).filter(|h| !h.is_empty()), ..self }
    }
}

/// What stands for the dots in the names of the upvalues that hold functions of the API. It is in no contained script.
pub(crate) const DOT: char = '\u{e000}';

/// The text of a function that gives the main function of a contained script, all of whose runs share it: functions of the
/// API that it names at `spans` are upvalues, which are read in a third of the time of three lookups. Line numbers stay.
pub(crate) fn wrapped_contained(text: &[u8], spans: &[Range<usize>]) -> Vec<u8> {
    let text = body(text);
    let (mut names, mut script, mut copied) = (Vec::new(), Vec::new(), 0);
    for span in spans {
        let (Some(before), Some(name)) = (text.get(copied..span.start), text.get(span.clone())) else {
            continue;
        };
        // Not with blanks, comments or line ends in it.
        let plain = name.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_'));
        let Some(name) = std::str::from_utf8(name).ok().filter(|_| plain) else { continue };
        script.extend_from_slice(before);
        script.extend_from_slice(upvalue(name).as_bytes());
        copied = span.end;
        if !names.contains(&name) {
            names.push(name);
        }
    }
    script.extend_from_slice(text.get(copied..).unwrap_or(&[]));
    let upvalues: Vec<String> = names.iter().map(|name| upvalue(name)).collect();
    let upvalues = match names.is_empty() {
        true => String::new(),
        false => format!("local {} = {} ", upvalues.join(", "), names.join(", ")),
    };
    [upvalues.as_bytes(), b"return function() ", &script, b"\nend"].concat()
}

fn upvalue(name: &str) -> String {
    name.replace('.', DOT.encode_utf8(&mut [0; 4]))
}

/// The text of a function that gives the script's main function. A call makes a main function of its own for each
/// run, with the environment that the outer one has then. Line numbers stay.
pub(crate) fn wrapped(text: &[u8]) -> Vec<u8> {
    let mut wrapped = b"return function(...) ".to_vec();
    wrapped.extend_from_slice(body(text));
    wrapped.extend_from_slice(b"\nend");
    wrapped
}

/// The name of a chunk, from which Lua makes the place in its messages.
pub(crate) fn chunk_name(source: &Source) -> String {
    format!("@{}", source.name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn functions_of_the_api_become_upvalues_of_contained_scripts() {
        let script = b"\xef\xbb\xbfif avi.vs.port()=='avi.vs.ip' then\n  avi.pool.select(avi.vs.port())end avi .vs.ip()";
        let (_, spans) = script_check::contained_calls(script).unwrap();
        let wrapped = String::from_utf8(wrapped_contained(script, &spans)).unwrap().replace(DOT, "~");
        assert_eq!(
            wrapped,
            "local avi~vs~port, avi~pool~select = avi.vs.port, avi.pool.select \
             return function() if avi~vs~port()=='avi.vs.ip' then\n  \
             avi~pool~select(avi~vs~port())end avi .vs.ip()\nend"
        );
        assert_eq!(wrapped_contained(b"local x", &[]), b"return function() local x\nend");
    }
}
