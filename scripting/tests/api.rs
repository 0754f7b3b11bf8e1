//! Every function of `avi`: arguments, results, errors, both events.

mod world;

use std::net::SocketAddr;

use dataplane::address::FlowKey;
use dataplane::policy::{Close, Event, Policy, Record, ScriptFailure, Selection};
use dataplane::snapshot::{PoolGroupId, PoolId, Protocol, ServerId};
use smoltcp::time::Duration;
use world::{World, run, set, snapshot, source};

/// Scripts with the text that they log, run on this payload.
const PAYLOAD: &[u8] = b"0123456789\x00\xff\r\n";

fn logs(cases: &[(&str, &str)]) {
    for (script, expected) in cases {
        assert_eq!(run(script, PAYLOAD), *expected, "{script}");
    }
}

/// Calls with the error that `pcall` catches.
fn errors(event: Event, cases: &[(&str, &str)]) {
    for (call, expected) in cases {
        let script = format!("local ok, e = pcall(function() {call} end) avi.vs.log(tostring(ok), ' ', e)");
        let mut both = set("");
        both.request = Some(source("f", &script));
        both.response = Some(source("f", &script));
        let mut world = World::of(snapshot(vec![both])).with(PAYLOAD);
        world.event = event;
        assert_eq!(world.logged(), format!("false f:1: {expected}"), "{call}");
    }
}

#[test]
fn the_vip_and_its_port_are_those_of_each_flow() {
    let mut world = World::new("avi.vs.log(avi.vs.ip(), ' ', avi.vs.port())");
    for vip in [
        "192.0.2.10 53",
        "192.0.2.10 53",
        "192.0.2.11 53",
        "192.0.2.11 5353",
        "2001:db8::1 5353",
        "0.0.0.0 0",
    ] {
        let (ip, port) = vip.split_once(' ').unwrap();
        let socket = SocketAddr::new(ip.parse().unwrap(), port.parse().unwrap());
        world.facts.key = FlowKey::new(Protocol::Tcp, world.facts.client(), socket);
        assert_eq!(world.next_flow().logged(), vip);
    }
}

#[test]
fn read_gives_what_is_buffered_and_takes_nothing_away() {
    logs(&[
        ("avi.vs.log(#avi.l4.read(), avi.l4.read(3), avi.l4.read(3))", "14012012"),
        (
            "avi.vs.log(#avi.l4.read(0), avi.l4.read(2, 5), '|', #avi.l4.read(0, 10), #avi.l4.read(0, 14))",
            "1456|40",
        ),
        ("avi.vs.log(avi.l4.read(2, 0, 'client'), #avi.l4.read(0, 0, 'server'))", "010"),
        ("avi.vs.log(avi.l4.read(nil, 8, nil):byte(1, -1))", "565702551310"),
        ("avi.vs.log(avi.l4.read('3'), avi.l4.read(1.5))", "01201"),
        (
            "local payload = avi.l4.read() if avi.l4.collect(5) then avi.vs.log(string.byte(payload, 2)) end",
            "49",
        ),
    ]);
    errors(
        Event::Request,
        &[
            ("avi.l4.read(15)", "avi.l4.read: 15 bytes at offset 0 asked for, 14 are buffered"),
            ("avi.l4.read(5, 10)", "avi.l4.read: 5 bytes at offset 10 asked for, 14 are buffered"),
            ("avi.l4.read(0, 15)", "avi.l4.read: 0 bytes at offset 15 asked for, 14 are buffered"),
            ("avi.l4.read(65001)", "avi.l4.read: 65001 bytes asked for, at most 65000 are possible"),
            ("avi.l4.read(-1)", "avi.l4.read: bad argument #1 (must not be -1)"),
            ("avi.l4.read(0/0)", "avi.l4.read: bad argument #1 (must not be nan)"),
            ("avi.l4.read('x')", "avi.l4.read: bad argument #1 (number expected, got string)"),
            ("avi.l4.read({})", "avi.l4.read: bad argument #1 (number expected, got table)"),
            ("avi.l4.read(1, true)", "avi.l4.read: bad argument #2 (number expected, got boolean)"),
            ("avi.l4.read(1, 0, 'both')", "avi.l4.read: bad argument #3 (\"client\" or \"server\" expected)"),
        ],
    );
}

#[test]
fn the_event_decides_which_side_is_read() {
    let script = "avi.vs.log(avi.l4.read(), avi.l4.collect(2), avi.l4.read(0, 0, 'client'), avi.l4.read(0, 0, 'server'))";
    let mut both = set(script);
    both.response = Some(source("response.lua", script));
    let mut world = World::of(snapshot(vec![both])).with("cli");
    world.server = b"serv".to_vec();
    assert_eq!(world.logged(), "cli3cliserv");
    world.next_flow().event = Event::Response;
    assert_eq!(world.logged(), "serv4cliserv");
}

#[test]
fn collect_checks_its_argument() {
    logs(&[("avi.vs.log(avi.l4.collect(0), ' ', avi.l4.collect(14), ' ', avi.l4.collect('5'))", "14 14 14")]);
    errors(
        Event::Request,
        &[
            ("avi.l4.collect()", "avi.l4.collect: bad argument #1 (number expected, got no value)"),
            ("avi.l4.collect(nil)", "avi.l4.collect: bad argument #1 (number expected, got nil)"),
            ("avi.l4.collect('many')", "avi.l4.collect: bad argument #1 (number expected, got string)"),
            ("avi.l4.collect({})", "avi.l4.collect: bad argument #1 (number expected, got table)"),
            ("avi.l4.collect(-5)", "avi.l4.collect: bad argument #1 (must not be -5)"),
            ("avi.l4.collect(65001)", "avi.l4.collect: 65001 bytes asked for, at most 65000 are possible"),
            ("avi.l4.collect(1/0)", "avi.l4.collect: 4294967295 bytes asked for, at most 65000 are possible"),
        ],
    );
    let mut world = World::new("avi.l4.collect(14.2)").with(PAYLOAD);
    assert_eq!(world.waits().1, 15);
}

#[test]
fn log_joins_its_arguments_and_cuts() {
    logs(&[
        ("avi.vs.log('a', 1, true, nil, 2.5, 'b')", "a1truenil2.5b"),
        ("avi.vs.log() avi.vs.log(nil)", "nil"),
        ("avi.vs.log(1e15, ' ', -0.1, ' ', 2^53)", "1e+15 -0.1 9.007199254741e+15"),
        ("avi.vs.debuglog('x')", ""),
    ]);
    let mut world = World::new("avi.vs.log('a', avi.SIG_ENABLE) avi.vs.log(avi.SIG_ENABLE, 'b')");
    assert_eq!((world.logged().as_str(), world.record.significant), ("ab", true));
    let mut world = World::new("avi.vs.log('a', avi.SIG_ENABLE, 'b') avi.vs.log(('x'):rep(300))");
    assert_eq!((world.logged().len(), world.record.significant), (258, false));
    let mut world = World::new("for i = 1, 20 do avi.vs.log(('x'):rep(250)) end");
    assert_eq!((world.logged().len(), world.record.log_cut), (Record::LOG_BYTES, true));
    let mut world = World::new("avi.vs.log('\\0\\255\\n')");
    world.logged();
    assert_eq!(world.record.log, [0, 255, 10]);
    let mut config = snapshot(vec![set("avi.vs.debuglog('x', 1, avi.SIG_ENABLE)")]);
    config.services[0].datascript.debug_log = true;
    assert_eq!(World::of(config).logged(), "x1");
    let mut config = snapshot(vec![set("print('x', 1, nil, true) print()")]);
    assert_eq!(World::of(config.clone()).logged(), "", "nobody reads what is printed");
    config.services[0].datascript.debug_log = true;
    assert_eq!(World::of(config).logged(), "x\t1\tnil\ttrue");
    errors(
        Event::Response,
        &[
            (
                "avi.vs.log({})",
                "avi.vs.log: bad argument #1 (string, number, boolean or nil expected, got table)",
            ),
            (
                "avi.vs.log('a', print or error)",
                "avi.vs.log: bad argument #2 (string, number, boolean or nil expected, got function)",
            ),
        ],
    );
}

#[test]
fn close_conn_marks_the_flow_and_the_run_goes_on() {
    for (call, expected) in [
        ("avi.vs.close_conn()", Close::Graceful),
        ("avi.vs.close_conn(false)", Close::Graceful),
        ("avi.vs.close_conn(nil)", Close::Graceful),
        ("avi.vs.close_conn(true)", Close::Reset),
        ("avi.vs.close_conn(1)", Close::Reset),
        ("avi.vs.close_conn(true) avi.vs.close_conn()", Close::Reset),
    ] {
        let mut world = World::new(format!("{call} avi.pool.select('other') avi.vs.log('on')"));
        assert_eq!(world.logged(), "on");
        assert_eq!(world.record.close, Some(expected), "{call}");
    }
}

#[test]
fn facts_are_strings() {
    logs(&[
        (
            "avi.vs.log(avi.vs.client_ip(), ' ', avi.vs.client_port(), ' ', type(avi.vs.client_port()))",
            "198.51.100.7 50001 string",
        ),
        ("avi.vs.log(avi.vs.ip(), ' ', avi.vs.port(), ' ', avi.vs.name())", "192.0.2.10 1812 vs"),
        ("if avi.vs.port() == \"1812\" then avi.vs.log('auth') end", "auth"),
    ]);
    let mut world = World::new("avi.vs.log(avi.vs.client_ip(), ' ', avi.vs.ip())");
    let ends = ["[2001:db8:0:0:0:0:0:1]:1", "[2001:db8::1:0:0:1]:1"].map(|end| end.parse().unwrap());
    world.facts.key = FlowKey::new(Protocol::Tcp, ends[0], ends[1]);
    assert_eq!(world.logged(), "2001:db8::1 2001:db8::1:0:0:1");
}

#[test]
fn select_takes_names_ports_and_digits() {
    for (call, expected) in [
        ("avi.pool.select('other')", Selection::Pool(PoolId(1))),
        ("avi.pool.select('other', nil, nil)", Selection::Pool(PoolId(1))),
        ("avi.pool.select('main', '10.0.0.2')", Selection::Server(ServerId(1))),
        ("avi.pool.select('main', '10.0.0.2', 80)", Selection::Server(ServerId(1))),
        ("avi.pool.select('main', '10.0.0.2', '80')", Selection::Server(ServerId(1))),
        ("avi.pool.select('other', 'web.example', '8080')", Selection::Server(ServerId(2))),
        ("avi.pool.select('main') avi.pool.select('other')", Selection::Pool(PoolId(1))),
        ("avi.pool.select('other') pcall(avi.pool.select, 'nope')", Selection::Pool(PoolId(1))),
        ("avi.poolgroup.select('group')", Selection::PoolGroup(PoolGroupId(0))),
        ("avi.pool.select('other') avi.poolgroup.select('group')", Selection::PoolGroup(PoolGroupId(0))),
    ] {
        let mut world = World::new(call);
        world.logged();
        assert_eq!(world.record.selection, Some(expected), "{call}");
    }
    errors(
        Event::Request,
        &[
            ("avi.pool.select()", "avi.pool.select: bad argument #1 (string expected, got no value)"),
            ("avi.pool.select({})", "avi.pool.select: bad argument #1 (string expected, got table)"),
            (
                "avi.pool.select('unattached')",
                "avi.pool.select: pool 'unattached' is not attached to this DataScript set",
            ),
            (
                "avi.pool.select('main', '10.0.0.2', 'http')",
                "avi.pool.select: bad argument #3 (port number expected, got string)",
            ),
            (
                "avi.pool.select('main', '10.0.0.2', 65536)",
                "avi.pool.select: bad argument #3 ('65536' is no port, 0 to 65535)",
            ),
            (
                "avi.pool.select('main', '10.0.0.2', 80.5)",
                "avi.pool.select: bad argument #3 ('80.5' is no port, 0 to 65535)",
            ),
            (
                "avi.pool.select('main', '10.0.0.2', '')",
                "avi.pool.select: bad argument #3 ('' is no port, 0 to 65535)",
            ),
            (
                "avi.pool.select('main', nil, 80)",
                "avi.pool.select: bad argument #2 (a port needs a server before it)",
            ),
            (
                "avi.poolgroup.select(true)",
                "avi.poolgroup.select: bad argument #1 (string expected, got boolean)",
            ),
        ],
    );
    errors(
        Event::Response,
        &[
            (
                "avi.pool.select('main')",
                "avi.pool.select: not allowed in VS_DATASCRIPT_EVT_L4_RESPONSE, only in VS_DATASCRIPT_EVT_L4_REQUEST",
            ),
            (
                "avi.poolgroup.select('group')",
                "avi.poolgroup.select: not allowed in VS_DATASCRIPT_EVT_L4_RESPONSE, only in VS_DATASCRIPT_EVT_L4_REQUEST",
            ),
            (
                "avi.vs.persist('k')",
                "avi.vs.persist: not allowed in VS_DATASCRIPT_EVT_L4_RESPONSE, only in VS_DATASCRIPT_EVT_L4_REQUEST",
            ),
            (
                "avi.vs.persist(nil)",
                "avi.vs.persist: not allowed in VS_DATASCRIPT_EVT_L4_RESPONSE, only in VS_DATASCRIPT_EVT_L4_REQUEST",
            ),
        ],
    );
}

#[test]
fn what_does_not_exist_or_is_out_of_range_is_an_error() {
    for (call, start) in [
        ("avi.pool.select('nope')", "f:1: avi.pool.select: no pool named 'nope'"),
        ("avi.pool.select('main', '10.0.0.77')", "f:1: avi.pool.select: no server named '10.0.0.77'"),
        ("avi.pool.select('main', '10.0.0.2', 81)", "f:1: avi.pool.select: no server named '10.0.0.2"),
        ("avi.poolgroup.select('nope')", "f:1: avi.poolgroup.select: no pool group named 'nope'"),
        (
            "avi.pool.get_server_status('nope', 'a', 1)",
            "f:1: avi.pool.get_server_status: no pool named 'nope'",
        ),
        ("avi.pool.get_servers('nope')", "f:1: avi.pool.get_servers: no pool named 'nope'"),
        ("avi.vs.persist('k', 300, 'nope')", "f:1: avi.vs.persist: no pool named 'nope'"),
        ("avi.vs.persist('k', 0)", "f:1: avi.vs.persist: "),
        ("avi.vs.table_insert('k', 'v', 0)", "f:1: avi.vs.table_insert: "),
        ("avi.vs.table_insert('k', 'v', -1)", "f:1: avi.vs.table_insert: "),
        ("avi.vs.table_lookup('k', -1)", "f:1: avi.vs.table_lookup: "),
    ] {
        let mut one = set(format!("\n{call}"));
        one.request = Some(source("f", call));
        let text = World::of(snapshot(vec![one])).failed(ScriptFailure::Error);
        assert!(text.starts_with(start), "{text}");
    }
}

#[test]
fn pools_tell_their_state() {
    logs(&[
        ("avi.vs.log(avi.pool.get_server_status('main', '10.0.0.1', 80))", "1"),
        ("avi.vs.log(avi.pool.get_server_status('main', '10.0.0.1', '80'))", "1"),
        ("avi.vs.log(avi.pool.get_server_status('main', '10.0.0.1', 81))", "0"),
        ("avi.vs.log(avi.pool.get_server_status('main', '10.7.7.7', 80))", "0"),
        ("avi.vs.log(avi.pool.get_server_status('other', '10.0.0.3', 8080))", "0"),
        ("local up, total = avi.pool.get_servers() avi.vs.log(up, '/', total)", "2/2"),
        ("local up, total = avi.pool.get_servers('other') avi.vs.log(up, '/', total)", "1/2"),
        (
            "avi.vs.log(avi.pool.server_ip(), avi.pool.get_server_ip(), avi.pool.get_server_info())",
            "nilnilnilnil",
        ),
    ]);
    errors(
        Event::Request,
        &[
            (
                "avi.pool.get_server_status('main', 'x')",
                "avi.pool.get_server_status: bad argument #3 (port number expected, got no value)",
            ),
            (
                "avi.pool.get_server_status('main')",
                "avi.pool.get_server_status: bad argument #2 (string expected, got no value)",
            ),
        ],
    );
    let mut one = set("");
    one.response = Some(source(
        "r",
        "local ip, port = avi.pool.get_server_info() avi.vs.log(avi.pool.server_ip(), ' ', ip, ':', port, type(port))",
    ));
    let mut world = World::of(snapshot(vec![one]));
    world.event = Event::Response;
    world.facts.server = Some(ServerId(2));
    assert_eq!(world.logged(), "10.0.0.1 10.0.0.1:8080number");
}

#[test]
fn table_arguments_are_told_apart_by_count_and_type() {
    logs(&[
        ("avi.vs.log(avi.vs.table_insert('k', 'v'), (avi.vs.table_lookup('k')))", "truev"),
        ("avi.vs.table_insert('k', 'v') local v, s = avi.vs.table_lookup('k', 0) avi.vs.log(v, s)", "v300"),
        (
            "avi.vs.table_insert('k', 'v', 400) local v, s = avi.vs.table_lookup('k', 0) avi.vs.log(v, s)",
            "v400",
        ),
        (
            "avi.vs.table_insert('k', 'v', 5) local v, s = avi.vs.table_lookup('k', 0) avi.vs.log(v, s)",
            "v300",
        ),
        ("avi.vs.table_insert('k', 'v') local v, s = avi.vs.table_lookup('k') avi.vs.log(v, s)", "v600"),
        ("avi.vs.table_insert('k', 'v') local v, s = avi.vs.table_lookup('k', 50) avi.vs.log(v, s)", "v350"),
        (
            "avi.vs.table_insert('t', 'k', 'v') avi.vs.log(avi.vs.table_lookup('t', 'k'), (avi.vs.table_lookup('k')))",
            "vnil",
        ),
        (
            "avi.vs.table_insert('t', 'k', 'v', 900) local v, s = avi.vs.table_lookup('t', 'k', 0) avi.vs.log(v, s)",
            "v900",
        ),
        (
            "avi.vs.table_insert(nil, 'k', 'v', 900) local v, s = avi.vs.table_lookup(nil, 'k', 0) avi.vs.log(v, s)",
            "v900",
        ),
        (
            "avi.vs.table_insert('k', 'v') avi.vs.table_insert('k', 'w') avi.vs.log((avi.vs.table_lookup('k')))",
            "v",
        ),
        (
            "avi.vs.table_insert(1, 2) avi.vs.log(avi.vs.table_lookup('1'), type(avi.vs.table_lookup(1)))",
            "2string",
        ),
        ("avi.vs.table_insert(true, false) avi.vs.log((avi.vs.table_lookup('true')))", "false"),
        (
            "avi.vs.table_insert('a\\0b', '\\0') avi.vs.log(#avi.vs.table_lookup('a\\0b'), (avi.vs.table_lookup('a')))",
            "1nil",
        ),
        (
            "avi.vs.log(avi.vs.table_lookup('k'), avi.vs.table_lookup('t', 'k'), (avi.vs.table_lookup(nil)))",
            "nilnilnil",
        ),
        (
            "avi.vs.log(avi.vs.table_insert(nil, 'v'), avi.vs.table_insert('k', nil), avi.vs.table_refresh(nil))",
            "falsefalsefalse",
        ),
        (
            "avi.vs.log(avi.vs.table_refresh('k'), avi.vs.table_insert('k', 'v'), avi.vs.table_refresh('k'))",
            "falsetruetrue",
        ),
        (
            "avi.vs.table_insert('t', 'k', 'v') avi.vs.log(avi.vs.table_refresh('t', 'k'), avi.vs.table_refresh('t', 'k', 900)) \
             local v, s = avi.vs.table_lookup('t', 'k', 0) avi.vs.log(s)",
            "truetrue900",
        ),
        (
            "avi.vs.table_insert('k', 'v') avi.vs.table_refresh('k', 1000) local v, s = avi.vs.table_lookup('k', 0) avi.vs.log(s)",
            "1000",
        ),
        (
            "avi.vs.table_insert('k', 'v') avi.vs.table_remove('k') avi.vs.log((avi.vs.table_lookup('k')))",
            "nil",
        ),
        (
            "avi.vs.table_insert('t', 'k', 'v') avi.vs.table_remove('k') avi.vs.log((avi.vs.table_lookup('t', 'k'))) \
             avi.vs.table_remove('t', 'k') avi.vs.log((avi.vs.table_lookup('t', 'k')))",
            "vnil",
        ),
        (
            "avi.vs.table_remove('none') avi.vs.table_remove(nil) avi.vs.table_remove('t', nil) avi.vs.log('ok')",
            "ok",
        ),
        (
            "avi.vs.log(avi.vs.table_insert(('k'):rep(257), 'v'), avi.vs.table_insert('k', ('v'):rep(1025)))",
            "falsefalse",
        ),
    ]);
}

#[test]
fn refresh_is_never_an_error() {
    logs(&[(
        "avi.vs.table_insert('t', 'k', 'v') avi.vs.log(avi.vs.table_refresh('t', 'k', 'x'), avi.vs.table_refresh('t', 'k', -5), \
             avi.vs.table_refresh('t', 'k', 0/0), avi.vs.table_refresh(), avi.vs.table_refresh({}), avi.vs.table_refresh({}, 'k')) \
             local v, s = avi.vs.table_lookup('t', 'k', 0) avi.vs.log(s)",
        "truetruetruefalsefalsefalse300",
    )]);
}

#[test]
fn table_arguments_of_the_wrong_kind_are_errors() {
    errors(
        Event::Response,
        &[
            (
                "avi.vs.table_insert('k')",
                "avi.vs.table_insert: bad argument #2 (value expected, got no value)",
            ),
            (
                "avi.vs.table_insert({}, 'v')",
                "avi.vs.table_insert: bad argument #1 (string, number or boolean expected, got table)",
            ),
            (
                "avi.vs.table_insert('t', 'k', 'v', '300')",
                "avi.vs.table_insert: bad argument #4 (number expected, got string)",
            ),
            ("avi.vs.table_lookup()", "avi.vs.table_lookup: bad argument #1 (key expected, got no value)"),
            (
                "avi.vs.table_lookup('t', 'k', 'x')",
                "avi.vs.table_lookup: bad argument #3 (number expected, got string)",
            ),
            ("avi.vs.table_remove()", "avi.vs.table_remove: bad argument #1 (key expected, got no value)"),
        ],
    );
}

#[test]
fn table_entries_are_seen_by_other_flows_until_they_expire() {
    let mut world = World::new(
        "local v = avi.vs.table_lookup('k', 0) avi.vs.log(v) if not v then avi.vs.table_insert('k', avi.vs.client_ip()) end",
    );
    assert_eq!(world.logged(), "nil");
    world.next_flow();
    assert_eq!(world.logged(), "198.51.100.7");
    world.now += Duration::from_secs(301);
    world.next_flow();
    assert_eq!(world.logged(), "nil");
}

#[test]
fn persist_keeps_a_key_on_its_server() {
    let mut world = World::new("avi.vs.persist(avi.vs.client_ip(), 400, 'main') avi.vs.log('on')");
    assert_eq!(world.logged(), "on");
    let first = world.record.selection;
    assert!(matches!(first, Some(Selection::Server(ServerId(0 | 1)))), "{first:?}");
    for _ in 0..5 {
        world.next_flow();
        world.logged();
        assert_eq!(world.record.selection, first);
    }
    let mut world = World::new("avi.vs.persist(nil) avi.vs.log('on')");
    assert_eq!((world.logged().as_str(), world.record.selection), ("on", None));
    errors(
        Event::Request,
        &[
            ("avi.vs.persist('k', '300')", "avi.vs.persist: bad argument #2 (number expected, got string)"),
            (
                "avi.vs.persist({})",
                "avi.vs.persist: bad argument #1 (string, number or boolean expected, got table)",
            ),
            ("avi.vs.persist('k', 300, {})", "avi.vs.persist: bad argument #3 (string expected, got table)"),
        ],
    );
}

#[test]
fn reqvar_lives_from_request_to_response_of_one_flow() {
    let mut both = set(
        "local v = avi.vs.reqvar v.s, v.n, v.b, v.gone = 'a\\0b', 1.5, true, 'x' v.gone = nil v[7] = 'seven' avi.vs.log(v.none)",
    );
    both.response = Some(source(
        "r",
        "local v = avi.vs.reqvar avi.vs.log(#v.s, v.n, v.b, v.gone, v['7'], type(v.n), type(v.b))",
    ));
    let mut world = World::of(snapshot(vec![both]));
    assert_eq!(world.logged(), "nil");
    world.event = Event::Response;
    assert_eq!(world.logged(), "nil31.5truenilsevennumberboolean");
    world.next_flow();
    assert!(world.failed(ScriptFailure::Error).contains("attempt to get length of field 's' (a nil value)"));
    errors(
        Event::Request,
        &[
            ("avi.vs.reqvar.x = {}", "avi.vs.reqvar=: holds strings, numbers and booleans, no table"),
            ("avi.vs.reqvar[{}] = 1", "avi.vs.reqvar=: bad argument #2 (string expected, got table)"),
            (
                "avi.vs.reqvar.x = ('x'):rep(20000)",
                "avi.vs.reqvar=: the variables of a flow are limited to 16384 bytes",
            ),
        ],
    );
}

#[test]
fn what_is_not_supported_says_so_when_it_is_called() {
    for call in [
        "avi.l4.modify",
        "avi.l4.discard",
        "avi.l4.send",
        "avi.l4.pause",
        "avi.l4.resume",
        "avi.ssl.whatever",
        "avi.l4.ftp_parse",
        "avi.vs.getFTPPort",
        "avi.ftp.any",
    ] {
        errors(Event::Request, &[(&format!("{call}('x')"), &format!("{call}: not supported"))]);
    }
    logs(&[("avi.vs.log(tostring(avi.vs.nothing), tostring(avi.http), tostring(avi.l4))", "nilnilavi.l4")]);
}

#[test]
fn a_function_of_the_api_is_an_error_outside_of_a_run() {
    // A function value cannot leave a run, so this can only be seen between runs: a new one finds its own context.
    let mut world = World::new("f = f or avi.vs.client_ip avi.vs.log(f())");
    assert_eq!(world.logged(), "198.51.100.7");
    world.policy.idle();
    assert_eq!(world.next_flow().logged(), "198.51.100.7");
}
