//! The checks of scripts: each kind of fault is found in a script of `check/faults`, whose report is committed beside
//! it (`WEIR_BLESS=1` writes it), and nothing is found in those of `check/clean`, in the examples and in the manual.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "test")]

mod world;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use dataplane::snapshot::ScriptSetId;
use script_check::api::Event;
use script_check::{Finding, Names, Role, Rule, Settings, Severity, Shown};
use scripting::{builtin_parser, check_script};
use world::{set, snapshot, source};

fn directory(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

/// The Lua files of a directory, in the order of their names.
fn scripts(of: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(directory(of)).unwrap();
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "lua"));
    paths.sort();
    paths
}

/// By what stands before `.lua`.
fn role(path: &Path) -> Role {
    let stem = path.file_stem().unwrap().to_str().unwrap();
    match stem.rsplit_once('.') {
        Some((_, "response")) => Role::Script(Event::Response),
        Some((_, "module")) => Role::Module,
        _ => Role::Script(Event::Request),
    }
}

fn names() -> Names {
    let snapshot = snapshot(vec![set("")]);
    scripting::names(&snapshot, &snapshot.script_sets[0], ScriptSetId(0))
}

fn findings(text: impl AsRef<[u8]>, role: Role, names: Option<&Names>) -> Vec<Finding> {
    check_script(&source("script", text), &Settings { role, names })
}

/// As people see it.
fn report(file: &str, text: &[u8], findings: &[Finding]) -> String {
    findings.iter().map(|finding| Shown::new(file, text, finding).text()).collect()
}

#[test]
fn every_fault_is_found_and_told_as_committed() {
    let names = names();
    let bless = std::env::var_os("WEIR_BLESS").is_some();
    let mut rules = BTreeSet::new();
    let mut wrong = String::new();
    for path in scripts("tests/check/faults") {
        let text = std::fs::read(&path).unwrap();
        let found = findings(&text, role(&path), Some(&names));
        let name = path.file_name().unwrap().to_str().unwrap();
        assert!(!found.is_empty(), "{name}: nothing was found");
        // A file is named after the rule that it breaks, and breaks no other one.
        for finding in &found {
            let rule = finding.rule.name().replace('-', "_");
            let kin = [("absent", "undefined"), ("api", "undefined"), ("variable", "type")];
            let kin = kin.iter().find(|(first, _)| name.starts_with(first)).map(|(_, rule)| *rule);
            let first = name.split('_').next().unwrap();
            assert!(rule.starts_with(first) || kin == Some(&rule), "{name} breaks {rule}: {found:#?}");
        }
        rules.extend(found.iter().map(|finding| finding.rule));
        let report = report(name, &text, &found);
        let expected = path.with_extension("expected");
        if bless {
            std::fs::write(&expected, &report).unwrap();
        } else if std::fs::read_to_string(&expected).unwrap_or_default() != report {
            wrong.push_str(&report);
        }
    }
    assert!(wrong.is_empty(), "not as committed (WEIR_BLESS=1 rewrites):\n{wrong}");
    assert_eq!(rules, BTreeSet::from(Rule::ALL), "a rule without a fault");
}

#[test]
fn every_report_belongs_to_a_fault() {
    for entry in std::fs::read_dir(directory("tests/check/faults")).unwrap() {
        let path = entry.unwrap().path();
        assert!(path.with_extension("lua").exists(), "{} is left over", path.display());
    }
}

#[test]
fn nothing_is_found_in_clean_scripts() {
    let names = names();
    let clean = scripts("tests/check/clean");
    assert!(clean.len() >= 15);
    for path in clean {
        let text = std::fs::read(&path).unwrap();
        let found = findings(&text, role(&path), Some(&names));
        assert!(found.is_empty(), "{}", report(&path.display().to_string(), &text, &found));
    }
}

#[test]
fn nothing_is_found_in_examples_parsers_and_the_manual() {
    let mut texts: Vec<(String, String, Role)> = Vec::new();
    let recipes = std::fs::read_dir(directory("examples")).unwrap().map(|entry| entry.unwrap().path());
    let recipes = recipes.flat_map(|recipe| scripts(recipe.to_str().unwrap()));
    let recipes = recipes.filter(|path| !path.to_str().unwrap().ends_with("_test.lua"));
    for path in recipes.chain(scripts("../config/examples")) {
        let response = path.ends_with("log_answer.lua");
        let event = if response { Event::Response } else { Event::Request };
        let text = std::fs::read_to_string(&path).unwrap();
        let module = path.ends_with("first_byte.lua");
        let role = if module { Role::Module } else { Role::Script(event) };
        texts.push((path.display().to_string(), text, role));
    }
    for name in ["Default-TLS", "Default-Radius", "Default-DHCP"] {
        texts.push((name.to_owned(), builtin_parser(name).unwrap().to_owned(), Role::Module));
    }
    let manual = include_str!("../../docs/scripting.md");
    for block in manual.split("```lua\n").skip(1).filter_map(|rest| rest.split("```").next()) {
        texts.push(("docs/scripting.md".to_owned(), block.to_owned(), Role::Script(Event::Request)));
    }
    assert!(texts.len() >= 25, "{}", texts.len());
    for (name, text, role) in texts {
        let found = findings(&text, role, None);
        assert!(found.is_empty(), "{}", report(&name, text.as_bytes(), &found));
    }
}

/// What is certain to raise an error raises one, unless nothing of the kind is reached.
#[test]
fn errors_are_certain() {
    let mut certain = 0;
    let names = names();
    for path in scripts("tests/check/faults") {
        let text = std::fs::read_to_string(&path).unwrap();
        let role = role(&path);
        let found = findings(&text, role, Some(&names));
        if !found.iter().any(|f| f.severity == Severity::Error && f.rule != Rule::Syntax) {
            continue;
        }
        let mut both = set(&text);
        both.response = Some(source("response", &text));
        let mut world = world::World::of(snapshot(vec![both])).with(b"payload of twenty bytes");
        world.server = b"payload of twenty bytes".to_vec();
        if role == Role::Script(Event::Response) {
            world.event = dataplane::policy::Event::Response;
        }
        let error = world.failed(dataplane::policy::ScriptFailure::Error);
        assert!(!error.is_empty(), "{}", path.display());
        certain += 1;
    }
    assert!(certain >= 30, "{certain}");
}

#[test]
fn without_a_configuration_names_are_not_judged() {
    let script = "avi.pool.select('anything') require('any')";
    assert_eq!(findings(script, Role::Script(Event::Request), None), []);
}

#[test]
fn a_module_may_be_required_in_either_event() {
    let script = "avi.pool.select('main')";
    assert_eq!(findings(script, Role::Module, None), []);
    assert_eq!(findings(script, Role::Script(Event::Response), None)[0].rule, Rule::Event);
}

#[test]
fn places_are_right_after_a_byte_order_mark_and_in_odd_texts() {
    let text = b"\xef\xbb\xbfavi.vs.lgo('x')\r\n\tavi.vs.lgo('\xe9')\r\n";
    let found = findings(text, Role::Script(Event::Request), None);
    let shown: Vec<Shown> = found.iter().map(|finding| Shown::new("f", text, finding)).collect();
    let places: Vec<_> = shown.iter().map(|s| (s.line, s.column, s.end_line, s.end_column)).collect();
    assert_eq!(places, [(1, 1, 1, 11), (2, 2, 2, 12)]);
    assert_eq!(shown[1].source, "\tavi.vs.lgo('?')");
    assert_eq!(
        shown[1].text(),
        "f:2:2: error[undefined]: there is no function avi.vs.lgo\n 2 | \tavi.vs.lgo('?')\n   | \t^^^^^^^^^^\n   \
         = did you mean avi.vs.log?\n"
    );
    let json: serde_json::Value = serde_json::from_str(&shown[0].json()).unwrap();
    assert_eq!(
        json,
        serde_json::json!({
            "file": "f", "line": 1, "column": 1, "end_line": 1, "end_column": 11, "severity": "error",
            "rule": "undefined", "message": "there is no function avi.vs.lgo",
            "cure": "did you mean avi.vs.log?", "source": "avi.vs.lgo('x')",
        })
    );
}

#[test]
fn the_manual_of_the_tools_describes_every_rule() {
    let manual = include_str!("../../docs/script-tools.md");
    for rule in Rule::ALL {
        assert!(manual.contains(&format!("| `{}` |", rule.name())), "{}", rule.name());
    }
}

#[test]
fn definitions_for_editors_are_lua() {
    let files = scripts("editor/luals");
    assert_eq!(files.len(), 5);
    for path in files {
        let text = std::fs::read(&path).unwrap();
        let found = findings(&text, Role::Module, None);
        assert!(!found.iter().any(|finding| finding.rule == Rule::Syntax), "{}: {found:#?}", path.display());
    }
}

#[test]
fn compiled_lua_is_refused() {
    let found = findings("\u{1b}LJ\u{2}", Role::Script(Event::Request), None);
    assert_eq!((found.len(), found[0].rule), (1, Rule::Syntax));
}

/// Every fixture cut off, with a token left out, and with two tokens exchanged: whatever comes of it has findings that
/// lie in the text, and nothing panics.
#[test]
fn mangled_scripts_are_survived() {
    let names = names();
    let mut tried = 0;
    for path in scripts("tests/check/faults").into_iter().chain(scripts("tests/check/clean")) {
        let text = std::fs::read_to_string(&path).unwrap();
        let role = role(&path);
        for mangled in mangled(&text) {
            let settings = Settings { role, names: Some(&names) };
            for finding in script_check::check(mangled.as_bytes(), &settings) {
                assert!(finding.span.end <= mangled.len(), "{mangled}: {finding:?}");
                let shown = Shown::new("f", mangled.as_bytes(), &finding);
                assert!(!shown.text().is_empty() && !shown.cure.is_empty(), "{mangled}");
            }
            tried += 1;
        }
    }
    assert!(tried > 2000, "{tried}");
}

fn mangled(text: &str) -> Vec<String> {
    let mut words: Vec<&str> = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let is_word = |c: char| c.is_alphanumeric() || c == '_';
        let length = match rest.find(|c: char| !is_word(c)) {
            Some(0) => first.len_utf8(),
            Some(length) => length,
            None => rest.len(),
        };
        let (word, after) = rest.split_at(length);
        words.push(word);
        rest = after;
    }
    let solid: Vec<usize> = (0..words.len()).filter(|at| !words[*at].trim().is_empty()).collect();
    let without = solid.iter().map(|at| [&words[..*at], &words[at + 1..]].concat().concat());
    let cut = solid.iter().map(|at| words[..*at].concat());
    let exchanged = solid.windows(3).map(|three| {
        let mut words = words.clone();
        words.swap(three[0], three[2]);
        words.concat()
    });
    without.chain(cut).chain(exchanged).collect()
}

#[test]
fn deep_and_long_scripts_take_neither_stack_nor_time() {
    let times = |count: usize, text: &str| text.repeat(count);
    for script in [
        format!("local x = 1{}", times(200_000, " + 1")),
        format!("local x = a{}", times(200_000, ".b")),
        format!("local x = f{}", times(200_000, "()")),
        format!("local x = a{}", times(190, " .. a")),
        times(3000, "avi.vs.table_insert('k', avi.vs.table_lookup('k', 0))\n"),
        format!(
            "local a0 = 'x' {}",
            (1..150).map(|i| format!("local a{i} = a{0} .. a{0} ", i - 1)).collect::<String>()
        ),
    ] {
        for role in [Role::Module, Role::Script(Event::Request)] {
            assert!(findings(&script, role, None).iter().all(|f| f.severity == Severity::Warning));
        }
    }
}
