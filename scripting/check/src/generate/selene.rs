//! The standard library file for selene, a linter for Lua.

use std::fmt::Write;

use super::ORIGIN;
use crate::api::{ABSENT, FUNCTIONS, Function, LIBRARIES, Need, Parameter, STRING_EXTRAS, VARIABLES};

/// Members of Lua 5.1's libraries that a script does not have; selene removes nothing with its parent.
const REMOVED: &[(&str, &str)] = &[
    ("coroutine", "create resume running status wrap yield"),
    (
        "debug",
        "debug getfenv gethook getinfo getlocal getmetatable getregistry getupvalue setfenv sethook setlocal \
               setmetatable setupvalue traceback",
    ),
    ("io", "close flush input lines open output popen read stderr stdin stdout tmpfile type write"),
    ("os", "difftime execute exit getenv remove rename setlocale tmpname"),
    ("package", "cpath loaded loaders loadlib path preload seeall"),
    ("string", "dump"),
];

/// `datascript.yml`.
pub(super) fn text() -> String {
    let mut text = format!("# {ORIGIN}\n---\nbase: lua51\nname: datascript\nglobals:\n");
    for function in FUNCTIONS {
        let _ = writeln!(text, "  {}:", function.name);
        arguments(&mut text, function);
        if is_question(function) {
            text.push_str("    must_use: true\n");
        }
    }
    let _ = write!(
        text,
        "  {VARIABLES}.*:\n    property: full-write\n  avi.SIG_ENABLE:\n    property: read-only\n"
    );
    for (name, _) in STRING_EXTRAS {
        let _ = write!(
            text,
            "  string.{name}:\n    args:\n      - type: string\n      - type: string\n    must_use: true\n"
        );
    }
    // What LuaJIT has beyond Lua 5.1.
    for member in LIBRARIES.iter().filter(|library| library.name == "bit").flat_map(|library| library.members)
    {
        let _ = write!(text, "  bit.{member}:\n    args:\n      - type: \"...\"\n    must_use: true\n");
    }
    let removed = ABSENT.iter().map(|absent| absent.name.to_owned());
    let members = REMOVED
        .iter()
        .flat_map(|(space, names)| names.split_whitespace().map(move |name| format!("{space}.{name}")));
    for name in removed.chain(members) {
        let _ = write!(text, "  {name}:\n    removed: true\n");
    }
    text
}

/// A call whose only use is its result.
fn is_question(function: &Function) -> bool {
    let acts = function.name.ends_with(".collect") || function.name.contains(".table_");
    !function.results.is_empty() && !acts
}

/// One list of arguments: where there are two forms, the longer one, of which the last ones may be left out.
fn arguments(text: &mut String, function: &Function) {
    let (Some(longest), Some(shortest)) = (function.forms.last(), function.forms.first()) else { return };
    if longest.is_empty() && function.rest.is_none() {
        text.push_str("    args: []\n");
        return;
    }
    text.push_str("    args:\n");
    let needed = shortest.iter().filter(|parameter| parameter.need != Need::Optional).count();
    for (index, parameter) in longest.iter().enumerate() {
        let also = if function.forms.len() > 1 {
            shortest.get(index).map(selene_type)
        } else {
            Some(selene_type(parameter))
        };
        let own = selene_type(parameter);
        let shown = if also.as_ref() == Some(&own) { own } else { "any".to_owned() };
        let _ = writeln!(text, "      - type: {shown}");
        if index >= needed {
            text.push_str("        required: false\n");
        }
    }
    if function.rest.is_some() {
        text.push_str("      - type: \"...\"\n        required: false\n");
    }
}

/// The documented type; weir itself takes more, such as the text of a number.
fn selene_type(parameter: &Parameter) -> String {
    match parameter.meaning.luals() {
        "integer" => "number".to_owned(),
        "string" => "string".to_owned(),
        "boolean" => "bool".to_owned(),
        "\"client\"|\"server\"" => "[client, server]".to_owned(),
        _ => "any".to_owned(),
    }
}

/// The settings of a directory of scripts.
pub(super) fn settings() -> String {
    format!("# {ORIGIN}\nstd = \"datascript\"\n")
}
