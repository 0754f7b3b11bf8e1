//! The description of the API against the functions themselves: each is called with each kind of argument.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "test")]

mod world;

use dataplane::policy::Event;
use script_check::api::{
    self, ABSENT, BASE, FUNCTIONS, Function, Kind, LIBRARIES, MODULES, Meaning, Need, Parameter,
};
use world::{World, set, snapshot, source};

const PAYLOAD: &[u8] = b"0123456789";

/// The error of a call, or nothing.
fn error_of(call: &str, event: Event) -> String {
    let script = format!("local ok, e = pcall(function() {call} end) avi.vs.log(ok and '' or tostring(e))");
    let mut both = set("");
    both.request = Some(source("f", &script));
    both.response = Some(source("f", &script));
    let mut world = World::of(snapshot(vec![both])).with(PAYLOAD);
    world.server = PAYLOAD.to_vec();
    world.event = event;
    world.logged()
}

const KINDS: [(Kind, &str); 8] = [
    (Kind::Nil, "nil"),
    (Kind::Boolean, "true"),
    (Kind::Number, "4"),
    (Kind::String, "'7'"),
    (Kind::Significant, "avi.SIG_ENABLE"),
    (Kind::Table, "{}"),
    (Kind::Function, "print"),
    (Kind::Userdata, "avi.vs"),
];

/// A literal that is right for an argument.
fn right(meaning: Meaning) -> &'static str {
    match meaning {
        Meaning::Bytes => "4",
        Meaning::Offset => "0",
        Meaning::Side => "'client'",
        Meaning::Loggable | Meaning::Key | Meaning::Stored | Meaning::Payload => "'x'",
        Meaning::Flag => "true",
        Meaning::Table => "'t'",
        Meaning::Lifetime | Meaning::Extension | Meaning::Renewal => "300",
        Meaning::Pool => "'main'",
        Meaning::Group => "'group'",
        Meaning::Server => "'10.0.0.1'",
        Meaning::Port => "80",
        Meaning::Handle => "{}",
    }
}

fn call(function: &Function, arguments: &[&str]) -> String {
    format!("{}({})", function.name, arguments.join(", "))
}

/// Whether an error is about the kind of the argument at this position, counted from 1.
fn is_about(error: &str, position: usize) -> bool {
    error.contains(&format!("bad argument #{position} ")) && error.contains("expected")
}

#[test]
fn every_form_works_with_right_arguments() {
    for function in FUNCTIONS {
        for form in function.forms {
            let arguments: Vec<&str> = form.iter().map(|p| right(p.meaning)).collect();
            let call = call(function, &arguments);
            assert_eq!(error_of(&call, Event::Request), "", "{call}");
        }
    }
}

#[test]
fn each_argument_takes_the_kinds_that_are_described() {
    let mut refused = 0;
    for function in FUNCTIONS {
        for form in function.forms {
            for (index, parameter) in form.iter().enumerate() {
                for (kind, literal) in KINDS {
                    refused += usize::from(one_argument(function, form, index, parameter, kind, literal));
                }
            }
        }
    }
    assert!(refused > 100, "{refused} refusals");
}

/// Calls with one literal in the place of an argument; true if it was refused.
fn one_argument(
    function: &Function,
    form: &[Parameter],
    index: usize,
    parameter: &Parameter,
    kind: Kind,
    literal: &str,
) -> bool {
    let mut arguments: Vec<&str> = form.iter().map(|p| right(p.meaning)).collect();
    let side = parameter.meaning == Meaning::Side && kind == Kind::String;
    arguments[index] = if side { "'server'" } else { literal };
    let last = KINDS.iter().find(|(_, text)| *text == *arguments.last().unwrap()).map(|(kind, _)| *kind);
    if function.form(arguments.len(), last.or(Some(Kind::Number))).unwrap().len() != form.len() {
        return false;
    }
    let call = call(function, &arguments);
    let error = error_of(&call, Event::Request);
    let takes = parameter.takes(kind) || function.never_raises;
    let refused = is_about(&error, index + 1);
    assert_eq!(refused, !takes, "{call}: {error}");
    refused
}

#[test]
fn further_arguments_take_the_kinds_that_are_described() {
    let with_rest: Vec<_> = FUNCTIONS.iter().filter_map(|f| Some((f, f.rest?))).collect();
    assert_eq!(with_rest.len(), 2);
    for (function, rest) in with_rest {
        for (kind, literal) in KINDS {
            let call = call(function, &["'x'", literal, "'y'"]);
            let error = error_of(&call, Event::Request);
            assert_eq!(is_about(&error, 2), !rest.takes(kind), "{call}: {error}");
        }
    }
}

#[test]
fn what_is_required_is_missed_and_what_is_wanted_is_not() {
    for function in FUNCTIONS {
        let form = function.forms[0];
        for (index, parameter) in form.iter().enumerate() {
            let arguments: Vec<&str> = form[..index].iter().map(|p| right(p.meaning)).collect();
            let call = call(function, &arguments);
            let raises = !error_of(&call, Event::Request).is_empty();
            assert_eq!(raises, parameter.need == Need::Required, "{call}");
        }
    }
}

#[test]
fn literals_out_of_range_are_refused() {
    for (meaning, wrong) in [
        (Meaning::Bytes, &["-1", "65001", "'many'"][..]),
        (Meaning::Offset, &["-1", "'x'"]),
        (Meaning::Side, &["'both'"]),
        (Meaning::Lifetime, &["0", "-1", "0/0"]),
        (Meaning::Extension, &["-1"]),
        (Meaning::Port, &["-1", "65536", "1.5", "'http'", "''"]),
    ] {
        let mut tried = 0;
        for (function, form) in FUNCTIONS.iter().flat_map(|f| f.forms.iter().map(move |form| (f, form))) {
            let Some(index) = form.iter().position(|p| p.meaning == meaning) else { continue };
            for literal in wrong {
                let mut arguments: Vec<&str> = form.iter().map(|p| right(p.meaning)).collect();
                arguments[index] = literal;
                let call = call(function, &arguments);
                assert_ne!(error_of(&call, Event::Request), "", "{call}");
                tried += 1;
            }
        }
        assert!(tried > 0);
    }
}

#[test]
fn events_are_as_described() {
    for function in FUNCTIONS {
        let arguments: Vec<&str> = function.forms[0].iter().map(|p| right(p.meaning)).collect();
        for arguments in [&arguments[..], &[]] {
            let call = call(function, arguments);
            let refused = error_of(&call, Event::Response).contains("not allowed in");
            assert_eq!(refused, !function.events.has(api::Event::Response), "{call}");
            assert!(!error_of(&call, Event::Request).contains("not allowed in"), "{call}");
        }
    }
}

/// The names of the list for which the expression gives true.
fn there(names: &[&str], expression: &str) -> Vec<String> {
    let listed: Vec<String> = names.iter().map(|name| format!("{name:?}")).collect();
    let script = format!(
        "for _, name in ipairs({{ {} }}) do if {expression} then avi.vs.log(name, ' ') end end",
        listed.join(", ")
    );
    World::new(script).logged().split_whitespace().map(str::to_owned).collect()
}

#[test]
fn results_have_the_kinds_that_are_described() {
    for function in FUNCTIONS {
        let arguments: Vec<&str> = function.forms[0].iter().map(|p| right(p.meaning)).collect();
        let call = call(function, &arguments);
        let script = format!(
            "local r = {{ n = 0 }} local function keep(...) r = {{ n = select('#', ...), ... }} end keep({call}) \
             avi.vs.log(r.n) for i = 1, r.n do avi.vs.log(' ', type(r[i])) end"
        );
        let logged = World::new(script).with(PAYLOAD).logged();
        let logged = logged.strip_prefix('x').unwrap_or(&logged);
        let mut words = logged.split(' ');
        let count: usize = words.next().unwrap().parse().unwrap();
        // A lookup that finds nothing gives one nil.
        assert!(
            count == function.results.len() || function.name == "avi.vs.table_lookup",
            "{call}: {logged}"
        );
        for (word, result) in words.zip(function.results) {
            let kind = KINDS.iter().map(|(kind, _)| *kind).find(|kind| kind.name() == word).unwrap();
            assert!(result.kinds.has(kind), "{call}: {logged}");
        }
    }
}

#[test]
fn the_lua_world_is_as_described() {
    assert_eq!(there(BASE, "_G[name] ~= nil"), BASE);
    let absent: Vec<&str> = ABSENT.iter().map(|a| a.name).collect();
    assert_eq!(there(&absent, "_G[name] == nil"), absent);
    let all = mlua::Lua::new();
    let mut every: Vec<String> = all.globals().pairs::<String, mlua::Value>().map(|p| p.unwrap().0).collect();
    every.retain(|name| !BASE.contains(&name.as_str()) && !absent.contains(&name.as_str()));
    every.retain(|name| !LIBRARIES.iter().any(|l| l.name == name));
    assert_eq!(every, Vec::<String>::new(), "what LuaJIT has and neither list");
    for library in LIBRARIES {
        let there_now = there(library.members, &format!("{}[name] ~= nil", library.name));
        assert_eq!(there_now, library.members, "{}", library.name);
        let table: mlua::Table = all.globals().get(library.name).unwrap();
        let mut others: Vec<String> = table.pairs::<String, mlua::Value>().map(|p| p.unwrap().0).collect();
        others.retain(|name| !library.members.contains(&name.as_str()));
        let others: Vec<&str> = others.iter().map(String::as_str).collect();
        let hidden = there(&others, &format!("{}[name] == nil", library.name));
        assert_eq!(hidden, others, "{}: what is there and not described", library.name);
    }
}

#[test]
fn modules_have_the_functions_that_are_described() {
    for module in MODULES {
        let described: Vec<&str> = module.functions.iter().map(|f| f.name).collect();
        let script = format!(
            "local names = {{}} for name in pairs(require({:?})) do names[#names + 1] = name end \
             table.sort(names) avi.vs.log(table.concat(names, ' '))",
            module.name
        );
        let mut sorted = described.clone();
        sorted.sort_unstable();
        assert_eq!(World::new(script).logged(), sorted.join(" "));
    }
}

#[test]
fn what_is_not_supported_says_so() {
    for name in api::UNSUPPORTED.iter().chain(&["avi.ssl.x", "avi.ftp.y", "avi.vs.get_ftp_port"]) {
        assert_eq!(error_of(&format!("{name}()"), Event::Request), format!("f:1: {name}: not supported"));
        assert!(api::unsupported(name), "{name}");
    }
    assert!(!FUNCTIONS.iter().any(|f| api::unsupported(f.name)));
    assert!(!api::unsupported("avi.vs.nothing"));
}
