//! What a script sees of Lua, and that it leaves nothing behind.

mod world;

use dataplane::policy::Policy;
use world::{World, run, set, snapshot, source};

#[test]
fn only_harmless_names_exist() {
    let listed = run(
        r#"
        local there = {}
        for _, name in ipairs({"assert", "bit", "collectgarbage", "coroutine", "debug", "dofile", "error", "ffi",
            "gcinfo", "getfenv", "getmetatable", "io", "ipairs", "jit", "load", "loadfile", "loadstring", "math",
            "module", "newproxy", "next", "os", "package", "pairs", "pcall", "print", "rawequal", "rawget", "rawset",
            "require", "select", "setfenv", "setmetatable", "string", "table", "tonumber", "tostring", "type",
            "unpack", "xpcall", "_G", "_VERSION", "avi"}) do
            if _G[name] ~= nil then there[#there + 1] = name end
        end
        avi.vs.log(table.concat(there, " ", 1, 16)) avi.vs.log(" ", table.concat(there, " ", 17))
        "#,
        "",
    );
    assert_eq!(
        listed,
        "assert bit error getmetatable ipairs math next os pairs pcall print rawequal rawget rawset require select \
         setmetatable string table tonumber tostring type unpack xpcall _G _VERSION avi"
    );
    for (script, expected) in [
        (
            "avi.vs.log(type(os.time()), type(os.date()), type(os.clock()), os.date('%Y', 0))",
            "numberstringnumber1970",
        ),
        (
            "avi.vs.log(os.execute, os.getenv, os.exit, os.remove, os.rename, os.tmpname, os.setlocale)",
            "nilnilnilnilnilnilnil",
        ),
        ("avi.vs.log(string.dump, string.gfind, ('x').dump)", "nilnilnil"),
        ("avi.vs.log(bit.band(12, 10), bit.tohex(255), math.floor(2.5), table.maxn({1, 2}))", "8000000ff22"),
        ("avi.vs.log(type(avi.SIG_ENABLE), tostring(undefined))", "userdatanil"),
    ] {
        assert_eq!(run(script, ""), expected, "{script}");
    }
}

#[test]
fn string_has_three_functions_more() {
    for (script, expected) in [
        (
            "avi.vs.log(string.beginswith('abc', 'ab'), string.beginswith('abc', 'AB'), ('abc'):beginswith(''))",
            "truefalsetrue",
        ),
        (
            "avi.vs.log(string.endswith('abc', 'bc'), ('abc'):endswith('abcd'), string.endswith('a.c', '.'))",
            "truefalsefalse",
        ),
        (
            "avi.vs.log(string.contains('a.c', '.'), ('abc'):contains('.'), ('a\\0b'):contains('\\0'))",
            "truefalsetrue",
        ),
        (
            "avi.vs.log(string.contains(123, 2), pcall(string.contains, nil, 'x'))",
            "truefalsestring.contains: bad argument #1 (string expected, got nil)",
        ),
    ] {
        assert_eq!(run(script, ""), expected, "{script}");
    }
}

#[test]
fn nothing_is_left_for_the_next_run_or_the_next_set() {
    // Each of these tries to leave a mark; the probe looks for it.
    let probe = "avi.vs.log(tostring(mark), tostring(string.mark), tostring(('x').mark), tostring(table.mark), \
        tostring(math.mark), tostring(bit.mark), tostring(os.mark), tostring(rawget(_G, 'mark')), ('ab'):upper(), \
        string.len('abc'), tostring(pairs == nil), type(require('mod')), tostring(require('mod').mark))";
    let clean = run_with_module(probe);
    assert_eq!(clean, "nilnilnilnilnilnilnilnilAB3falsetablenil");
    for attempt in [
        "mark = 1",
        "_G.mark = 1 rawset(_G, 'mark', 1)",
        "function string.mark() end string.upper = nil string.len = function() return 0 end",
        "rawset(string, 'mark', 1) rawset(string, 'upper', 1)",
        "table.mark = 1 math.mark = 1 bit.mark = 1 os.mark = 1",
        "table.insert(string, 1) rawset(table, 'mark', 1)",
        "string = { len = 1 } table = nil pairs = nil",
        "string = {} function string.len() return 0 end",
        "string = nil string.mark = 1",
        "avi = { vs = { log = function() end } }",
        "local g = _G for i = 1, 3 do g[i] = 'mark' end g.mark = 1",
        "local t = string local u = table t.mark = 1 u.mark = 1 t.mark = nil",
        "rawset(rawget(_G, '_G'), 'mark', 1)",
        "mark = 1 mark = nil _G = nil mark = 2",
        "local m = require('mod') m.mark = 1 m.x = nil",
        "pcall(setmetatable, string, {}) pcall(setmetatable, _G, {}) pcall(setmetatable, '', {})",
        "local m = getmetatable('') if m then m.__index = nil end",
        "local m = getmetatable(_G) if m then m.__index = nil end",
        "local m = getmetatable(string) if m then m.__index.mark = 1 end",
        "local m = getmetatable(avi) if m then m.__index = nil end pcall(rawset, avi, 'mark', 1)",
        "pcall(function() avi.vs.log = nil end) pcall(function() avi.mark = 1 end)",
        "pcall(rawset, avi.vs, 'log', nil) pcall(table.insert, avi.vs, 1)",
        "math.randomseed(1)",
        "string.mark = 1 error('x')",
        "string.mark = 1 while true do end",
    ] {
        let mut both = set(format!("if avi.l4.read() == 'mark' then {attempt} end {probe}"));
        both.parsers.push(("mod".to_owned(), source("mod.lua", MODULE)));
        let mut second = set(format!("if avi.l4.read() ~= 'mark' then return end {probe}"));
        second.parsers = both.parsers.clone();
        let mut world = World::of(snapshot(vec![both, second])).with("mark");
        let done = matches!(world.start(), dataplane::policy::Outcome::Done);
        if done {
            assert!(world.log().ends_with(&clean), "next set after {attempt}: {}", world.log());
        }
        world.next_flow().client.clear();
        assert_eq!(world.logged(), clean, "next run after {attempt}");
        world.policy.idle();
    }
}

const MODULE: &str =
    "local M = { x = 1 } hidden = 2 function string.in_module(s) return s .. '!' end return M";

fn run_with_module(script: &str) -> String {
    let mut one = set(script);
    one.parsers.push(("mod".to_owned(), source("mod.lua", MODULE)));
    World::of(snapshot(vec![one])).logged()
}

#[test]
fn modules_are_loaded_once_per_run_in_a_world_of_their_own() {
    for (script, expected) in [
        (
            "local a, b = require('mod'), require 'mod' avi.vs.log(tostring(a == b), a.x, tostring(hidden))",
            "true1nil",
        ),
        ("mine = 1 require('mod') avi.vs.log(('x'):in_module())", "x!"),
        (
            "local ok, e = pcall(require, 'nope') avi.vs.log(e)",
            "require: module 'nope' is not attached to this DataScript set",
        ),
        (
            "local ok, e = pcall(require) avi.vs.log(e)",
            "require: module 'nil' is not attached to this DataScript set",
        ),
    ] {
        assert_eq!(run_with_module(script), expected, "{script}");
    }
    let with = |module: &str, script: &str| {
        let mut one = set(script);
        one.parsers.push(("m".to_owned(), source("m.lua", module)));
        World::of(snapshot(vec![one])).with("payload")
    };
    assert_eq!(with("function f() return 5 end", "avi.vs.log(require('m').f())").logged(), "5");
    assert_eq!(with("return (...) .. avi.l4.read(3)", "avi.vs.log(require('m'))").logged(), "mpay");
    assert_eq!(with("avi.l4.collect(3) return avi.l4.read(3)", "avi.vs.log(require('m'))").logged(), "pay");
    let text = with("require 'm'", "require('m')").failed(dataplane::policy::ScriptFailure::Error);
    assert!(text.contains("module 'm' requires itself"), "{text}");
    let text = with("\nerror('broken')", "require('m')").failed(dataplane::policy::ScriptFailure::Error);
    assert!(text.starts_with("m.lua:2: broken"), "{text}");
}

#[test]
fn scripts_extend_string_for_themselves() {
    let script = r#"
        function string.fromhex(str)
            return (str:gsub('..', function(cc) return string.char(tonumber(cc, 16)) end))
        end
        function string.tohex(str)
            return (str:gsub('.', function(c) return string.format('%02X', string.byte(c)) end))
        end
        local payload = avi.l4.read()
        avi.vs.log(payload:tohex(), " ", string.tohex("\1\2"), " ", ("414243"):fromhex())
    "#;
    assert_eq!(run(script, b"\x00\x16\xff"), "0016FF 0102 ABC");
}

#[test]
fn libraries_behave_as_in_lua() {
    for (script, expected) in [
        ("local t = {3, 1, 2} table.sort(t) avi.vs.log(table.concat(t, ','))", "1,2,3"),
        (
            "local t = {'b', 'a', 'c'} table.sort(t, function(a, b) return a > b end) avi.vs.log(table.concat(t))",
            "cba",
        ),
        (
            "local t = {} for i = 1, 100 do t[i] = (i * 37) % 101 end table.sort(t) local ok = true for i = 2, 100 do ok = ok and t[i - 1] <= t[i] end avi.vs.log(tostring(ok))",
            "true",
        ),
        (
            "local ok, e = pcall(table.sort, {1, 'x'}) avi.vs.log(e)",
            "[weir]:0: attempt to compare string with number",
        ),
        (
            "avi.vs.log(table.concat({1, 2, 'x'}, '-', 2, 3), table.concat({}), table.concat({1, 2}, 0))",
            "2-x102",
        ),
        (
            "avi.vs.log(table.concat({ 1, 2, 'x' }, '-', 1.9, '2.9'), table.concat({ 1 }, ',', -0.5, 0 / 0))",
            "1-2",
        ),
        (
            "avi.vs.log(table.concat({ [-1] = 'a', [0] = 'b' }, 5, -1.5, 0), table.concat({ 'x' }, nil, nil, nil))",
            "a5bx",
        ),
        (
            "avi.vs.log(pcall(table.concat, { 1 }, ',', {}))",
            "falsebad argument #3 to 'concat' (number expected, got table)",
        ),
        (
            "avi.vs.log(pcall(table.concat, {1, {}}))",
            "falseinvalid value (table) at index 2 in table for 'concat'",
        ),
        ("avi.vs.log(('x'):rep(3), ('x'):rep(0), ('x'):rep(-1), ('ab'):rep(2, '-'))", "xxxab-ab"),
        ("avi.vs.log(string.format('%d %s %5.2f %q %x', 3, 'a', 1.5, 'q', 255))", "3 a  1.50 \"q\" ff"),
        ("avi.vs.log(tostring(select('#', 1, nil)), unpack({1, 2, 3}))", "2123"),
        ("local n = 0 for k, v in pairs({1, 2, x = 3}) do n = n + v end avi.vs.log(n)", "6"),
        ("avi.vs.log(xpcall(function(a) return a end, error, 5))", "true5"),
        (
            "local t = setmetatable({}, { __index = function(_, k) return k .. '?' end }) avi.vs.log(t.a)",
            "a?",
        ),
    ] {
        let found = run(script, "");
        let found = if found.contains("[weir]:") {
            format!("[weir]:0:{}", found.split(':').next_back().unwrap_or_default())
        } else {
            found
        };
        assert_eq!(found, expected, "{script}");
    }
}

/// The environment of a run that left nothing behind serves the next one: that must not show.
#[test]
fn runs_that_wait_at_the_same_time_write_to_worlds_of_their_own() {
    let script = "avi.l4.collect(avi.l4.read() == 'wait' and 8 or 1) avi.vs.log(tostring(mark)) \
        mark = avi.l4.read() avi.vs.log(mark, tostring(string.mark), tostring(('').mark)) string.mark = mark";
    let mut world = World::new(script);
    // Two clean runs first, so that a world is kept.
    for _ in 0..3 {
        let mut waiting = Vec::new();
        for _ in 0..3 {
            world.next_flow().client = b"wait".to_vec();
            match world.start() {
                dataplane::policy::Outcome::Suspended { run, .. } => waiting.push(run),
                other => panic!("{other:?}"),
            }
            world.next_flow().client = b"x".to_vec();
            assert_eq!(world.logged(), "nilxnilnil");
        }
        for run in waiting {
            world.next_flow().client = b"wait4567".to_vec();
            assert!(matches!(world.resume(run), dataplane::policy::Outcome::Done));
            assert_eq!(world.log(), "nilwait4567nilnil");
        }
    }
}

#[test]
fn a_global_function_serves_its_run_only() {
    let script = "if avi.l4.read() == 'define' then function f() return 'f' end end \
        avi.vs.log(f and f() or 'none', type(rawget(_G, 'avi')), tostring(_G._G == _G))";
    let mut world = World::new(script);
    for (sent, expected) in [("define", "fuserdatatrue"), ("", "noneuserdatatrue")].repeat(3) {
        world.next_flow().client = sent.into();
        assert_eq!(world.logged(), expected);
    }
}
