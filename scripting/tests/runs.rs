//! Starting, waiting, going on, ending.

mod world;

use dataplane::policy::{Event, Outcome, Policy, ScriptFailure, Selection};
use dataplane::script_profile::ScriptProfile;
use dataplane::snapshot::{PoolId, ScriptSetId, ServiceId};
use world::{World, set, snapshot, source};

#[test]
fn a_script_reads_the_payload_and_selects_a_pool() {
    let script =
        "if avi.l4.read(3) == 'GET' then avi.pool.select('other') end avi.vs.log('seen ', #avi.l4.read())";
    let mut world = World::new(script).with("GET / HTTP/1.1");
    assert_eq!(world.logged(), "seen 14");
    assert_eq!(world.record.selection, Some(Selection::Pool(PoolId(1))));
    assert!(world.policy.handles(ServiceId(0), Event::Request));
    assert!(!world.policy.handles(ServiceId(0), Event::Response));
    assert!(!world.policy.handles(ServiceId(7), Event::Request));
    let report = world.policy.report();
    assert_eq!((report.len(), report[0].runs, report[0].errors), (1, 1, 0));
    assert_eq!((report[0].set.as_str(), report[0].run_time.len()), ("set", 1));
}

#[test]
fn collect_waits_and_goes_on_after_the_call() {
    let script = "avi.vs.log('a') local n = avi.l4.collect(5) avi.vs.log('b', n, avi.l4.read())";
    let mut world = World::new(script).with("12");
    let (run, need) = world.waits();
    assert_eq!((need, world.log().as_str(), world.policy.waiting()), (5, "a", 1));
    world.client = b"1234".to_vec();
    let Outcome::Suspended { run, need: 5 } = world.resume(run) else { panic!("too early") };
    world.client = b"1234567".to_vec();
    assert!(matches!(world.resume(run), Outcome::Done));
    assert_eq!((world.log().as_str(), world.policy.waiting()), ("ab71234567", 0));
    let report = &world.policy.report()[0];
    assert_eq!((report.runs, report.run_time.len()), (1, 1));
}

#[test]
fn a_wait_is_possible_at_every_cut_and_inside_pcall_and_callbacks() {
    let script = r#"
        local seen = {}
        local ok = pcall(function()
            for n = 1, 6 do seen[#seen + 1] = avi.l4.collect(n) end
        end)
        local text = ("xy"):gsub("%w", function(c) return c .. avi.l4.collect(7) end)
        avi.vs.log(tostring(ok), table.concat(seen, ","), " ", text)
    "#;
    for cut in 1..=7 {
        let mut world = World::new(script);
        let mut outcome = world.start();
        let mut waits = 0;
        while let Outcome::Suspended { run, need } = outcome {
            waits += 1;
            while world.client.len() < need {
                world.client.extend(std::iter::repeat_n(b'.', cut));
            }
            outcome = world.resume(run);
        }
        assert!(matches!(outcome, Outcome::Done), "{:?}", world.record.error);
        let counts: Vec<String> = (1..=6usize).map(|n| (n.div_ceil(cut) * cut).to_string()).collect();
        let last = 7usize.div_ceil(cut) * cut;
        assert_eq!(world.log(), format!("true{} x{last}y{last}", counts.join(",")), "cut {cut}");
        assert_eq!(waits, 7usize.div_ceil(cut), "cut {cut}");
    }
}

#[test]
fn runs_that_wait_do_not_disturb_each_other() {
    let script = r#"
        function string.mark(s) return s .. mine end
        mine = avi.l4.read(1)
        avi.l4.collect(2)
        avi.vs.log(mine, ("m"):mark(), #string.rep("x", 3), tostring(other))
        other = mine
    "#;
    let mut world = World::new(script);
    let mut runs = Vec::new();
    for first in [b"a", b"b", b"c"] {
        world.client = first.to_vec();
        runs.push((world.waits().0, first[0]));
    }
    for (run, first) in runs.into_iter().rev() {
        world.next_flow().client = vec![first, b'!'];
        assert!(matches!(world.resume(run), Outcome::Done), "{:?}", world.record.error);
        let name = char::from(first);
        assert_eq!(world.log(), format!("{name}m{name}3nil"));
    }
}

#[test]
fn a_cancelled_run_never_goes_on() {
    let mut world = World::new("avi.l4.collect(5) avi.vs.log('on')").with("1");
    let (run, _) = world.waits();
    world.policy.cancel(run);
    assert_eq!(world.policy.waiting(), 0);
    world.client = b"12345".to_vec();
    assert!(matches!(world.resume(run), Outcome::Failed(ScriptFailure::Error)));
    assert_eq!(world.log(), "");
    // Its place is used again, its id is not.
    world.client = b"1".to_vec();
    let (second, _) = world.waits();
    assert_ne!(run, second);
    world.policy.cancel(run);
    assert_eq!(world.policy.waiting(), 1);
}

#[test]
fn no_more_runs_wait_than_the_limit_allows() {
    let mut config = snapshot(vec![set("avi.l4.collect(5)")]);
    config.limits.waiting = 3;
    let mut world = World::of(config);
    let runs: Vec<_> = (0..3).map(|_| world.waits().0).collect();
    let text = world.failed(ScriptFailure::TooManySuspended);
    assert!(text.contains("3 runs wait already"), "{text}");
    world.policy.cancel(runs[1]);
    world.waits();
    assert_eq!(world.policy.report()[0].errors, 1);
}

#[test]
fn collect_is_an_error_where_nothing_more_can_come() {
    let mut world = World::new("avi.l4.collect(5)").with("123");
    world.can_wait = false;
    let text = world.failed(ScriptFailure::Error);
    assert!(text.starts_with("request.lua:1: avi.l4.collect: "), "{text}");
    // It could wait at first, and cannot any more.
    world.next_flow().can_wait = true;
    let (run, _) = world.waits();
    world.can_wait = false;
    assert!(matches!(world.resume(run), Outcome::Failed(ScriptFailure::Error)));
    assert_eq!(world.policy.waiting(), 0);
}

#[test]
fn sets_run_in_order_and_a_wait_holds_up_the_later_ones() {
    let mut first = set("avi.vs.log('1') avi.l4.collect(2) x = 1 avi.vs.log('1')");
    let mut second = set("avi.vs.log('2', x) avi.l4.collect(3) avi.vs.log('2')");
    first.name = "first".to_owned();
    second.name = "second".to_owned();
    second.pools.clear();
    let mut third = set("");
    third.request = None;
    third.response = Some(source("response.lua", "avi.vs.log('3')"));
    let mut world = World::of(snapshot(vec![first, third, second]));
    let (run, need) = world.waits();
    assert_eq!((need, world.log().as_str()), (2, "1"));
    world.client = b"..".to_vec();
    let Outcome::Suspended { run, need: 3 } = world.resume(run) else { panic!() };
    assert_eq!(world.log(), "112nil");
    world.client = b"...".to_vec();
    assert!(matches!(world.resume(run), Outcome::Done));
    assert_eq!(world.log(), "112nil2");
    world.event = Event::Response;
    world.next_flow();
    assert_eq!(world.logged(), "3");
}

#[test]
fn a_failed_run_ends_the_later_sets_too() {
    let mut world = World::of(snapshot(vec![set("local x = nil + 1"), set("avi.vs.log('2')")]));
    let text = world.failed(ScriptFailure::Error);
    assert!(text.starts_with("request.lua:1: attempt to perform arithmetic on a nil value"), "{text}");
    assert_eq!(world.log(), "");
    let report = world.policy.report();
    assert_eq!((report[0].runs, report[0].errors, report[1].runs), (1, 1, 0));
}

#[test]
fn ds_done_ends_later_runs_of_its_event_but_not_this_one() {
    for call in ["avi.l4.ds_done()", "avi.vs.ds_done()"] {
        let mut both = set(format!("{call} avi.vs.log('q')"));
        both.response = Some(source("response.lua", format!("avi.vs.log('r') {call}")));
        let mut world = World::of(snapshot(vec![both, set("avi.vs.log('2')")]));
        assert_eq!(world.logged(), "q2");
        assert_eq!(world.logged(), "q2");
        world.event = Event::Response;
        assert_eq!(world.logged(), "q2r");
        assert_eq!(world.logged(), "q2r");
        let runs: Vec<u64> = world.policy.report().iter().map(|r| r.runs).collect();
        assert_eq!(runs, [1, 1, 1]);
    }
}

#[test]
fn an_error_tells_file_line_and_frames() {
    let script = "\n\nlocal function inner(p)\n  return p.x.y\nend\nfunction outer(p)\n  local r = inner(p)\n  return r\nend\nouter({})";
    let text = World::new(script).failed(ScriptFailure::Error);
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    assert_eq!(
        lines,
        [
            "request.lua:4: attempt to index field 'x' (a nil value)",
            "stack traceback:",
            "request.lua:4: in function 'inner'",
            "request.lua:7: in function 'outer'",
            "request.lua:10: in main chunk",
        ]
    );
}

#[test]
fn any_error_value_is_described() {
    for (script, expected) in [
        ("error('boom', 0)", "boom"),
        ("error({})", "error with a table value"),
        ("error()", "error with a nil value"),
        ("error(42, 0)", "42"),
        ("error(true)", "error with a boolean value"),
        ("error(avi)", "error with a userdata value"),
        ("error('a\\0b\\255', 0)", "a\0b\u{fffd}"),
    ] {
        let text = World::new(script).failed(ScriptFailure::Error);
        assert_eq!(text.lines().next(), Some(expected), "{script}");
    }
}

#[test]
fn bom_crlf_and_a_comment_at_the_end_load() {
    let mut world = World::new(b"\xef\xbb\xbfavi.vs.log('a')\r\navi.vs.log('b')\r\n-- end");
    assert_eq!(world.logged(), "ab");
    let text = World::new(b"\xef\xbb\xbf\r\n\r\nerror('x')").failed(ScriptFailure::Error);
    assert!(text.starts_with("request.lua:3: x"), "{text}");
}

#[test]
fn a_profile_shows_the_lines_where_the_time_goes() {
    let script = "local function cold()\n  return 1\nend\nlocal x = cold()\nfor i = 1, 2000 do\n  x = x + i\nend\navi.vs.log(x)";
    let mut set = set(script);
    set.response = Some(source("response.lua", "for i = 1, 2000 do\n  local y = i\nend"));
    let mut world = World::of(snapshot(vec![set]));
    assert_eq!(world.policy.end_profile(), ScriptProfile::default());
    world.policy.start_profile(ScriptSetId(0), Event::Request);
    for _ in 0..20 {
        assert!(matches!(world.next_flow().start(), Outcome::Done));
    }
    world.event = Event::Response;
    assert!(matches!(world.next_flow().start(), Outcome::Done));
    let profile = world.policy.end_profile();
    assert_eq!(profile.runs, 20);
    let samples: u64 = profile.lines.iter().map(|line| line.samples).sum();
    let hot: u64 =
        profile.lines.iter().filter(|line| (5..=7).contains(&line.line)).map(|line| line.samples).sum();
    assert!(samples > 20 * 30 && hot * 100 > samples * 95, "{profile:?}");
    assert!(profile.lines.iter().all(|line| line.source == "request.lua"), "{profile:?}");
    let time: u64 = profile.lines.iter().map(|line| line.nanoseconds).sum();
    assert!(time <= profile.nanoseconds && time * 2 > profile.nanoseconds, "{profile:?}");
    // It is over.
    world.event = Event::Request;
    assert!(matches!(world.next_flow().start(), Outcome::Done));
    assert_eq!(world.policy.end_profile(), ScriptProfile::default());
}

#[test]
fn short_scripts_are_seen_too() {
    let mut world = World::new("avi.vs.log(1)");
    world.policy.start_profile(ScriptSetId(0), Event::Request);
    for _ in 0..1000 {
        assert!(matches!(world.next_flow().start(), Outcome::Done));
    }
    let profile = world.policy.end_profile();
    assert_eq!(profile.runs, 1000);
    assert!(profile.lines.iter().any(|line| line.line == 1 && line.samples > 10), "{profile:?}");
}

#[test]
fn a_function_of_the_api_is_in_tracebacks_by_its_last_name() {
    // The first is contained, the second is not.
    for script in ["avi.vs.log(1)\navi.pool.select('nowhere')", "x = 1\navi.pool.select('nowhere')"] {
        let text = World::new(script).failed(ScriptFailure::Error);
        let frames: Vec<&str> = text.lines().skip(1).collect();
        assert_eq!(
            frames,
            ["stack traceback:", "    [C]: in function 'select'", "    request.lua:2: in main chunk"],
            "{text}"
        );
    }
}

/// What a script says that forgets to call a function of the API.
#[test]
fn a_function_of_the_api_that_is_not_called_is_a_field_in_errors() {
    for (script, expected) in [
        (
            "avi.vs.log('from ' .. avi.vs.client_ip)",
            "attempt to concatenate field 'client_ip' (a function value)",
        ),
        ("avi.vs.log(avi.vs.client_ip:sub(1, 3))", "attempt to index field 'client_ip' (a function value)"),
        ("avi.vs.log(avi.vs.port + 1)", "attempt to perform arithmetic on field 'port' (a function value)"),
        ("avi.vs.log(#avi.l4.read)", "attempt to get length of field 'read' (a function value)"),
        (
            "local x, y = avi.vs.port() .. avi.vs.port, avi.vs.ip",
            "attempt to concatenate field 'port' (a function value)",
        ),
    ] {
        let (contained, other) = (script.to_owned(), format!("x = 1 {script}"));
        for script in [contained, other] {
            let text = World::new(&script).failed(ScriptFailure::Error);
            let first = text.lines().next().unwrap_or_default();
            assert_eq!(first, format!("request.lua:1: {expected}"), "{script}");
            assert!(!text.contains('\u{e000}'), "{text}");
        }
    }
}
