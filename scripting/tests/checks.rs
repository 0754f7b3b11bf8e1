//! What `check` and `LuaPolicy::new` say about scripts before they run.

mod world;

use std::sync::Arc;

use scripting::{LuaPolicy, ScriptError, Severity, check};
use world::{clock, set, snapshot, source};

fn found(script: &str) -> Vec<ScriptError> {
    check(&snapshot(vec![set(script)]))
}

/// The only finding, with the text that it points at.
fn only(script: &str) -> (ScriptError, String) {
    let mut errors = found(script);
    assert_eq!(errors.len(), 1, "{script}: {errors:#?}");
    let error = errors.remove(0);
    let text = script[error.span.clone()].to_owned();
    (error, text)
}

#[test]
fn good_scripts_are_not_complained_about() {
    for script in [
        "",
        "avi.pool.select('main') avi.pool.select('other', '10.0.0.1', 8080) avi.pool.select('other', 'WEB.example')",
        "avi.pool.get_server_status('main', '10.0.0.2', '80') avi.pool.get_servers() avi.pool.get_servers('main')",
        "avi.poolgroup.select 'group' avi.vs.persist('k', 300, 'other') avi.vs.persist(avi.vs.client_ip())",
        "local tls = require 'Default-TLS' local r = require('Default-Radius')",
        "local p = 'nope' p = other() avi.pool.select(p) avi.pool.select('a' .. 'b') avi.pool.select('esc\\97ped')",
        "x.avi.pool.select('nope') local t = { require = 1 } t.require('nope')",
        "goto done do local x = 0x10LL end ::done:: -- LuaJIT's own syntax",
        "local s = '\u{e9}' avi.pool.select('main')",
    ] {
        assert_eq!(found(script), [], "{script}");
    }
}

#[test]
fn names_that_do_not_exist_are_found_with_their_place() {
    for (script, line, column, text, message, help) in [
        (
            "\n  avi.pool.select('nope')",
            2,
            19,
            "'nope'",
            "no pool named 'nope'",
            "attached pools: main, other",
        ),
        (
            "avi.pool.select(\"unattached\")",
            1,
            17,
            "\"unattached\"",
            "pool 'unattached' is not attached to DataScript set 'set'",
            "attached pools: main, other",
        ),
        ("avi.poolgroup.select('g')", 1, 22, "'g'", "no pool group named 'g'", "attached pool groups: group"),
        ("avi.pool.get_servers 'g'", 1, 22, "'g'", "no pool named 'g'", "attached pools: main, other"),
        (
            "avi.vs.persist(k, 300, [[gone]])",
            1,
            24,
            "[[gone]]",
            "no pool named 'gone'",
            "attached pools: main, other",
        ),
        (
            "avi.pool.select('main', '10.0.0.7')",
            1,
            25,
            "'10.0.0.7'",
            "pool 'main' has no server '10.0.0.7'",
            "its servers: 10.0.0.1:80, 10.0.0.2:80",
        ),
        (
            "avi.pool.select('main', '10.0.0.1', 81)",
            1,
            37,
            "81",
            "pool 'main' has no server '10.0.0.1' on port 81",
            "there is: 10.0.0.1:80",
        ),
        (
            "if x then\r\n\tlocal m = require 'Nope' end",
            2,
            20,
            "'Nope'",
            "module 'Nope' is not attached to DataScript set 'set'",
            "attached modules: Default-TLS, Default-Radius, Default-DHCP",
        ),
    ] {
        let (error, at) = only(script);
        assert_eq!((error.line, error.column, at.as_str()), (line, column, text), "{script}");
        assert_eq!((error.message.as_str(), error.help.as_deref()), (message, Some(help)), "{script}");
        assert_eq!((error.severity, error.source_name.as_str()), (Severity::Error, "request.lua"));
    }
}

#[test]
fn calls_that_will_not_work_are_warned_about() {
    for (script, text, message) in [
        ("local p = 'nope' avi.pool.select(p)", "p", "no pool named 'nope'"),
        ("local s = avi.l4.sned s()", "s", "there is no function avi.l4.sned"),
        ("avi.l4.modify(1)", "avi.l4.modify", "avi.l4.modify is not supported: this call raises an error"),
        ("avi.l4.pause()", "avi.l4.pause", "avi.l4.pause is not supported: this call raises an error"),
        (
            "avi.ssl.anything()",
            "avi.ssl.anything",
            "avi.ssl.anything is not supported: this call raises an error",
        ),
        (
            "avi.vs.get_ftp_port()",
            "avi.vs.get_ftp_port",
            "avi.vs.get_ftp_port is not supported: this call raises an error",
        ),
        ("avi.http.redirect('x')", "avi.http.redirect", "there is no function avi.http.redirect"),
        (
            "avi.pool.get_server_status('main', '10.9.9.9', 80)",
            "'10.9.9.9'",
            "pool 'main' has no server '10.9.9.9': this call always gives 0",
        ),
    ] {
        let (error, at) = only(script);
        assert_eq!((at.as_str(), error.message.as_str()), (text, message));
        assert!(!error.help.is_some_and(|help| help.ends_with("none")), "{script}");
        assert_eq!(error.severity, Severity::Warning, "{script}");
    }
}

#[test]
fn syntax_errors_have_file_line_and_text() {
    for (script, line, text, message) in [
        ("local x = = 1", 1, "local x = = 1", "unexpected symbol near '='"),
        ("\n\n  if x then\n", 4, "", "'end' expected (to close 'if' at line 3) near '<eof>'"),
        ("x = 1\r\n  y = 'open\r\n", 2, "y = 'open", "unfinished string near ''open'"),
        ("return 1\nend", 2, "end", "'<eof>' expected near 'end'"),
        ("end return function() ", 1, "end return function()", "'<eof>' expected near 'end'"),
        ("break", 1, "break", "no loop to break"),
    ] {
        let (error, at) = only(script);
        assert_eq!((error.line, at.as_str(), error.message.as_str()), (line, text, message), "{script:?}");
        let errors = LuaPolicy::new(&Arc::new(snapshot(vec![set(script)])), clock).err().unwrap();
        assert_eq!(errors, [error], "{script:?}");
    }
}

#[test]
fn bytecode_is_refused() {
    let error = &found("\u{1b}LJ\u{2}")[0];
    assert!(error.message.contains("compiled Lua"), "{error}");
}

#[test]
fn places_are_right_after_a_byte_order_mark_and_in_latin_1() {
    let script = b"\xef\xbb\xbfavi.pool.select('nope')";
    let errors = check(&snapshot(vec![set(script)]));
    assert_eq!((errors[0].line, errors[0].column, errors[0].span.clone()), (1, 17, 19..25));
    let script = b"-- caf\xe9\navi.pool.select('nope')";
    let errors = check(&snapshot(vec![set(script)]));
    assert_eq!((errors[0].line, errors[0].column), (2, 17));
}

#[test]
fn every_script_and_module_is_checked_and_each_error_told_once() {
    let mut one = set("avi.pool.select('a')");
    one.response = Some(source("response.lua", "avi.pool.get_servers('b')"));
    one.parsers.push(("mine".to_owned(), source("mine.lua", "local x =")));
    let errors = check(&snapshot(vec![one.clone(), one]));
    let told: Vec<String> = errors.iter().map(|e| e.to_string()).collect();
    assert_eq!(
        told,
        [
            "request.lua:1:17: no pool named 'a'",
            "response.lua:1:22: no pool named 'b'",
            "mine.lua:1:1: unexpected symbol near '<eof>'",
        ]
    );
}

#[test]
fn the_default_pool_may_be_named_without_attaching_it() {
    let mut bare = set("avi.pool.select('main')");
    bare.pools.clear();
    assert_eq!(check(&snapshot(vec![bare])), []);
}
