//! Definition files for LuaLS, the language server of many editors.

use std::fmt::Write;

use super::ORIGIN;
use crate::api::{ABSENT, FUNCTIONS, Function, Module, Need, Parameter, SIGNIFICANT, SPACES, STRING_EXTRAS};

/// `avi` and what is in it.
pub(super) fn avi() -> String {
    let mut text =
        format!("---@meta _\n-- {ORIGIN}\n\n---The DataScript API of weir.\n---@class avi\navi = {{}}\n\n");
    text.push_str(
        "---@class avi.SIG_ENABLE\n---The last argument of `avi.vs.log` for a significant record.\n",
    );
    let _ = write!(text, "---@type avi.SIG_ENABLE\n{SIGNIFICANT} = nil\n\n");
    for space in SPACES {
        let _ = writeln!(text, "---@class {space}\n{space} = {{}}");
    }
    text.push_str("\n---Values of the script's own, from the request to the response of a flow.\n");
    text.push_str("---@type { [string]: string|number|boolean|nil }\navi.vs.reqvar = {}\n");
    for function in FUNCTIONS {
        text.push('\n');
        define(&mut text, function, "");
    }
    text
}

/// One function: its text, arguments and results as annotations, then a definition without a body.
fn define(text: &mut String, function: &Function, prefix: &str) {
    let _ = writeln!(text, "---{}", function.text);
    let _ = writeln!(text, "---\n---Available in: {}.", function.events.text());
    if !function.errors.is_empty() {
        let _ = writeln!(text, "---\n---Errors: {}", function.errors);
    }
    let (first, others) = function.forms.split_first().unwrap_or((&(&[] as &[Parameter]), &[]));
    for form in others {
        let _ = writeln!(text, "---@overload fun({}){}", parameters(form), results(function));
    }
    for parameter in *first {
        let optional = optional(parameter);
        let _ = writeln!(
            text,
            "---@param {}{optional} {} {}",
            parameter.name,
            parameter.meaning.luals(),
            parameter.text
        );
    }
    if let Some(rest) = &function.rest {
        let _ = writeln!(text, "---@param ... {} {}", rest.meaning.luals(), rest.text);
    }
    for result in function.results {
        let _ = writeln!(text, "---@return {} {} {}", result.luals, result.name, result.text);
    }
    let mut names: Vec<&str> = first.iter().map(|parameter| parameter.name).collect();
    names.extend(function.rest.map(|_| "..."));
    let _ = writeln!(text, "function {prefix}{}({}) end", function.name, names.join(", "));
}

fn optional(parameter: &Parameter) -> &'static str {
    if parameter.need == Need::Optional { "?" } else { "" }
}

fn parameters(form: &[Parameter]) -> String {
    let one = |p: &Parameter| format!("{}{}: {}", p.name, optional(p), p.meaning.luals());
    form.iter().map(one).collect::<Vec<_>>().join(", ")
}

fn results(function: &Function) -> String {
    let names: Vec<&str> = function.results.iter().map(|result| result.luals).collect();
    if names.is_empty() { String::new() } else { format!(": {}", names.join(", ")) }
}

/// What `string` has beyond Lua's own.
pub(super) fn string() -> String {
    let mut text = format!("---@meta _\n-- {ORIGIN}\n");
    for (name, what) in STRING_EXTRAS {
        let _ = write!(
            text,
            "\n---{what}\n---@param s string\n---@param t string\n---@return boolean\nfunction string.{name}(s, t) end\n"
        );
    }
    text
}

/// What `require` of a parser module gives.
pub(super) fn module(module: &Module) -> String {
    let mut text = format!("---@meta {}\n-- {ORIGIN}\n\n---{}\nlocal M = {{}}\n", module.name, module.text);
    for function in module.functions {
        text.push('\n');
        define(&mut text, function, "M.");
    }
    text.push_str("\nreturn M\n");
    text
}

/// Settings for a directory of scripts; `workspace.library` is to be where these files are.
pub(super) fn settings() -> String {
    let libraries = ["io", "debug", "ffi", "jit", "package", "coroutine"];
    let shown: Vec<&str> = ABSENT.iter().map(|a| a.name).filter(|name| libraries.contains(name)).collect();
    let disabled: Vec<String> = shown.iter().map(|name| format!("    \"{name}\": \"disable\"")).collect();
    format!(
        "{{\n  \"runtime.version\": \"LuaJIT\",\n  \"workspace.library\": [\"/path/to/weir/scripting/editor/luals\"],\n  \"runtime.builtin\": {{\n{}\n  }}\n}}\n",
        disabled.join(",\n")
    )
}
