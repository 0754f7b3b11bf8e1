//! The protocol parser modules.

mod world;

use dataplane::policy::Outcome;
use world::wire::{client_hello, dhcp, radius, records};
use world::{Random, World, feed, run};

/// The script that has been published for this module, in its usual form: it reads the payload before the second
/// `collect` and parses the old string.
const PUBLISHED_TLS: &str = r#"
    local default_tls = require 'Default-TLS'
    local buffered = avi.l4.collect(20)
    local payload = avi.l4.read()
    local len = default_tls.get_req_buffer_size(payload)
    if (buffered < len) then
        avi.l4.collect(len)
    end
    if (default_tls.sanity_check(payload)) then
        local h = default_tls.parse_record(payload)
        local sname = default_tls.get_sni(h)
        if sname == nil then
            avi.vs.log('SNI not present')
            avi.vs.close_conn()
        else
            avi.vs.log("SNI=" .. sname)
        end
    else
        avi.vs.close_conn()
    end
    avi.l4.ds_done()
    default_tls = nil
"#;

#[test]
fn the_published_tls_script_finds_the_name_however_the_hello_is_cut() {
    for (padding, record) in [(0, 16384), (600, 16384), (600, 100), (600, 1), (3000, 1200), (0, 41)] {
        let hello = records(&client_hello(Some("www.example.com"), padding), record);
        for piece in [1, 2, 3, 5, 19, 20, 21, 64, 100, 536, 1460, 65536] {
            let mut world = World::new(PUBLISHED_TLS);
            let outcome = feed(&mut world, &hello, piece);
            let case = format!("padding {padding} records of {record} in pieces of {piece}");
            assert!(matches!(outcome, Outcome::Done), "{case}: {outcome:?} {:?}", world.record.error);
            assert_eq!(world.log(), "SNI=www.example.com", "{case}");
            assert_eq!(world.record.close, None, "{case}");
        }
    }
}

#[test]
fn tls_without_a_name_and_what_is_no_tls() {
    let hello = records(&client_hello(None, 10), 16384);
    let mut world = World::new(PUBLISHED_TLS);
    assert!(matches!(feed(&mut world, &hello, 1), Outcome::Done));
    assert_eq!(world.log(), "SNI not present");
    for other in
        [&b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"[..], b"\x15\x03\x01\x00\x02\x02\x28aaaaaaaaaaaaaaa", &[0; 40]]
    {
        let mut world = World::new(PUBLISHED_TLS);
        assert!(matches!(feed(&mut world, other, 7), Outcome::Done));
        assert_eq!((world.log().as_str(), world.record.close.is_some()), ("", true));
    }
}

#[test]
fn tls_functions_one_by_one() {
    let hello = records(&client_hello(Some("a.b"), 0), 16384);
    let script = "local tls = require('Default-TLS') local p = avi.l4.read()";
    let length = hello.len();
    let cases: &[(&str, Vec<u8>, String)] = &[
        ("avi.vs.log(tls.get_req_buffer_size(p))", hello.clone(), length.to_string()),
        ("avi.vs.log(tls.get_req_buffer_size(p))", b"GET / HTTP".to_vec(), "5".to_owned()),
        ("avi.vs.log(tls.get_req_buffer_size(''))", vec![], "5".to_owned()),
        ("avi.vs.log(tls.get_req_buffer_size(nil))", vec![], "5".to_owned()),
        // The buffer is looked at where the string ends early.
        ("avi.vs.log(tls.get_req_buffer_size(p:sub(1, 2)))", hello.clone(), length.to_string()),
        ("avi.vs.log(tls.get_sni(tls.parse_record(p:sub(1, 9))))", hello.clone(), "a.b".to_owned()),
        (
            "avi.vs.log(tls.sanity_check(p), tls.sanity_check(p:sub(1, 3)))",
            hello.clone(),
            "truetrue".to_owned(),
        ),
        (
            "avi.vs.log(tls.sanity_check('x'), tls.sanity_check(nil), tls.sanity_check(''))",
            vec![],
            "falsefalsefalse".to_owned(),
        ),
        (
            "avi.vs.log(tls.parse_record('x'), tls.get_sni(nil), tls.get_sni({}), tls.get_sni('x'))",
            vec![],
            "nilnilnilnil".to_owned(),
        ),
        ("avi.vs.log(tls.parse_record(p).version)", hello.clone(), "771".to_owned()),
        // A string of the script's own is taken as it is.
        (
            "avi.vs.log(tls.get_sni(tls.parse_record(p:sub(3))))",
            [&[0, 0][..], &hello].concat(),
            "a.b".to_owned(),
        ),
    ];
    for (calls, payload, expected) in cases {
        assert_eq!(run(&format!("{script} {calls}"), payload), *expected, "{calls}");
    }
}

#[test]
fn a_hello_that_never_ends_waits_and_one_that_cannot_end_does_not() {
    let hello = client_hello(Some("www.example.com"), 500);
    // The first record is there, the rest is not: the parser waits.
    let mut world = World::new(PUBLISHED_TLS);
    let begun = records(&hello, 200);
    assert!(matches!(feed(&mut world, &begun[..300], 1), Outcome::Suspended { .. }));
    // Something else comes instead of the second record.
    let alert = [&begun[..205], b"\x15\x03\x01\x00\x02\x02\x28", &[0; 600]].concat();
    let mut world = World::new(PUBLISHED_TLS);
    assert!(matches!(feed(&mut world, &alert, 1), Outcome::Done));
    // Where nothing can be waited for, what is there counts.
    let mut world = World::new(PUBLISHED_TLS).with(&begun[..300]);
    world.can_wait = false;
    assert_eq!(world.logged(), "SNI=www.example.com");
    // A message longer than can be buffered.
    let endless = [&[22, 3, 1, 0, 10, 1, 0xff, 0xff, 0xff][..], &[0; 20]].concat();
    let mut world = World::new(PUBLISHED_TLS);
    assert!(matches!(feed(&mut world, &endless, 29), Outcome::Done), "{:?}", world.record.error);
    assert_eq!(world.log(), "SNI not present");
}

#[test]
fn radius_attributes_by_kind() {
    let packet = radius(&[
        (1, b"bob@example.com"),
        (4, &[192, 0, 2, 1]),
        (5, &[0, 0, 1, 0]),
        (31, b"00-1B-21-3C-4D-5E"),
        (61, &[0, 0, 0, 19]),
        (64, &[1, 0, 0, 13]),
        (79, b"part1"),
        (79, b"part2"),
        (95, &[0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 1]),
        (25, &[0, 255]),
        (31, b"second"),
    ]);
    let script = "local r = require('Default-Radius') local a = r.parsepacket(avi.l4.read())";
    for (calls, expected) in [
        ("avi.vs.log(a['1'], ' ', a['31'], ' ', a['4'])", "bob@example.com 00-1B-21-3C-4D-5E 192.0.2.1"),
        ("avi.vs.log(a['61'] == 19, a['5'], type(a['5']), a['64'])", "true256number13"),
        (
            "avi.vs.log(a['79'], ' ', a['95'], ' ', #a['25'], ' ', a['2'], a[31])",
            "part1part2 2001:db8::1:0:0:1 2 nilnil",
        ),
        ("local p = r.split(a['1'], '@') avi.vs.log(#p, p[1], p[2])", "2bobexample.com"),
        (
            "avi.vs.log(table.concat(r.split('a..b.', '.'), ','), #r.split('', ','), #r.split('a', ''))",
            "a,,b,11",
        ),
        ("avi.vs.log(#r.split(nil, ','), r.split(12, 2)[1], r.split('a%b', '%')[2])", "01b"),
    ] {
        assert_eq!(run(&format!("{script} {calls}"), &packet), expected, "{calls}");
    }
}

#[test]
fn radius_addresses_of_version_6_as_text() {
    for address in
        ["::", "::1", "2001:db8::", "1:2:3:4:5:6:7:8", "1:0:0:4::8", "2001:db8:0:1:1:1:1:1", "fe80::1:0:0:2"]
    {
        let octets = address.parse::<std::net::Ipv6Addr>().unwrap().octets();
        let script = "avi.vs.log(require('Default-Radius').parsepacket(avi.l4.read())['95'])";
        assert_eq!(run(script, radius(&[(95, &octets)])), address);
    }
}

#[test]
fn malformed_radius_is_nil() {
    let good = radius(&[(1, b"bob"), (31, b"x")]);
    let script = "avi.vs.log(type(require('Default-Radius').parsepacket(avi.l4.read())))";
    assert_eq!(run(script, &good), "table");
    assert_eq!(run(script, [&good[..], b"padding"].concat()), "table");
    for cut in 0..good.len() {
        assert_eq!(run(script, &good[..cut]), "nil", "cut at {cut}");
    }
    for (at, byte) in [(3, 19), (3, 21), (2, 0xff), (21, 0), (21, 1), (21, 200), (26, 200)] {
        let mut bad = good.clone();
        bad[at] = byte;
        assert_eq!(run(script, &bad), "nil", "byte {at} = {byte}");
    }
    assert_eq!(run("avi.vs.log(require('Default-Radius').parsepacket(nil))", ""), "nil");
}

#[test]
fn dhcp_header_and_options() {
    let options = [
        53, 1, 1, 0, 0, 61, 7, 1, 0, 0x1b, 0x21, 0x3c, 0x4d, 0x5e, 12, 2, b'p', b'c', 12, 1, b'1', 255, 9, 9,
    ];
    let message = dhcp([2, 0, 0, 0, 0, 1], &options);
    let script = "local d = require('Default-DHCP') local h, o = d.getDHCPParamsAndOptions(avi.l4.read())";
    for (calls, expected) in [
        (
            "avi.vs.log(h.op, h.htype, h.hlen, ' ', h.xid, ' ', h.giaddr, ' ', h.chaddr)",
            "116 3735928559 10.1.2.3 02:00:00:00:00:01",
        ),
        (
            "avi.vs.log(o[53]:byte(), o['53'] == o[53], ' ', o[12], ' ', #h.sname, #h.file, o[99], o['x'])",
            "1true pc1 00nilnil",
        ),
        ("local kind, mac = d.getOption61(o) avi.vs.log(kind, ' ', mac)", "1 00:1b:21:3c:4d:5e"),
        ("avi.vs.log(d.getOption61(nil), d.getOption61({}), d.getOption61({[61] = 'x'}))", "nilnilnil"),
        ("local kind, mac = d.getOption61({[61] = '\\0abc'}) avi.vs.log(kind, mac)", "0nil"),
    ] {
        assert_eq!(run(&format!("{script} {calls}"), &message), expected, "{calls}");
    }
    let mut overloaded = dhcp([2, 0, 0, 0, 0, 1], &[52, 1, 3, 255]);
    overloaded[108..113].copy_from_slice(&[12, 1, b'f', 255, 0]);
    overloaded[44..49].copy_from_slice(&[15, 1, b's', 255, 0]);
    assert_eq!(run(&format!("{script} avi.vs.log(o[12], o[15])"), &overloaded), "fs");
    let script = "avi.vs.log(type(require('Default-DHCP').getDHCPParamsAndOptions(avi.l4.read())))";
    for cut in 0..241 {
        let expected = if cut < 240 { "nil" } else { "table" };
        assert_eq!(run(script, &message[..cut]), expected, "cut at {cut}");
    }
    assert_eq!(run(script, dhcp([0; 6], &[61, 200, 1])), "nil");
    assert_eq!(run("avi.vs.log(require('Default-DHCP').getDHCPParamsAndOptions(nil))", ""), "nil");
}

/// Damages `bytes` in a few places or replaces them.
fn damage(random: &mut Random, bytes: &[u8]) -> Vec<u8> {
    if random.below(4) == 0 {
        let length = random.below(300);
        return random.bytes(length);
    }
    let mut damaged = bytes.to_vec();
    for _ in 0..=random.below(6) {
        let at = random.below(damaged.len());
        let byte = random.bytes(1);
        damaged.splice(at..=at, byte);
    }
    damaged.truncate(1 + random.below(bytes.len() + 20));
    damaged
}

#[test]
fn no_parser_raises_on_garbage() {
    let seed = 0x5eed_0002;
    println!("seed {seed:#x}");
    let mut random = Random(seed);
    let script = r#"
        local tls, radius, dhcp = require 'Default-TLS', require 'Default-Radius', require 'Default-DHCP'
        local p = avi.l4.read()
        local cut = p:sub(1, #p / 2)
        tls.get_req_buffer_size(cut) tls.sanity_check(cut)
        tls.get_sni(tls.parse_record(p)) tls.get_sni(tls.parse_record(cut))
        local a = radius.parsepacket(p)
        if a then radius.split(a["1"], "@") end
        local header, options = dhcp.getDHCPParamsAndOptions(p)
        dhcp.getOption61(options)
        for _, junk in ipairs({ 1, true, {}, tls }) do
            tls.get_req_buffer_size(junk) tls.sanity_check(junk) tls.get_sni(tls.parse_record(junk)) tls.get_sni(junk)
            radius.parsepacket(junk) radius.split(junk, junk) dhcp.getDHCPParamsAndOptions(junk) dhcp.getOption61(junk)
        end
        avi.vs.log('ok')
    "#;
    let good = [
        records(&client_hello(Some("www.example.com"), 30), 90),
        records(&client_hello(Some("www.example.com"), 0), 16384),
        radius(&[(1, b"bob@example.com"), (61, &[0, 0, 0, 19]), (95, &[0; 16])]),
        dhcp([2, 0, 0, 0, 0, 1], &[53, 1, 1, 61, 7, 1, 2, 3, 4, 5, 6, 7, 52, 1, 3, 255]),
    ];
    let mut world = World::new(script);
    world.can_wait = false;
    for round in 0..3000 {
        world.next_flow().client = damage(&mut random, &good[round % good.len()]);
        let outcome = world.start();
        assert!(
            matches!(outcome, Outcome::Done) && world.log() == "ok",
            "round {round}: {:?} on {:02x?}",
            world.record.error,
            world.client
        );
    }
}
