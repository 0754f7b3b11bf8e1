//! What a trace shows of scripts, and that nothing else changes by it.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "test support")]

mod world;

use dataplane::policy::{Event, Outcome, ScriptFailure};
use dataplane::script_trace::{Detail, ScriptStep, ScriptTrace};
use world::{World, set, snapshot, source};

fn traced(world: World, detail: Detail) -> World {
    let mut world = world;
    world.record.trace = Some(Box::new(ScriptTrace::new(1000, detail)));
    world
}

/// One line for each step.
fn shown(world: &World) -> Vec<String> {
    let trace = world.record.trace.as_ref().unwrap();
    let at = |place| format!("{}:{}", trace.source(place), place.line);
    let values = |values: &[_]| values.iter().map(ToString::to_string).collect::<Vec<String>>().join(", ");
    let line = |step: &ScriptStep| match step {
        ScriptStep::Begin { script, event } => format!("begin {script} {event:?}"),
        ScriptStep::Line(place) => at(*place),
        ScriptStep::Call { place, function, arguments, results } => {
            let results = results.as_ref().map_or_else(|text| format!("error {text}"), |r| values(r));
            format!("{} {function}({}) -> {results}", at(place.unwrap()), values(arguments))
        }
        ScriptStep::Wait { need } => format!("wait {need}"),
        ScriptStep::Resume { buffered } => format!("resume {buffered}"),
        ScriptStep::End { failure, instructions, .. } => {
            format!("end {failure:?} {}", if instructions.is_some() { "counted" } else { "" })
                .trim()
                .to_owned()
        }
    };
    trace.steps().iter().map(line).collect()
}

#[test]
fn calls_are_noted_with_arguments_results_and_places() {
    let script = "local n = avi.l4.collect(4)\n\
        avi.vs.table_insert('users', 'k', '7')\n\
        avi.vs.log('n=', n, true, nil, avi.SIG_ENABLE)\n\
        avi.vs.reqvar.who = 'me'\n\
        local who = avi.vs.reqvar.who\n\
        local ok = pcall(avi.pool.select, 'nowhere')\n\
        local v, seconds = avi.vs.table_lookup('users', 'k', 0)\n\
        avi.pool.select('other')";
    let mut world = traced(World::new(script).with("ab"), Detail::Calls);
    let (run, _) = world.waits();
    world.client = b"abcdef".to_vec();
    assert!(matches!(world.resume(run), Outcome::Done));
    let shown = shown(&world);
    let (before, refused) = shown.split_at(8);
    assert_eq!(
        before,
        [
            "begin request.lua Request",
            "request.lua:1 avi.l4.collect(4) -> ",
            "wait 4",
            "resume 6",
            "request.lua:2 avi.vs.table_insert(\"users\", \"k\", \"7\") -> true",
            "request.lua:3 avi.vs.log(\"n=\", 6, true, nil, avi.SIG_ENABLE) -> ",
            "request.lua:4 avi.vs.reqvar=(\"who\", \"me\") -> ",
            "request.lua:5 avi.vs.reqvar(\"who\") -> \"me\"",
        ]
    );
    assert!(
        refused[0].starts_with("request.lua:6 avi.pool.select(\"nowhere\") -> error no pool named"),
        "{refused:?}"
    );
    assert_eq!(
        refused[1..],
        [
            "request.lua:7 avi.vs.table_lookup(\"users\", \"k\", 0) -> \"7\", 300",
            "request.lua:8 avi.pool.select(\"other\") -> ",
            "end None",
        ]
    );
}

#[test]
fn lines_of_scripts_and_modules_are_noted_and_instructions_counted() {
    let mut set = set(
        "local m = require 'split'\n\nif m.first('a,b') == 'a' then\n  avi.vs.log('yes')\nelse\n  avi.vs.log('no')\nend",
    );
    let module = "local m = {}\nfunction m.first(s)\n  return s:match('^[^,]*')\nend\nreturn m";
    set.parsers.push(("split".to_owned(), source("split.lua", module)));
    let mut world = traced(World::of(snapshot(vec![set])), Detail::Lines);
    assert!(matches!(world.start(), Outcome::Done));
    let shown = shown(&world);
    assert_eq!(
        shown,
        [
            "begin request.lua Request",
            "request.lua:1",
            "split.lua:1",
            // The function is made where its text ends.
            "split.lua:4",
            "split.lua:2",
            "split.lua:5",
            "request.lua:3",
            "split.lua:3",
            "request.lua:3",
            "request.lua:4",
            "request.lua:4 avi.vs.log(\"yes\") -> ",
            "end None counted",
        ]
    );
}

/// Instructions of a traced run of this script.
fn instructions(script: &str) -> u64 {
    let mut world = traced(World::new(script), Detail::Lines);
    assert!(matches!(world.start(), Outcome::Done));
    let end = world.record.trace.as_ref().unwrap().steps().last().unwrap().clone();
    let ScriptStep::End { instructions: Some(count), .. } = end else { panic!("{end:?}") };
    count
}

#[test]
fn the_same_work_is_the_same_number_of_instructions() {
    let round = |n| format!("local x = 0 for i = 1, {n} do x = x + i end");
    let (ten, hundred, thousand) =
        (instructions(&round(10)), instructions(&round(100)), instructions(&round(1000)));
    assert_eq!(instructions(&round(10)), ten);
    assert_eq!((thousand - hundred) / 900, (hundred - ten) / 90);
    assert!(hundred - ten >= 90 * 2, "{ten} {hundred}");
}

#[test]
fn the_budget_holds_while_lines_are_noted() {
    for detail in [Detail::Calls, Detail::Lines] {
        let mut world = traced(World::new("while true do pcall(error, 'x') end"), detail);
        let text = world.failed(ScriptFailure::Budget);
        assert!(text.contains("request.lua"), "{text}");
        assert!(shown(&world).last().unwrap().starts_with("end Some(Budget)"));
        assert!(world.record.trace.as_ref().unwrap().steps().len() <= 1000);
    }
}

#[test]
fn a_flow_without_a_trace_after_one_with_it_is_as_before() {
    let mut set = set("avi.vs.log(1)");
    set.response = Some(source("response.lua", "avi.vs.log(2)"));
    let mut world = traced(World::of(snapshot(vec![set])), Detail::Lines);
    assert_eq!(world.logged(), "1");
    assert_eq!(world.next_flow().logged(), "1");
    assert!(world.record.trace.is_none());
    world = traced(world, Detail::Calls);
    world.event = Event::Response;
    world.record.log.clear();
    assert_eq!(world.logged(), "2");
    assert_eq!(shown(&world)[0], "begin response.lua Response");
    assert_eq!(shown(&world).len(), 3);
}
