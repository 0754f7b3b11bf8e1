//! What a run could leave behind in a world that is kept for the next one.

mod world;

use dataplane::policy::{Outcome, Policy};
use smoltcp::time::Duration;
use world::{World, set, snapshot};

/// What `probe` logs before and after a run of `attempt`, in one Lua state: the order of a table's keys differs between two.
fn second_run(attempt: &str, probe: &str) -> (String, String) {
    let script = format!("if avi.l4.read() == 'mark' then {attempt} else {probe} end");
    let mut world = World::new(&script);
    let fresh = world.logged();
    world.next_flow().client = b"mark".to_vec();
    let _ = world.start();
    world.next_flow().client.clear();
    (fresh, world.logged())
}

#[test]
fn the_next_run_does_not_see_which_names_there_were() {
    let mut bad = Vec::new();
    for (attempt, probe) in [
        ("string.mark = 1 string.mark = nil", "avi.vs.log(tostring((pcall(next, string, 'mark'))))"),
        (
            "rawset(string, 'mark', 1) rawset(string, 'mark', nil)",
            "avi.vs.log(tostring((pcall(next, string, 'mark'))))",
        ),
        ("table.insert(string, 1) table.remove(string)", "avi.vs.log(tostring((pcall(next, string, 1))))"),
        (
            "setmetatable({}, { __newindex = string }).mark = 1 string.mark = nil",
            "avi.vs.log(tostring((pcall(next, string, 'mark'))))",
        ),
        (
            "for i = 1, 200 do math['k' .. i] = i end for i = 1, 200 do math['k' .. i] = nil end",
            "math.y = 1 for i = 1, 8 do math['x' .. i] = i end for k in pairs(math) do avi.vs.log(k) end",
        ),
        ("local _ = math", "avi.vs.log(tostring(rawget(_G, 'math') ~= nil))"),
        ("local _ = os", "for k in pairs(_G) do avi.vs.log(k, ' ') end"),
        ("local _ = os local _ = string", "local t = {} for k in pairs(_G) do avi.vs.log(k, ' ') end"),
        ("local _ = string local _ = os", "mark = 1 for k in pairs(_G) do avi.vs.log(k, ' ') end"),
        ("local _ = string string = nil", "avi.vs.log(type(rawget(_G, 'string')), type(string))"),
        (
            "local _ = string string = nil",
            "string = nil local _ = string avi.vs.log(type(rawget(_G, 'string')))",
        ),
        ("local _ = string", "string = nil local _ = string avi.vs.log(type(rawget(_G, 'string')))"),
        ("local _ = string", "string = 5 avi.vs.log(type(rawget(_G, 'string')), ('x'):rep(2))"),
        (
            "local _ = string",
            "string = nil local s = string string = s avi.vs.log(type(rawget(_G, 'string')))",
        ),
        ("local s = string string = nil string = s", "avi.vs.log(type(rawget(_G, 'string')))"),
        ("local a = avi avi = nil avi = a", "avi.vs.log(type(rawget(_G, 'avi')), type(rawget(_G, '_G')))"),
        ("local _ = string string = nil", "string.x = 1 avi.vs.log(tostring(('').x))"),
    ] {
        let (fresh, second) = second_run(attempt, probe);
        if fresh != second {
            bad.push(format!("{attempt} | {probe}: fresh {fresh} then {second}"));
        }
    }
    assert!(bad.is_empty(), "{bad:#?}");
}

#[test]
fn a_budget_that_ends_while_a_world_is_kept_gives_no_world_away() {
    let script = "local p = avi.l4.read() local mode = p:sub(1, 1) \
        if mode == 'm' then avi.l4.collect(10) mark = 'secret' return end \
        if mode == 'k' then avi.l4.collect(4) p = avi.l4.read() local _ = ('x'):rep(70000) for i = 1, #p do end end \
        if mode == 'c' then avi.l4.collect(4) end \
        avi.vs.log(tostring(mark))";
    let mut snapshot = snapshot(vec![set(script)]);
    snapshot.limits.script_budget = Duration::from_micros(100);
    let mut world = World::of(snapshot);
    let begin = |world: &mut World, text: &str| {
        world.next_flow().client = text.into();
        world.waits().0
    };
    let mut killed = 0;
    for n in 4..2600 {
        let (a, b) = (begin(&mut world, "c"), begin(&mut world, "c"));
        for run in [a, b] {
            world.next_flow().client = b"c234".to_vec();
            assert!(matches!(world.resume(run), Outcome::Done));
        }
        let x = begin(&mut world, "k");
        let y = begin(&mut world, "m");
        world.next_flow().client = [b'k'].repeat(n);
        killed += usize::from(!matches!(world.resume(x), Outcome::Done));
        world.next_flow().client = b"m234567890".to_vec();
        assert!(matches!(world.resume(y), Outcome::Done));
        let z = begin(&mut world, "c");
        world.next_flow().client = b"z".to_vec();
        assert_eq!(world.logged(), "nil", "n {n}, killed {killed}");
        world.next_flow().client = b"c234".to_vec();
        let _ = world.resume(z);
        if killed > 100 {
            break;
        }
    }
    assert!(killed > 100, "{killed}");
}

#[test]
fn a_view_that_was_filled_and_emptied_is_not_kept_with_its_memory() {
    let script = "if avi.l4.read() ~= 'fill' then for i = 1, 2000 do local t = {} end return end \
        for i = 1, 20000 do string[i + 0.5] = 1 end for i = 1, 20000 do string[i + 0.5] = nil end avi.l4.collect(5)";
    let mut snapshot = snapshot(vec![set(script)]);
    snapshot.limits.script_budget = Duration::from_secs(1);
    let mut world = World::of(snapshot);
    let before = world.policy.memory();
    let waiting: Vec<_> = (0..8)
        .map(|_| {
            world.next_flow().client = b"fill".to_vec();
            world.waits().0
        })
        .collect();
    for run in waiting {
        world.next_flow().client = b"fill5".to_vec();
        assert!(matches!(world.resume(run), Outcome::Done));
    }
    for _ in 0..200 {
        world.next_flow().client.clear();
        assert_eq!(world.logged(), "");
        world.policy.idle();
    }
    let after = world.policy.memory();
    // One of them may still be the environment that the function has which makes the next one.
    assert!(after < before + (2 << 20), "{before} {after}");
}
