//! Nothing that a script does takes longer than its budget or more memory than its limit.

#![allow(clippy::unwrap_used, reason = "test support")]

mod world;

use dataplane::policy::{Outcome, Policy, ScriptFailure};
use smoltcp::time::Duration;
use world::{World, set, snapshot};

/// On the test clock a thousand instructions are a microsecond; the budget is a millisecond.
#[test]
fn endless_scripts_are_stopped_however_they_hide() {
    let pattern = "('a'):rep(300)";
    for script in [
        "while true do end".to_owned(),
        "repeat until false".to_owned(),
        "for i = 1, 1e12 do end".to_owned(),
        "local function f() return f() end f()".to_owned(),
        "pcall(function() while true do end end)".to_owned(),
        "while true do pcall(function() while true do end end) end".to_owned(),
        "while true do xpcall(function() error('x') end, function() while true do end end) end".to_owned(),
        "xpcall(function() while true do end end, function() while true do end end) while true do end".to_owned(),
        "local t = setmetatable({}, { __index = function(t, k) while true do end end }) return t.x".to_owned(),
        "local t = setmetatable({}, { __lt = function() while true do end end }) return t < t".to_owned(),
        "local t = setmetatable({}, { __tostring = function() while true do end end }) tostring(t)".to_owned(),
        "local t = setmetatable({}, { __tostring = function() while true do end end }) string.format('%s', t)".to_owned(),
        "('x'):rep(100):gsub('x', function() while true do end end)".to_owned(),
        "while true do ('x'):rep(1000000) end".to_owned(),
        "local s = ('1'):rep(5000) for i = 1, 2000 do tonumber(s) end".to_owned(),
        "while true do local s = ('x'):rep(10000):gsub('x', 'yy') end".to_owned(),
        "while true do for w in ('a b c'):gmatch('%a') do end end".to_owned(),
        "for c in ('x'):rep(1e6):gmatch('()') do end".to_owned(),
        "local t = {} for i = 1, 20000 do t[i] = -i end table.sort(t)".to_owned(),
        "table.sort({3, 2, 1, 5}, function() while true do end end)".to_owned(),
        "while true do table.sort({3, 2, 1, 5, 6, 7}, function() return true end) end".to_owned(),
        "while true do local t = {} for i = 1, 100 do t[i] = 'x' end table.concat(t) end".to_owned(),
        format!("string.find({pattern}, '.-.-.-.-b')"),
        format!("string.match({pattern}, '.*.*.*.*.*b')"),
        format!("while true do pcall(string.find, {pattern}, '.-.-.-.-b') end"),
        format!("pcall(string.gsub, {pattern}, '.-.-.-.-b', '')"),
        format!("for a in {pattern}:gmatch('a?a?a?a?a?.-.-.-b') do end"),
        "string.find(('('):rep(60000), '%b()')".to_owned() + " while true do string.find(('('):rep(60000), '.-%b()') end",
        "string.find(('a'):rep(60000), ('a'):rep(30000) .. '%d')".to_owned() + " while true do end",
        "local s = ('a'):rep(60000) string.find(s .. s, '(a*)%1b') while true do end".to_owned(),
        "require 'spin'".to_owned(),
    ] {
      // As they are, and with something that gives them worlds of their own.
      for script in [script.clone(), format!("opened = 1 {script}")] {
        println!("{script}");
        let mut one = set(&script);
        one.parsers.push(("spin".to_owned(), world::source("spin.lua", "while true do end")));
        let mut world = World::of(snapshot(vec![one, set("avi.vs.log('later set')")]));
        let text = world.failed(ScriptFailure::Budget);
        assert!(text.contains("the time budget of the run is over"), "{script}: {text}");
        assert_eq!(world.log(), "", "{script}");
        let report = &world.policy.report()[0];
        assert_eq!((report.errors, report.budget_stops), (1, 1), "{script}");
        assert!(report.run_time.max() < 1_200_000, "{script}: {} ns", report.run_time.max());
      }
    }
}

#[test]
fn the_traceback_of_a_stopped_run_says_where() {
    let text = World::new("local function spin()\n  while true do\n  end\nend\nspin()")
        .failed(ScriptFailure::Budget);
    assert!(text.contains("in function 'spin'"), "{text}");
    assert!(text.contains("request.lua:5: in main chunk"), "{text}");
}

#[test]
fn the_budget_is_for_the_whole_run_but_not_for_the_time_it_waits() {
    // Each part takes about 0.3 ms on the test clock; the fourth is too much.
    let script = "for i = 1, 8 do avi.l4.collect(i) for j = 1, 300000 do end avi.vs.log(i) end";
    let mut world = World::new(script);
    let mut outcome = world.start();
    while let Outcome::Suspended { run, need } = outcome {
        for _ in 0..5000 {
            world::clock();
        }
        world.client.resize(need, b'.');
        outcome = world.resume(run);
    }
    assert!(matches!(outcome, Outcome::Failed(ScriptFailure::Budget)), "{outcome:?}");
    assert_eq!(world.log(), "123");
}

#[test]
fn long_results_are_refused_before_they_are_made() {
    for (script, expected) in [
        ("('x'):rep(1e9)", "string.rep: result is longer than 1048576 bytes"),
        ("string.rep('x', 1e9, ',')", "string.rep: result is longer than 1048576 bytes"),
        ("(''):rep(1e9, 'yy')", "string.rep: result is longer than 1048576 bytes"),
        ("string.rep('', 1e7, 5)", "string.rep: result is longer than 1048576 bytes"),
        ("string.rep(5, 1e6, 12)", "string.rep: result is longer than 1048576 bytes"),
        (
            "local s = ('x'):rep(1000) table.concat({s:rep(500), s:rep(600)})",
            "table.concat: result is longer",
        ),
        (
            "local s, t = ('x'):rep(20000), {} for i = 1, 100 do t[i] = s end table.concat(t, '', 1.5, 100)",
            "table.concat: result is longer",
        ),
        (
            "local s, t = ('x'):rep(20000), {} for i = 1, 100 do t[i] = s end table.concat(t, '', '1.5', '100')",
            "table.concat: result is longer",
        ),
        (
            "local s, t = ('x'):rep(99999), {} for i = -2147483648, -2147483600 do t[i] = s end \
             table.concat(t, '', -1e15, -2147483601)",
            "table.concat: result is longer",
        ),
        ("table.concat({}, ' ', 1e15, 1e15)", "table for 'concat'"),
        (
            "local s = ('x'):rep(1048576) \
             local function index(t, i) t[1], t[i] = s, s return 'x' end \
             table.concat(setmetatable({ 'x' }, { __index = index }), '', 1, 3)",
            "table for 'concat'",
        ),
        ("local s = ('x'):rep(1000) s:rep(100):gsub('x', ('y'):rep(20))", "string.gsub: result is longer"),
        ("('x'):rep(100):gsub('x', function() return ('y'):rep(20000) end)", "string.gsub: result is longer"),
        ("string.format('%1000d', 1)", "to 'format'"),
        ("string.format(('x'):rep(100000))", "string.format: format is longer than 65536 bytes"),
        (
            "local t = {} for i = 1, 200 do t[i] = i end string.format('x', unpack(t))",
            "string.format: more than 100",
        ),
        ("os.date(('%c'):rep(1000))", "os.date: format is longer than 256 bytes"),
    ] {
        let text = World::new(script).failed(ScriptFailure::Error);
        assert!(text.starts_with("request.lua:1: "), "{script}: {text}");
        assert!(text.contains(expected), "{script}: {text}");
    }
}

#[test]
fn memory_is_bounded_and_given_back() {
    for script in [
        "local t = {} for i = 1, 1e9 do t[i] = ('x'):rep(1000) .. i end",
        "local s = ('x'):rep(1000000) while true do s = s .. s end",
        "local t, n = {}, 0 while true do n = n + 1 t = { t, ('y'):rep(100000) .. n } end",
    ] {
        let mut config =
            snapshot(vec![set(format!("if avi.l4.read() == 'bomb' then {script} end avi.vs.log('ok')"))]);
        config.limits.script_memory = 8 << 20;
        config.limits.script_budget = Duration::from_secs(100);
        let mut world = World::of(config);
        for _ in 0..3 {
            world.next_flow().client = b"bomb".to_vec();
            let text = world.failed(ScriptFailure::Memory);
            assert!(text.contains("not enough memory"), "{text}");
            assert!(world.policy.memory() < 4 << 20, "{}", world.policy.memory());
            world.next_flow().client.clear();
            assert_eq!(world.logged(), "ok");
        }
    }
}

/// The most memory that this process has ever had, in bytes.
fn peak() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() * 1024
}

#[test]
fn logging_long_texts_takes_no_memory() {
    let text = "local s = ('x'):rep(1048576) s = s .. s s = s .. s ";
    for call in ["avi.vs.log", "avi.vs.debuglog"] {
        let script = format!("{text}{call}(1, {}{{}})", "s, ".repeat(100));
        let mut config = snapshot(vec![set(&script)]);
        config.limits.script_budget = Duration::from_secs(100);
        let mut world = World::of(config);
        let before = peak();
        // All arguments are looked at all the same.
        let text = world.failed(ScriptFailure::Error);
        assert!(text.contains("bad argument #102 (string, number, boolean or nil expected"), "{text}");
        let more = peak() - before;
        assert!(more < 64 << 20, "{call}: {more} bytes more");
    }
    let kept = |script: &str| world::run(script, "").len();
    assert_eq!(kept("avi.vs.log(('x'):rep(250), 123456789)"), 256);
    assert_eq!(kept("avi.vs.log(('x'):rep(255), true, nil)"), 256);
    assert_eq!(kept("avi.vs.log(('x'):rep(256), 1)"), 256);
}

#[test]
fn a_memory_error_that_is_caught_does_not_starve_the_next_run() {
    let mut config = snapshot(vec![set(
        "if avi.l4.read() == 'bomb' then keep = {} pcall(function() while true do keep[#keep + 1] = ('x'):rep(99999) .. #keep end end) end avi.vs.log('ok')",
    )]);
    config.limits.script_memory = 8 << 20;
    config.limits.script_budget = Duration::from_secs(100);
    let mut world = World::of(config).with("bomb");
    let _ = world.start();
    world.next_flow().client.clear();
    assert_eq!(world.logged(), "ok");
}

#[test]
fn endless_recursion_is_an_error() {
    for script in [
        "local function f() return 1 + f() end f()",
        // At the end of the stack there is no room for the hook: nothing may go on there.
        "local function f() while true do pcall(f) end end f()",
        "local function f() while true do xpcall(f, function() return 1 end) end end f()",
        "local function f() while true do xpcall(f, f) end end f()",
        "local function e() error(e) end while true do xpcall(e, e) end",
        "local function spin() for i = 1, 1e4 do end end \
         local function f(n) if n == 0 then while true do pcall(spin) end end return 1 + f(n - 1) end \
         for n = 1, 1e6 do f(n * 100) end",
        "local function f(n) while true do pcall(function(...) return f(...) end, n, n, n, n) end end f(1)",
        "local t = setmetatable({}, {}) getmetatable(t).__index = function(t, k) return t[k] end return t.x",
    ] {
        for script in [script.to_owned(), format!("opened = 1 {script}")] {
            println!("{script}");
            let mut world = World::new(&script);
            let outcome = world.start();
            let text = world.record.error.clone().unwrap_or_default();
            match outcome {
                Outcome::Failed(ScriptFailure::Error) => {
                    let known = text.contains("stack overflow") || text.contains("error in error handling");
                    assert!(known, "{script}: {text}");
                }
                Outcome::Failed(ScriptFailure::Budget) => {}
                other => panic!("{script}: {other:?}"),
            }
        }
    }
}

#[test]
fn garbage_does_not_pile_up() {
    let mut world =
        World::new("local t = {} for i = 1, 50 do t[i] = avi.l4.read() .. i end").with([b'x'; 1000]);
    let mut most = 0;
    for _ in 0..5000 {
        world.next_flow().start();
        most = most.max(world.policy.memory());
    }
    assert!(most < 4 << 20, "{most}");
    for _ in 0..2000 {
        world.policy.idle();
    }
    assert!(world.policy.memory() < 1 << 20, "{}", world.policy.memory());
}

#[test]
fn a_script_that_overruns_again_and_again_is_quarantined_for_a_while() {
    let mut world =
        World::new("if avi.l4.read() == 'spin' then while true do end end avi.vs.log('ok')").with("spin");
    // Nine overruns and a good run, then ten overruns: only those in a row count.
    for i in 0..19 {
        world.next_flow().client = if i == 9 { b"good".to_vec() } else { b"spin".to_vec() };
        match world.start() {
            Outcome::Done => assert_eq!(i, 9),
            Outcome::Failed(ScriptFailure::Budget) => assert_ne!(i, 9),
            other => panic!("{i}: {other:?}"),
        }
    }
    world.next_flow();
    world.start();
    world.next_flow();
    let text = world.failed(ScriptFailure::Quarantined);
    assert!(text.contains("request.lua: quarantined"), "{text}");
    let report = &world.policy.report()[0];
    assert_eq!((report.runs, report.budget_stops, report.quarantined), (20, 19, 1));
    // After a minute one run is let through: it overruns, and the next are refused again.
    world.now += Duration::from_secs(i64::unsigned_abs(scripting::QUARANTINE_SECONDS));
    world.failed(ScriptFailure::Budget);
    world.failed(ScriptFailure::Quarantined);
    // After another minute a good run frees it.
    world.now += Duration::from_secs(i64::unsigned_abs(scripting::QUARANTINE_SECONDS));
    world.next_flow().client = b"good".to_vec();
    assert_eq!(world.logged(), "ok");
    assert_eq!(world.next_flow().logged(), "ok");
}

#[test]
fn a_script_that_is_late_again_and_again_is_quarantined_though_nothing_stopped_it() {
    // A run that needs no look at the clock takes a microsecond on the test clock.
    for (microseconds, late) in [(1, true), (2, false)] {
        let mut config = snapshot(vec![set("avi.vs.log('ok') if avi.l4.read() ~= '' then error('x') end")]);
        config.limits.script_budget = Duration::from_micros(microseconds);
        let mut world = World::of(config);
        for i in 0..10 {
            // With errors of its own or not.
            world.next_flow().client = vec![b'x'; i % 2];
            assert_eq!(matches!(world.start(), Outcome::Done), i % 2 == 0);
            assert_eq!(world.log(), "ok");
        }
        world.next_flow().client.clear();
        match world.start() {
            Outcome::Failed(ScriptFailure::Quarantined) => assert!(late),
            Outcome::Done => assert!(!late),
            other => panic!("{other:?}"),
        }
        let report = &world.policy.report()[0];
        assert_eq!((report.errors, report.budget_stops, report.quarantined), (5, 0, u64::from(late)));
    }
}
