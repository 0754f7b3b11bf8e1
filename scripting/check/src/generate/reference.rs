//! `docs/datascript-reference.md`.

use std::fmt::Write;

use super::ORIGIN;
use crate::api::{
    ABSENT, BASE, FUNCTIONS, Function, LIBRARIES, MODULES, Need, Parameter, Release, SPACES, STRING_EXTRAS,
    UNSUPPORTED,
};

const HEAD: &str = "\
Every call of the DataScript API and what is around it. [scripting.md](scripting.md) explains them with examples, \
[script-tools.md](script-tools.md) tells how to have scripts checked by these lists and shown in an editor.

Arguments in brackets may be left out. A call in an event in which it is not available raises an error that names both; \
so does an argument that is not allowed. Errors can be caught with `pcall`.
";

/// The whole page.
pub(super) fn text() -> String {
    let mut page = format!("<!-- {ORIGIN} -->\n\n# DataScript reference\n\n{HEAD}\n## Calls\n\n");
    overview(&mut page);
    for space in SPACES {
        let _ = write!(page, "\n## {space}\n");
        let of_space = |f: &&&Function| f.name.rsplit_once('.').is_some_and(|(s, _)| s == *space);
        for function in FUNCTIONS.iter().filter(of_space) {
            describe(&mut page, function);
        }
    }
    page.push_str(VARIABLES);
    not_supported(&mut page);
    modules(&mut page);
    lua(&mut page);
    page
}

fn overview(page: &mut String) {
    page.push_str("| call | available in | since |\n|---|---|---|\n");
    for function in FUNCTIONS {
        for form in function.forms {
            let signature = function.signature(form);
            let _ =
                writeln!(page, "| `{signature}` | {} | {} |", function.events.text(), since(function.since));
        }
    }
}

fn since(release: Release) -> &'static str {
    match release {
        Release::Seed => "18.2",
        Release::Later => "later",
    }
}

fn describe(page: &mut String, function: &Function) {
    let short = function.name;
    let _ = write!(page, "\n### {short}\n\n```text\n");
    for form in function.forms {
        let _ = writeln!(page, "{}", function.signature(form));
    }
    let _ = write!(page, "```\n\nAvailable in: {}. {}\n", function.events.text(), function.text);
    let longest = function.forms.last().copied().unwrap_or_default();
    let parameters: Vec<&Parameter> = longest.iter().chain(&function.rest).collect();
    if !parameters.is_empty() {
        page.push_str("\n| argument | must be | is |\n|---|---|---|\n");
    }
    for parameter in parameters {
        let need = if parameter.need == Need::Optional { "; may be left out" } else { "" };
        let allowed = parameter.meaning.allowed();
        let _ = writeln!(page, "| `{}` | {allowed}{need} | {} |", parameter.name, parameter.text);
    }
    returns(page, function);
    if !function.errors.is_empty() {
        let _ = write!(page, "\nErrors: {}\n", function.errors);
    }
}

fn returns(page: &mut String, function: &Function) {
    if function.results.is_empty() {
        page.push_str("\nReturns nothing.\n");
        return;
    }
    page.push_str("\n| returns | type | is |\n|---|---|---|\n");
    for result in function.results {
        let kind = result.luals.replace('|', " or ").replace('?', " or nil");
        let _ = writeln!(page, "| `{}` | {kind} | {} |", result.name, result.text);
    }
}

const VARIABLES: &str = "
### avi.vs.reqvar

`avi.vs.reqvar.NAME` holds a string, number or boolean of the script's own from the request script to the response script
of the same flow; nil forgets it. Available in: request, response. Errors: a table or function; more than 16384 bytes per
flow.

## avi.SIG_ENABLE

The last argument of `avi.vs.log` for a record that is to be marked as significant.
";

fn not_supported(page: &mut String) {
    let names: Vec<String> = UNSUPPORTED.iter().map(|name| format!("`{name}`")).collect();
    let _ = write!(
        page,
        "\n## Not supported\n\n{}, everything in `avi.ssl` and `avi.ftp`, and what has `ftp` in its name: these exist in \
         later releases of the original. A call raises \"not supported\".\n",
        names.join(", ")
    );
}

fn modules(page: &mut String) {
    page.push_str("\n## Parser modules\n\nFor `require`, where they are attached to the set. None of them raises an error.\n");
    for module in MODULES {
        let _ = write!(page, "\n### {}\n\n{}\n", module.name, module.text);
        if module.reads_again {
            page.push_str(
                "Its functions look into the buffer themselves where the string that they get is shorter than the \
                 message it begins.\n",
            );
        }
        page.push_str("\n| function | returns | does |\n|---|---|---|\n");
        for function in module.functions {
            let results: Vec<String> =
                function.results.iter().map(|r| format!("{}: {}", r.name, r.text)).collect();
            for form in function.forms {
                let signature = function.signature(form);
                let _ = writeln!(page, "| `{signature}` | {} | {} |", results.join("; "), function.text);
            }
        }
    }
}

fn lua(page: &mut String) {
    let _ = write!(page, "\n## Lua\n\nLuaJIT: Lua 5.1 with `goto`.\n\n| library | has |\n|---|---|\n");
    let base: Vec<&str> = BASE.to_vec();
    let _ = writeln!(page, "| base | `{}` |", base.join(" "));
    for library in LIBRARIES {
        let _ = writeln!(page, "| `{}` | `{}` |", library.name, library.members.join(" "));
    }
    page.push_str("\nOf `string` these are weir's own:\n\n| function | does |\n|---|---|\n");
    for (name, text) in STRING_EXTRAS {
        let _ = writeln!(page, "| `string.{name}(s, t)` | {text} |");
    }
    page.push_str("\nNot there:\n\n| name | instead |\n|---|---|\n");
    for absent in ABSENT {
        let _ = writeln!(page, "| `{}` | {} |", absent.name, absent.cure);
    }
}
