//! Another configuration beside the one that runs.

#![allow(clippy::unwrap_used, reason = "test support")]

mod world;

use std::sync::Arc;

use dataplane::policy::Policy;
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
