//! Contained scripts run without a world of their own, straight ones without a hook, too: that must not show.

#![allow(clippy::unwrap_used, reason = "test support")]

mod world;

use dataplane::policy::{Event, Outcome, Policy, ScriptFailure};
use dataplane::script_trace::{Detail, ScriptStep, ScriptTrace};
use dataplane::snapshot::ScriptSetId;
use script_check::{Contained, contained};
use smoltcp::time::Duration;
use world::{World, set, snapshot, source};

/// The same script with something in it that no contained one has.
fn open(script: &str) -> String {
    let open = format!("do local function unused() string.x = 1 end end {script}");
    assert!(contained(open.as_bytes()).is_none(), "{script}");
    open
}

fn is_straight(script: &str) -> bool {
    matches!(contained(script.as_bytes()), Some(Contained { straight: true, .. }))
}

/// All that a run of a script shows, resumed with a longer payload where it waits.
fn shown(script: &str, event: Event, detail: Detail) -> String {
    let mut both = set(script);
    both.response = Some(source("request.lua", script));
    let mut world = World::of(snapshot(vec![both])).with("GET /");
    world.event = event;
    let mut text = String::new();
    for _ in 0..3 {
        world.next_flow().client = b"GET /".to_vec();
        world.server = world.client.clone();
        world.record.trace = Some(Box::new(ScriptTrace::new(1000, detail)));
        let mut outcome = world.start();
        while let Outcome::Suspended { run, need } = outcome {
            text.push_str(&format!("wait {need}\n"));
            world.client.resize(need + 1, b'.');
            world.server = world.client.clone();
            outcome = world.resume(run);
        }
        let trace = world.record.trace.take().unwrap();
        for step in trace.steps() {
            match step {
                ScriptStep::End { failure, .. } => text.push_str(&format!("end {failure:?}\n")),
                other => text.push_str(&format!("{other:?}\n")),
            }
        }
        text.push_str(&format!("{outcome:?} {:?}\n", world.record));
    }
    text
}

/// Straight scripts, with and without errors.
const STRAIGHT: &[&str] = &[
    "",
    "avi.pool.select('other')",
    "if avi.vs.port() == '1812' then\n  avi.pool.select('main')\nelse\n  avi.pool.select('other')\nend",
    "avi.l4.collect(9) avi.vs.log(avi.l4.read()) avi.l4.collect(12)\navi.vs.log(#avi.l4.read())",
    "local n = avi.l4.collect(9)\navi.vs.log(n, avi.l4.read():sub(2, 4), (' x'):upper())\navi.l4.collect(20)\nlocal s = 'a'\navi.vs.log(s:rep(3))",
    "local t = { GET = 'other', 'x' }\nlocal pool = t[avi.l4.read(3)]\nt.y = pool\navi.vs.log(t.y, t[1], t.z)\navi.pool.select(pool)",
    "avi.vs.reqvar.n = (avi.vs.reqvar.n or 1) + 1\navi.vs.log(avi.vs.reqvar.n)",
    "avi.vs.log(avi.vs.client_ip(), avi.vs.client_port(), avi.vs.ip(), avi.vs.name(), avi.SIG_ENABLE)",
    "avi.vs.table_insert('k', 'v')\nlocal v, left = avi.vs.table_lookup('k')\navi.vs.log(v, left)",
    "local ok, text = pcall(avi.pool.select, 'nowhere')\navi.vs.log(ok, text)\nlocal also = pcall(avi.l4.collect, 7)\navi.vs.log(also)",
    "avi.vs.log(tostring(nil), tonumber('0x10'), type(''), type({}), math.floor(2.5), bit.band(6, 3), os.date('%Y', 0))",
    "avi.vs.log(string.format('%d %s', 3, 'a'), table.concat({ 1, 2 }, ','), string.gsub('abc', 'b', { b = 'x' }))",
    "avi.vs.log(string.gsub('29', '%w', avi.l4.collect))",
    "avi.vs.log(('ab'):gsub('%w', string.upper))\nlocal step = string.gmatch('a b', '%a')\navi.vs.log(step(), step(), step())",
    "avi.vs.log(('x').nothing, (5 .. '').len)",
    // Errors.
    "\navi.pool.select('nowhere')",
    "\n\nlocal x = nil + 1",
    "local t = {}\nlocal u = t.x.y",
    "local x = ''\nx.y = 1",
    "local f = nil\nf()",
    "local s = 'x'\ns:nothing()",
    "avi.l4.read(99)",
    "avi.l4.collect()",
    "avi.l4.collect('x')",
    "avi.vs.log({})",
    "\nerror('boom')",
    "error({})",
    "assert(false, 'no')",
    "assert(nil)",
    "string.rep()",
    "\nstring.rep('x', 1e9)",
    "\nlocal s = ('x'):rep(1e9)",
    "string.format('%d', 'x')",
    "table.concat({ {} })",
    "local s = 'x' < 1",
    "avi.vs.persist('k')\navi.vs.close_conn(true)",
    "return 5, 'x'",
];

/// Contained scripts with loops and functions, with and without errors.
const WINDING: &[&str] = &[
    "local function f(n)\n  if n == 0 then\n    return avi.l4.collect(9)\n  end\n  return f(n - 1)\nend\navi.vs.log(f(3), f(2))",
    "local t = {}\nfor i = 1, 3 do\n  t[#t + 1] = avi.l4.read(i)\nend\navi.vs.log(table.concat(t, '-'))\ntable.sort(t)\ntable.insert(t, 1)",
    "local t = setmetatable({}, { __index = function(_, k) return k .. '!' end })\navi.vs.log(t.x, rawget(t, 'x'), getmetatable(t) ~= nil)",
    "for k, v in pairs({ a = 1 }) do\n  avi.vs.log(k, v, select('#', unpack({ 1, 2 })))\nend\nprint('x')",
    "local n = 0\nwhile true do\n  n = avi.l4.collect(n + 3)\n  if n > 12 then break end\nend\navi.vs.log(n)",
    "for word in avi.l4.read():gmatch('%a') do\n  avi.vs.log(word:lower())\nend",
    "avi.vs.log(xpcall(function() local x = nil + 1 end, function(e) return '<' .. e .. '>' end))",
    "local M = {}\nfunction M:f(x)\n  return self, x\nend\nlocal _, x = M:f(5)\navi.vs.log(x, tostring(getmetatable('')))",
    "table.insert('x', 1)",
    "rawset('x', 1, 1)",
    "\nlocal function f()\n  local x = nil\n  return x.y\nend\nlocal function g()\n  return f()\nend\nlocal z = g()",
    "local function f()\n  avi.pool.select('nowhere')\nend\nlocal ok, e = pcall(f)\navi.vs.log(e)\nf()",
    "local function f()\n  return avi.pool.select('nowhere')\nend\nf()",
    "local function f() return 1 + f() end\nf()",
    "table.sort({ 1, 'x' })",
    "for i = 1, 'x' do end",
    "goto over\navi.vs.log('never')\n::over::\navi.vs.log('on')",
];

#[test]
fn a_contained_script_does_what_it_does_in_a_world_of_its_own() {
    assert!(STRAIGHT.iter().all(|script| is_straight(script)));
    for script in STRAIGHT.iter().chain(WINDING) {
        assert!(contained(script.as_bytes()).is_some(), "{script}");
        for event in [Event::Request, Event::Response] {
            let (one, other) =
                (shown(script, event, Detail::Calls), shown(&open(script), event, Detail::Calls));
            assert_eq!(one, other, "{script}");
        }
    }
}

/// The lines after the first that a run takes, in their order.
fn lines(script: &str) -> Vec<u32> {
    let mut world = World::new(script).with("GET / HTTP/1.1 and more");
    world.record.trace = Some(Box::new(ScriptTrace::new(1000, Detail::Lines)));
    let _ = world.start();
    let trace = world.record.trace.take().unwrap();
    let line = |step: &ScriptStep| match step {
        ScriptStep::Line(place) if place.line > 1 => Some(place.line),
        _ => None,
    };
    let mut lines: Vec<u32> = trace.steps().iter().filter_map(line).collect();
    // A name that an environment makes when it is asked for is a step aside.
    lines.dedup();
    lines
}

#[test]
fn its_lines_are_noted_like_those_of_any_script() {
    for script in STRAIGHT.iter().chain(WINDING) {
        let found = lines(script);
        assert_eq!(found, lines(&open(script)), "{script}");
        assert_eq!(script.contains('\n'), !found.is_empty(), "{script}: {found:?}");
    }
}

/// Contained scripts, and what each logs with "1111" as its payload.
const LOOKING_FOR_MARKS: &[(&str, &str)] = &[
    ("avi.l4.collect(4)\navi.vs.log(avi.l4.read(1), ('x').mark, ('a'):upper())", "nilA"),
    (
        "avi.l4.collect(4)\navi.vs.log(avi.l4.read(1), \
            (string.gsub('mark', '%w+', setmetatable({}, { __index = '' }))), string.upper('a'))",
        "markA",
    ),
];

#[test]
fn contained_runs_and_others_wait_between_each_other_and_keep_apart() {
    let other = "string.mark = avi.l4.read(1) string.upper = string.lower avi.l4.collect(4) \
        avi.vs.log(('x').mark, ('A'):upper()) mark = 1";
    assert!(contained(other.as_bytes()).is_none());
    for (plain, shown) in LOOKING_FOR_MARKS {
        assert!(contained(plain.as_bytes()).is_some());
        let mut both = set(plain);
        both.response = Some(source("response.lua", other));
        let mut world = World::of(snapshot(vec![both]));
        for order in 0..24_usize {
            wait_in_turn(&mut world, order, shown);
        }
    }
}

/// Six runs of both events wait, in an order of many, and end in another one.
fn wait_in_turn(world: &mut World, order: usize, shown: &str) {
    let mut waiting = Vec::new();
    for n in 0..6_u8 {
        world.next_flow().client = vec![b'0' + n];
        world.event = if (order >> (n % 3)) & 1 == 0 { Event::Request } else { Event::Response };
        world.server = world.client.clone();
        waiting.push((world.waits().0, world.event, n));
    }
    waiting.rotate_left(order % 6);
    for (run, event, n) in waiting {
        world.next_flow().client = vec![b'0' + n; 4];
        world.server = world.client.clone();
        world.event = event;
        assert!(matches!(world.resume(run), Outcome::Done), "{:?}", world.record.error);
        let expected = if event == Event::Request { format!("{n}{shown}") } else { format!("{n}a") };
        assert_eq!(world.log(), expected);
    }
}

#[test]
fn a_budget_that_ends_while_a_view_is_left_keeps_nothing_of_it() {
    let other = "string.mark = 'secret' avi.l4.collect(4) avi.vs.log(('x').mark)";
    let plain =
        "avi.vs.log(('x').mark)\nlocal n = #avi.l4.read()\nfor i = 1, n do end\navi.l4.collect(n + 1)";
    let mut both = set(other);
    both.response = Some(source("response.lua", plain));
    let mut config = snapshot(vec![both]);
    // A run has no time left after its wait, so that the next look at the clock ends it.
    config.limits.script_budget = Duration::from_micros(2);
    let mut world = World::of(config);
    let begin = |world: &mut World, event: Event, payload: usize| {
        world.now += Duration::from_secs(100);
        world.next_flow().event = event;
        (world.client, world.server) = (vec![b'.'; payload], vec![b'.'; payload]);
        world.waits().0
    };
    let mut stopped = 0;
    for n in 0..6000 {
        let one = begin(&mut world, Event::Response, n % 601);
        let two = begin(&mut world, Event::Request, 1);
        world.next_flow().event = Event::Response;
        world.server = vec![b'.'; n % 601 + 1];
        stopped += usize::from(!matches!(world.resume(one), Outcome::Done));
        // Who goes on next: the one that sees the mark, or one that must not.
        if n % 2 == 0 {
            let probe = begin(&mut world, Event::Response, 1);
            assert_eq!(world.log(), "nil", "{n}");
            world.policy.cancel(probe);
        }
        world.next_flow().event = Event::Request;
        world.client = vec![b'.'; 4];
        if matches!(world.resume(two), Outcome::Done) {
            assert_eq!(world.log(), "secret", "{n}");
        }
    }
    assert!(stopped > 20, "{stopped}");
}

/// Calls of libraries that take long end with the budget, though nothing looks at the clock beside them.
#[test]
fn long_calls_of_libraries_are_stopped() {
    let long = "local _ = s:gsub('.', { x = 'y' }) ".repeat(8);
    for rest in [
        format!("s = s .. s {long}"),
        format!("s = s .. s {} {long}", "pcall(string.gsub, s, '.', { x = 'y' }) ".repeat(8)),
        "avi.vs.log(pcall(string.find, s, '.-.-.-.-b'))".to_owned(),
        "local _ = s:find('.-.-.-.-b')".to_owned(),
        "pcall(string.gsub, s, '.-.-.-.-b', '') avi.vs.log('on')".to_owned(),
        "local _ = s:find('[' .. ('a'):rep(20000) .. 'x]*')".to_owned(),
        "local _ = s:find('^[' .. ('a'):rep(20000) .. 'x]-b')".to_owned(),
        "local _ = s:gsub('', ('%0'):rep(2000))".to_owned(),
    ] {
        let script = format!("local s = avi.l4.read() {rest}");
        assert!(is_straight(&script), "{script}");
        let mut world = World::new(&script).with([b'x'; 60000]);
        for _ in 0..3 {
            let text = world.next_flow().failed(ScriptFailure::Budget);
            assert!(text.contains("the time budget of the run is over"), "{script}: {text}");
            assert!(text.contains("request.lua:1"), "{script}: {text}");
            assert_eq!(world.log(), "", "{script}");
        }
        let report = &world.policy.report()[0];
        assert!(report.run_time.max() < 1_200_000, "{script}: {} ns", report.run_time.max());
    }
}

/// On the test clock each call that looks at it takes a microsecond, and no other does.
#[test]
fn many_calls_with_long_texts_are_stopped() {
    for call in [
        "local _ = s:find(s)",
        "local _ = s:find('b', 1, true)",
        "local _ = s:contains(s)",
        "local _ = s:beginswith(s)",
        "local _ = s:endswith(s)",
        "local _ = s:gsub('^b', s)",
        "pcall(avi.pool.select, s)",
        "pcall(string.find, 'b', s)",
    ] {
        let script = format!("local s = avi.l4.read() {} avi.vs.log('on')", format!("{call} ").repeat(40));
        assert!(is_straight(&script), "{script}");
        let mut config = snapshot(vec![set(&script)]);
        config.limits.script_budget = Duration::from_micros(30);
        let mut world = World::of(config).with([b'x'; 60000]);
        for _ in 0..3 {
            let text = world.next_flow().failed(ScriptFailure::Budget);
            assert!(text.contains("the time budget of the run is over"), "{call}: {text}");
            assert_eq!(world.log(), "", "{call}");
        }
        // Short texts take no time.
        let mut world = World::of((*world.snapshot).clone()).with("x");
        assert_eq!(world.logged(), "on", "{call}");
    }
}

#[test]
fn a_loop_of_a_library_is_stopped_after_a_wait_in_it_too() {
    // The function waits for as many bytes as the digit says: first for nine, then for none.
    let script = "local s = '9' .. ('0'):rep(60000) local _ = s:gsub('.', avi.l4.collect)";
    let other = "avi.vs.log(1)";
    assert!(is_straight(script) && is_straight(other));
    let mut both = set(script);
    both.response = Some(source("response.lua", other));
    let mut world = World::of(snapshot(vec![both])).with("x");
    let (run, need) = world.waits();
    assert_eq!(need, 9);
    // After these no hook is set any more.
    world.event = Event::Response;
    for _ in 0..100 {
        assert_eq!(world.next_flow().logged(), "1");
    }
    world.event = Event::Request;
    world.client.resize(9, b'x');
    assert!(matches!(world.resume(run), Outcome::Failed(ScriptFailure::Budget)));
}

#[test]
fn memory_is_bounded_for_straight_scripts_too() {
    let script = format!("local s = avi.l4.read() {} avi.vs.log('ok')", "s = s .. s ".repeat(20));
    assert!(is_straight(&script));
    let mut config = snapshot(vec![set(&script)]);
    config.limits.script_memory = 8 << 20;
    let mut world = World::of(config).with([b'x'; 60000]);
    for _ in 0..3 {
        let text = world.next_flow().failed(ScriptFailure::Memory);
        assert!(text.contains("not enough memory"), "{text}");
        assert!(world.policy.memory() < 4 << 20, "{}", world.policy.memory());
    }
}

#[test]
fn straight_scripts_have_profiles() {
    let mut world = World::new("local x = avi.vs.port()\navi.vs.log(x)");
    for _ in 0..2 {
        world.policy.start_profile(ScriptSetId(0), Event::Request);
        for _ in 0..1000 {
            assert!(matches!(world.next_flow().start(), Outcome::Done));
        }
        let profile = world.policy.end_profile();
        assert_eq!(profile.runs, 1000);
        assert!(profile.lines.iter().any(|line| line.line == 2 && line.samples > 10), "{profile:?}");
        for _ in 0..50 {
            assert!(matches!(world.next_flow().start(), Outcome::Done));
        }
    }
}

#[test]
fn many_runs_leave_nothing_behind() {
    let mut world =
        World::new("local t = { avi.vs.client_port() } avi.vs.log(t[1], #avi.l4.read())").with("x");
    let mut most = 0;
    for port in 0..20000 {
        world.facts.key.source_port = port;
        assert_eq!(world.next_flow().logged(), format!("{port}1"));
        most = most.max(world.policy.memory());
    }
    assert!(most < 2 << 20, "{most}");
}
