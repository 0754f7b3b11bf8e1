//! docs/operations.md says what the program does.

use dataplane::channel::{EndedBy, Phase};
use dataplane::counters::DropReason;

use crate::admin::Setup;

fn manual() -> String {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/operations.md");
    std::fs::read_to_string(path).unwrap()
}

#[test]
fn every_example_of_an_answer_is_what_the_program_answers() {
    let manual = manual();
    let setup = Setup::new();
    let mut shown = Vec::new();
    for block in manual.split("```console\n").skip(1) {
        let block = block.split("```").next().unwrap();
        let (command, expected) = block.split_once('\n').unwrap();
        let Some(request) = command.strip_prefix("$ weir ") else { continue };
        if request == "show info" {
            continue;
        }
        let answer = setup.ask(request).unwrap();
        let answer = match expected.strip_suffix("...\n") {
            Some(beginning) => answer.get(..beginning.len()).unwrap_or(&answer).to_owned() + "...\n",
            None => answer,
        };
        assert_eq!(answer, expected, "the answer to `{request}` is on the left");
        shown.push(request.to_owned());
    }
    setup.stop();
    for what in [
        "counters", "flows", "latency", "metrics", "pools", "ports", "scripts", "servers", "tables",
        "workers",
    ] {
        assert!(shown.iter().any(|request| request.starts_with(&format!("show {what}"))), "{what}");
    }
}

#[test]
fn every_field_of_info_is_explained() {
    let setup = Setup::new();
    let info: serde_json::Value = serde_json::from_str(&setup.ask("show info json").unwrap()).unwrap();
    setup.stop();
    let manual = manual();
    for field in info.as_object().unwrap().keys() {
        assert!(manual.contains(&format!("\n{field} ")), "{field}");
    }
}

#[test]
fn every_counter_and_termination_code_is_explained() {
    let manual = manual();
    for reason in DropReason::ALL {
        let row = format!("| `{}` | {} |", reason.label(), reason.description());
        assert!(manual.contains(&row), "missing: {row}");
    }
    let letters = EndedBy::ALL.iter().map(|by| (by.letter(), by.description()));
    for (letter, description) in letters.chain(Phase::ALL.iter().map(|p| (p.letter(), p.description()))) {
        let row = format!("| `{letter}` | {description} |");
        assert!(manual.contains(&row), "missing: {row}");
    }
}
