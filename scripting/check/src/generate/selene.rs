//! The standard library file for selene, a linter for Lua.

use std::fmt::Write;

use super::ORIGIN;
use crate::api::{ABSENT, FUNCTIONS, Function, Need, Parameter, STRING_EXTRAS, VARIABLES};

/// `datascript.yml`.
pub(super) fn text() -> String {
    let mut text = format!("# {ORIGIN}\n---\nbase: luajit\nname: datascript\nglobals:\n");
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
    for absent in ABSENT {
        let _ = write!(text, "  {}:\n    removed: true\n", absent.name);
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
