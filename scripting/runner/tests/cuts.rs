//! Scripts that depend on how their payload is cut are found, with the smallest cut that breaks them.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "test")]

mod world;

use script_runner::{Failure, Lines, Settings};
use world::{TCP, case, configuration, cut_places, only_case, quick, run, run_with, told};

const GOOD: &str = "avi.l4.collect(6)\nif avi.l4.read(6) == 'GET /x' then avi.pool.select('www') end\n";
/// Looks at six bytes once it has three.
const EAGER: &str =
    "avi.l4.collect(3)\nif avi.l4.read():sub(1, 6) == 'GET /x' then avi.pool.select('www') end\n";

#[test]
fn a_script_that_waits_passes_with_all_cuts() {
    let report = run(&configuration(GOOD, TCP), &case("'GET /x HTTP/1.1'", "expect(flow):selects('www')"));
    let found = only_case(&report);
    assert_eq!(found.failure, None);
    // Two runs in one piece, fourteen cuts, byte by byte, and 24 at random.
    assert_eq!((found.cuts, found.all_cuts, found.runs), (14, 14, 2 + 14 + 1 + 24));
}

#[test]
fn a_script_that_reads_too_early_fails_at_its_smallest_cut() {
    let report = run(&configuration(EAGER, TCP), &case("'GET /x HTTP/1.1'", "expect(flow):selects('www')"));
    assert_eq!(
        told(&report),
        [
            "good in one piece, but not as it may arrive:",
            "  case_test.lua:3: the bytes of 192.0.2.7:4242 (15 bytes), cut after byte 3",
            "case_test.lua:4: the flow of 192.0.2.7:4242 should go to:",
            "  expected  www",
            "  found     api (192.0.2.22:80)",
            "pool and server of 192.0.2.7:4242:",
            "  whole www (192.0.2.20:80)",
            "  cut   api (192.0.2.22:80)",
        ]
    );
    // The cuts after bytes 1 and 2 do not matter to it: it waits for three.
    assert_eq!(only_case(&report).cuts, 3);
}

#[test]
fn what_no_expectation_mentions_is_compared_too() {
    let script = "avi.vs.table_insert('seen', #avi.l4.read())\navi.pool.select('www')\n";
    let report = run(&configuration(script, TCP), &case("'hello'", "expect(flow):selects('www')"));
    let told = told(&report);
    assert_eq!(
        told[1..],
        [
            "  case_test.lua:3: the bytes of 192.0.2.7:4242 (5 bytes), cut after byte 1",
            "tables:",
            "  whole \"seen\" = \"5\"",
            "  cut   \"seen\" = \"1\"",
        ]
    );
}

#[test]
fn a_script_that_runs_twice_is_found() {
    let every = format!("{TCP}[virtual_service.datascript]\nrun = \"every_payload\"\n");
    let once = format!("{GOOD}avi.l4.ds_done()\n");
    let test = case("'GET /x HTTP/1.1'", "expect(flow):selects('www')\nexpect(flow):runs(1)");
    assert_eq!(told(&run(&configuration(&once, &every), &test)), [""; 0]);
    let told = told(&run(&configuration(GOOD, &every), &test)).join("\n");
    assert!(told.contains("should be started:\n  expected  1 times\n  found     2 times"), "{told}");
    assert!(
        told.contains("scripts started of 192.0.2.7:4242:\n  whole request 1, response 0\n  cut   request 2"),
        "{told}"
    );
}

#[test]
fn what_takes_two_cuts_is_made_small() {
    let script = "local have, waits = avi.l4.collect(1), 0\n\
        while have < 20 do waits = waits + 1; have = avi.l4.collect(have + 1) end\n\
        if waits < 2 then avi.pool.select('www') end\n";
    let report = run(&configuration(script, TCP), &case("('x'):rep(20)", "expect(flow):selects('www')"));
    let failure = only_case(&report).failure.as_ref().unwrap();
    assert!(matches!(failure, Failure::Cut { random: true, .. }), "{failure:?}");
    let places = cut_places(failure);
    assert_eq!((places.len(), places[0].len()), (1, 3), "{places:?}");
    assert!(told(&report)[1].contains("as the pieces 0.."), "{:?}", told(&report));
}

#[test]
fn replies_of_servers_are_cut_for_response_scripts() {
    let response = "[[datascript_set]]\nname = \"answers\"\nresponse_inline = '''\navi.vs.log('code=', avi.l4.read():sub(1, 3))\n'''\n";
    let service = TCP.replace("[\"set\"]", "[\"set\", \"answers\"]");
    let test = case(
        "'GET /x HTTP/1.1'",
        "flow:reply('200 fine')\nexpect(flow):logs('code=200')\nexpect(flow):client_receives('200 fine')",
    );
    let told = told(&run(&configuration(GOOD, &format!("{response}{service}")), &test));
    assert_eq!(
        told[1],
        "  case_test.lua:4: the server's reply to 192.0.2.7:4242 (8 bytes), cut after byte 1"
    );
    let patient = response.replace("avi.vs.log", "avi.l4.collect(3)\navi.vs.log");
    assert_eq!(world::told(&run(&configuration(GOOD, &format!("{patient}{service}")), &test)), [""; 0]);
}

#[test]
fn several_payloads_are_cut_one_at_a_time() {
    let script =
        "avi.l4.collect(8)\nif avi.l4.read():sub(1, 10) == 'abcdefghij' then avi.pool.select('www') end\n";
    let test = case("'abcde'", "expect(flow):is_waiting()\nflow:send('fghij')\nexpect(flow):selects('www')");
    let told = told(&run(&configuration(script, TCP), &test));
    assert_eq!(told[1], "  case_test.lua:5: the bytes of 192.0.2.7:4242 (5 bytes), cut after byte 3");
}

#[test]
fn datagrams_and_payloads_sent_whole_are_not_cut() {
    let udp = TCP.replace("tcp/80", "udp/80");
    let script = "if avi.l4.read():sub(1, 6) == 'GET /x' then avi.pool.select('www') end\n";
    let report = run(&configuration(script, &udp), &case("'GET /x'", "expect(flow):selects('www')"));
    assert_eq!((only_case(&report).failure.as_ref(), only_case(&report).all_cuts), (None, 0));
    let report =
        run(&configuration(EAGER, TCP), &case("'GET /x', { whole = true }", "expect(flow):selects('www')"));
    assert_eq!((only_case(&report).failure.as_ref(), only_case(&report).runs), (None, 2));
}

#[test]
fn long_payloads_have_their_cuts_spread() {
    let script = "avi.l4.collect(1)\navi.pool.select('www')\n";
    let mut settings = Settings { effort: quick(), ..Settings::default() };
    settings.effort.cuts = 10;
    let test =
        case("('x'):rep(3000)", "expect(flow):selects('www')\nexpect(flow):server_receives(('x'):rep(3000))");
    let report = run_with(&configuration(script, TCP), &test, settings, &mut Lines::new());
    let found = only_case(&report);
    assert_eq!((&found.failure, found.cuts, found.all_cuts), (&None, 10, 2999));
}

#[test]
fn the_seed_decides_the_random_cuts() {
    // Breaks for about one order in six.
    let script = "local have, waits = avi.l4.collect(1), 0\n\
        while have < 20 do waits = waits + 1; have = avi.l4.collect(have + 1) end\n\
        if waits == 3 then avi.vs.log('three') end\n";
    let test = case("('x'):rep(20)", "expect(flow):selects('api')");
    let snapshot = configuration(script, TCP);
    let with_seed = |seed| {
        let mut settings = Settings::default();
        settings.effort.seed = seed;
        run_with(&snapshot, &test, settings, &mut Lines::new())
    };
    assert_eq!(with_seed(5), with_seed(5));
    let runs: std::collections::BTreeSet<_> = (1..6).map(|seed| only_case(&with_seed(seed)).runs).collect();
    assert!(runs.len() > 1, "{runs:?}");
}
