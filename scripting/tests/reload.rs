//! Another configuration beside the one that runs.

#![allow(clippy::unwrap_used, reason = "test support")]

mod world;

use std::sync::Arc;

use dataplane::policy::{Outcome, Policy};
use dataplane::snapshot::Snapshot;
use world::{World, set, snapshot, source};

const RUNS: &str = "avi.vs.log('ok')";

/// So many brackets in each other. LuaJIT takes about 200; in the function that is made of a script it takes fewer.
fn nested(depth: usize) -> String {
    format!("local x = {}1{}", "(".repeat(depth), ")".repeat(depth))
}

/// A configuration with a set more.
fn with(request: &str, response: &str) -> Arc<Snapshot> {
    let mut more = set(request);
    more.response = Some(source("response.lua", response));
    Arc::new(snapshot(vec![set(RUNS), more]))
}

#[test]
fn a_configuration_that_is_refused_leaves_nothing_in_memory() {
    let mut world = World::new(RUNS);
    let mut refused =
        (150..250).map(nested).filter(|response| world.policy.prepare(&with("", response)).is_err());
    let response = refused.next().unwrap();
    drop(refused);
    // It is refused only when the request script has been compiled.
    assert!(mlua::Lua::new().load(response.as_str()).into_function().is_ok());
    let snapshot = with(&"avi.vs.log(1) ".repeat(1500), &response);
    let before = world.policy.memory();
    for _ in 0..20 {
        let error = world.policy.prepare(&snapshot).unwrap_err();
        assert!(error.contains("syntax levels"), "{error}");
    }
    let after = world.policy.memory();
    assert!(after < before + (100 << 10), "{before} {after}");
    assert_eq!(world.logged(), "ok");
}

#[test]
fn a_run_that_waits_while_its_script_is_let_go_does_not_bring_it_back() {
    let mut world = World::new("avi.l4.collect(4) avi.vs.log('old')").with("ab");
    let (run, _) = world.waits();
    let mut emptied = set("");
    emptied.request = None;
    // Of what the last one compiles something takes the place in Lua that the script has left.
    for scripts in [&["new"][..], &["new", "newer"]] {
        let more = scripts.iter().map(|text| set(format!("avi.vs.log('{text} ')")));
        let sets = [emptied.clone()].into_iter().chain(more).collect();
        world.snapshot = Arc::new(snapshot(sets));
        world.policy.prepare(&world.snapshot).unwrap();
        world.policy.adopt();
    }
    world.client = b"abcd".to_vec();
    assert!(matches!(world.resume(run), Outcome::Done));
    assert_eq!(world.log(), "oldnewer ");
    assert_eq!(world.next_flow().logged(), "new newer ");
}

/// Lets the world go over to a configuration with these scripts; those that are empty are emptied sets.
fn adopt(world: &mut World, scripts: &[&str]) {
    let sets = scripts.iter().map(|text| {
        let mut set = set(text);
        set.request = set.request.filter(|_| !text.is_empty());
        set
    });
    world.snapshot = Arc::new(snapshot(sets.collect()));
    world.policy.prepare(&world.snapshot).unwrap();
    world.policy.adopt();
}

#[test]
fn coroutines_that_are_used_again_do_not_keep_a_script_alive() {
    // Constants of 240 KB.
    let numbers = "1,".repeat(30_000);
    let small = "local t = {} for n = 1, 500 do t[n] = n .. ' ' end avi.vs.log('new')";
    // The first is contained, the second is not.
    for front in ["", "x = 1 "] {
        let large = format!("{front}avi.l4.collect(4) local t = {{ {numbers} }} avi.vs.log(#t)");
        let mut world = World::new(RUNS);
        let before = world.policy.memory();
        adopt(&mut world, &["", &large]);
        assert!(world.policy.memory() > before + (200 << 10), "{before} {}", world.policy.memory());
        world.client = b"ab".to_vec();
        let runs: Vec<_> = (0..32).map(|_| world.next_flow().waits().0).collect();
        world.client = b"abcd".to_vec();
        let (early, late) = runs.split_at(30);
        for run in early {
            assert!(matches!(world.next_flow().resume(*run), Outcome::Done), "{:?}", world.record.error);
            assert_eq!(world.log(), "30000");
        }
        adopt(&mut world, &["", "", small]);
        for run in late {
            assert!(matches!(world.next_flow().resume(*run), Outcome::Done), "{:?}", world.record.error);
        }
        let mut least = usize::MAX;
        for _ in 0..400 {
            assert_eq!(world.next_flow().logged(), "new");
            world.policy.idle();
            least = least.min(world.policy.memory());
        }
        assert!(least < before + (100 << 10), "{front}: {before} {least}");
    }
}
