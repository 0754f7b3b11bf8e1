//! Syntax errors: their place within the line, and what to write instead.

use crate::finding::{Finding, Rule, Severity};
use crate::source::{as_text, bom_bytes};

/// What other languages write, and how Lua does.
const FOREIGN: &[(&str, &str)] = &[
    ("!=", "Lua writes \"not equal\" as ~="),
    ("&&", "Lua writes && as `and`"),
    ("||", "Lua writes || as `or`"),
    ("+=", "Lua has no +=: write x = x + 1"),
    ("-=", "Lua has no -=: write x = x - 1"),
    ("++", "Lua has no ++: write x = x + 1"),
    ("===", "Lua compares with =="),
    ("//", "a comment begins with --"),
    ("/*", "a comment begins with --, one of several lines is --[[ ... ]]"),
    ("else if", "write elseif, or give the inner `if` an `end` of its own"),
    ("functoin", "did you mean function?"),
    ("fucntion", "did you mean function?"),
    ("elif", "Lua writes elseif"),
    ("elsif", "Lua writes elseif"),
    (
        "continue",
        "Lua has no continue: write `goto continue` and the label ::continue:: at the end of the loop",
    ),
    ("null", "Lua writes nil"),
];

/// A syntax error of a line, as LuaJIT words it.
#[must_use]
pub fn syntax_error(text: &[u8], line: usize, message: &str) -> Finding {
    let start = line_start(text, line);
    let rest = text.get(start..).unwrap_or_default();
    let bytes = rest.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let shown = as_text(bytes);
    let near =
        message.rsplit_once("near '").and_then(|(_, near)| near.strip_suffix('\'')).unwrap_or_default();
    let indent = shown.len() - shown.trim_start().len();
    let length = shown.trim().len();
    let whole = if length == 0 { 0..0 } else { indent..indent + length };
    let mut places = shown.match_indices(near).filter(|_| !near.is_empty());
    let inside = match (places.next(), places.next()) {
        (Some((at, found)), None) => at..at + found.len(),
        _ => whole,
    };
    Finding {
        severity: Severity::Error,
        rule: Rule::Syntax,
        span: start + inside.start..start + inside.end,
        message: message.to_owned(),
        cure: cure(message, &shown),
        literal: true,
    }
}

fn line_start(text: &[u8], line: usize) -> usize {
    match line.checked_sub(2) {
        None => bom_bytes(text),
        Some(breaks) => {
            let mut ends = text.iter().enumerate().filter(|(_, byte)| **byte == b'\n');
            ends.nth(breaks).map_or(text.len(), |(at, _)| at + 1)
        }
    }
}

/// What to write instead.
pub(crate) fn cure(message: &str, line: &str) -> String {
    if let Some((_, cure)) = FOREIGN.iter().find(|(foreign, _)| line.contains(foreign)) {
        return (*cure).to_owned();
    }
    if let Some((what, rest)) = message.split_once(" expected (to close ") {
        let opened = rest.split(')').next().unwrap_or_default();
        return format!("write {what} where {opened} is to end");
    }
    if message.contains("unfinished string") {
        return "end the string with the quote that it begins with, on the same line".to_owned();
    }
    if message.contains("'=' expected") {
        return "a statement is an assignment or a call: is a word misspelt, or are () or = missing?"
            .to_owned();
    }
    if message.contains("'<eof>' expected near 'end'") {
        return "there is one `end` too many".to_owned();
    }
    if message.contains("no loop to break") {
        return "`break` leaves a loop; to end the run write `return`".to_owned();
    }
    "the mistake is here or just before".to_owned()
}
