//! What a test file can say, and what it is told where it is wrong.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "test")]

mod world;

use script_runner::{Lines, Settings, report};
use world::{TCP, case, configuration, only_case, quick, run, run_with, told};

const SCRIPT: &str = "local text = avi.l4.read()\n\
    if text:sub(1, 1) == 'w' then avi.pool.select('www'); avi.vs.log('to www') end\n\
    if text:sub(1, 1) == 'r' then avi.vs.close_conn(true) end\n\
    if text:sub(1, 1) == 'f' then avi.vs.close_conn() end\n\
    if text:sub(1, 1) == 'e' then error('broken') end\n\
    if text:sub(1, 1) == 'k' then avi.vs.log(avi.vs.table_lookup('box', avi.vs.client_ip(), 0)) end\n\
    if text:sub(1, 1) == 'p' then avi.vs.persist('key', 600) end\n";

fn check(payload: &str, body: &str) -> String {
    told(&run(&configuration(SCRIPT, TCP), &case(payload, body))).join("\n")
}

#[test]
fn expectations_hold_where_they_should() {
    for (payload, body) in [
        (
            "'www'",
            "expect(flow):selects('www', '192.0.2.20:80')\nexpect(flow):logs('www')\nexpect(flow):runs(1)",
        ),
        (
            "'www'",
            "expect(flow:pool()):equals('www')\nexpect(flow:server()):matches('^192')\nexpect(flow:log()):contains('www')",
        ),
        (
            "'www'",
            "flow:reply('hi')\nexpect(flow):client_receives('hi')\nexpect(flow):server_receives('www')",
        ),
        (
            "'www'",
            "server('www', '192.0.2.20:80'):down()\nlocal b = client('192.0.2.7:1')\nb:send('www')\nexpect(b):selects('www', '192.0.2.21:80')",
        ),
        (
            "'www'",
            "server('www', '192.0.2.21:80'):disable()\nlocal b = client('192.0.2.7:1')\nb:send('www')\nexpect(b):selects('www', '192.0.2.20:80')",
        ),
        ("'reset'", "expect(flow):closes('reset')\nexpect(flow):closes()\nexpect(flow:server()):is_nil()"),
        ("'fin'", "expect(flow):closes('fin')"),
        ("'error'", "expect(flow):fails('broken')\nexpect(flow):closes()"),
        (
            "'persist'",
            "expect(kv.lookup('key')):differs_from(nil)\nlocal _, left = kv.lookup('key')\nexpect(left):equals(600)\nwait(100)\nlocal _, later = kv.lookup('key')\nexpect(later):equals(500)",
        ),
        (
            "'x'",
            "kv.insert('box', '192.0.2.7', 'bad', 400)\nlocal b = client('192.0.2.7:1')\nb:send('k')\nexpect(b):logs('bad')",
        ),
        (
            "'x'",
            "expect(hex'00 ff:10'):equals('\\0\\255\\16')\nexpect(be(258, 3)):equals('\\0\\1\\2')\nexpect(le(258, 2)):equals('\\2\\1')",
        ),
        (
            "'x'",
            "expect(file'hello.bin'):equals('hello\\n')\nexpect(1 == 1):is_true()\nexpect(1 == 2):is_false()",
        ),
        ("'x'", "flow:finish()\nexpect(flow):closes('fin')"),
        ("'x'", "flow:reset()\nexpect(flow):server_receives('x')"),
    ] {
        assert_eq!(check(payload, body), "", "{body}");
    }
}

#[test]
fn expectations_that_fail_say_what_was_found() {
    for (payload, body, wanted) in [
        (
            "'x'",
            "expect(flow):selects('www', '192.0.2.21:80')",
            "4: the flow of 192.0.2.7:4242 should go to:\n  expected  www (192.0.2.21:80)\n  found     api (192.0.2.22:80)",
        ),
        ("'www'", "expect(flow):logs('api')", "should log:\n  expected  \"api\"\n  found     \"to www\""),
        (
            "'www'",
            "expect(flow):closes()",
            "4: the flow of 192.0.2.7:4242 should be closed\n  found     www (192.0.2.20:80)",
        ),
        (
            "'reset'",
            "expect(flow):closes('fin')",
            "should be closed by:\n  expected  fin\n  found     closed by reset",
        ),
        ("'reset'", "expect(flow):selects('www')", "found     nowhere; it was closed: reset"),
        ("'error'", "expect(flow):selects('www')", "the script failed: set:request_inline:5: broken"),
        (
            "'www'",
            "expect(flow):fails('x')",
            "should fail with:\n  expected  \"x\"\n  found     it did not fail",
        ),
        ("'www'", "expect(flow):runs(2)", "should be started:\n  expected  2 times\n  found     1 times"),
        ("'www'", "expect(flow):is_waiting()", "should wait for more bytes"),
        (
            "'www'",
            "expect(flow):server_receives('www!')",
            "the server of the flow of 192.0.2.7:4242 should get:\n  expected  \"www!\"\n  found     only the first 3 of 4 bytes",
        ),
        (
            "'www'",
            "expect(flow:log()):equals('\\0')",
            "the value should be:\n  expected  \"\\000\"\n  found     \"to www\"",
        ),
        ("'www'", "expect(flow:log()):is_nil()", "the value should be nil\n  found     \"to www\""),
        ("'www'", "local x\nexpect(1):equals(x.y)", "5: attempt to index local 'x' (a nil value)"),
    ] {
        let told = check(payload, body);
        assert!(told.contains(wanted), "{body}\n--- told:\n{told}\n--- wanted:\n{wanted}");
        assert!(told.starts_with("case_test.lua:"), "{told}");
    }
}

#[test]
fn what_is_written_wrong_is_told_with_the_way_out() {
    for (body, wanted) in [
        ("expect(flow):select('www')", "has no `select`: did you mean `selects`?"),
        ("flow.send('x')", "write a colon: flow:send(bytes)"),
        ("flow:sned('x')", "a flow has no `sned`: did you mean `send`?"),
        ("flow:send(42)", "flow:send takes a string of bytes, not a number"),
        ("flow:send('x', { hole = true })", "has no `hole`: did you mean `whole`?"),
        ("expct(flow):selects('www')", "there is no `expct`: did you mean `expect`?"),
        ("count = 1", "`count` would be a global variable: write local before it"),
        ("expect(flow):selects('wwww')", "there is no pool \"wwww\": did you mean \"www\"?"),
        (
            "expect(flow):selects('www', '192.0.2.22:80')",
            "pool \"www\" has no server \"192.0.2.22:80\": there are 192.0.2.20:80, 192.0.2.21:80",
        ),
        (
            "server('www', '192.0.2.20:80'):kill()",
            "a server has no `kill`: there are: disable, down, enable, up",
        ),
        ("client('192.0.2.7')", "is no address with a port: write \"198.51.100.7:4242\""),
        ("client('192.0.2.7:4242')", "is a client of 192.0.2.10:80 already: take another port"),
        ("client('198.51.100.7:1')", "weir has no route to 198.51.100.7: add a [[route]]"),
        (
            "client('[2001:db8::7]:1')",
            "no service listens there: there are { to = \"192.0.2.10:80\", proto = \"tcp\" }",
        ),
        ("client('192.0.2.7:1', { port = 1 })", "the second argument of client has no `port`"),
        ("client('192.0.2.7:1', { proto = 'sctp' })", "`proto` is \"tcp\" or \"udp\", not \"sctp\""),
        ("hex'1'", "hex takes two digits for each byte; these are 1"),
        ("hex'zz'", "hex takes hexadecimal digits and blanks, not \"z\""),
        ("file'none.bin'", "cannot read"),
        ("be(256, 1)", "be takes a whole number and how many bytes it gets"),
        ("wait(-1)", "wait takes seconds"),
        ("wait('1')", "wait takes seconds"),
        ("kv.insert('key')", "kv.insert takes a key and a value"),
        ("kv.lookup(nil)", "kv.lookup takes a key"),
        ("tables_of('htp').lookup('x')", "there is no service \"htp\": did you mean \"http\"?"),
        ("expect(flow):logs('')", "every log contains \"\""),
        ("expect(flow):closes('rst')", "closes takes \"reset\" or \"fin\""),
        ("it('inner', function() end)", "it stands outside of `it`"),
        ("flow:finish()\nwait(1)\nflow:send('y')", "the connection is not open"),
        ("", "the case expects nothing, so that it cannot fail"),
    ] {
        let told = check("'x'", body);
        assert!(told.contains(wanted), "{body}\n--- told:\n{told}\n--- wanted:\n{wanted}");
        assert!(told.starts_with("case_test.lua:"), "{told}");
    }
}

#[test]
fn files_that_cannot_be_loaded_say_why() {
    for (test, place, wanted) in [
        ("it('x', function()\n  local = 1\nend)", "case_test.lua:2", "expected near '='"),
        ("it('x', function() end)\nit('x', function() end)", "case_test.lua:2", "two cases have the name"),
        ("it('x')", "case_test.lua:1", "it takes a name and a function"),
        ("\nclient('192.0.2.7:1')", "case_test.lua:2", "there is a network inside of `it` only"),
        ("local x = nil + 1", "case_test.lua:1", "attempt to perform arithmetic"),
        (
            "while true do pcall(function() while true do end end) end",
            "case_test.lua:1",
            "does a loop have no end?",
        ),
    ] {
        let problem = run(&configuration(SCRIPT, TCP), test).broken.unwrap();
        assert_eq!(problem.place, place, "{test}: {problem:?}");
        assert!(problem.text.contains(wanted), "{test}: {problem:?}");
    }
}

#[test]
fn a_case_without_an_end_is_stopped_and_the_next_one_runs() {
    let test = "it('hangs', function() while true do pcall(function() while true do end end) end end)\n\
        it('works', function() local f = client('192.0.2.7:1'); f:send('www'); expect(f):selects('www') end)";
    let report = run(&configuration(SCRIPT, TCP), test);
    let told = report::failure_lines(report.cases[0].failure.as_ref().unwrap());
    assert!(told[0].starts_with("case_test.lua:1: stopped after 50 million instructions"), "{told:?}");
    assert_eq!(report.cases[1].failure, None);
}

#[test]
fn groups_share_what_comes_before_each_of_their_cases() {
    let test = "local flow\n\
        before_each(function() kv.insert('box', '192.0.2.7', 'bad', 400) end)\n\
        describe('boxed', function()\n\
        before_each(function() flow = client('192.0.2.7:1') end)\n\
        it('one', function() flow:send('k'); expect(flow):logs('bad') end)\n\
        describe('inner', function() it('two', function() flow:send('k'); expect(flow):logs('bad') end) end)\n\
        end)\n\
        it('outside', function() expect(kv.lookup('box', '192.0.2.7')):equals('bad') end)\n";
    let snapshot = configuration(SCRIPT, TCP);
    let report = run(&snapshot, test);
    let names: Vec<_> = report.cases.iter().map(|case| (case.name.as_str(), &case.failure)).collect();
    assert_eq!(names, [("boxed: one", &None), ("boxed: inner: two", &None), ("outside", &None)]);
    let settings = Settings { filter: Some("inner"), effort: quick(), ..Settings::default() };
    let report = run_with(&snapshot, test, settings, &mut Lines::new());
    assert_eq!(only_case(&report).name, "boxed: inner: two");
}

#[test]
fn a_flow_of_another_case_is_not_taken_for_one_of_this() {
    let test = "local kept\n\
        it('one', function() kept = kept or client('192.0.2.7:1'); kept:send('www'); expect(kept):selects('www') end)\n";
    let report = run(&configuration(SCRIPT, TCP), test);
    let told = told(&report).join("\n");
    assert!(told.contains("this flow is one of another case"), "{told}");
}

#[test]
fn a_case_that_keeps_something_is_told_apart_from_a_script_that_does() {
    let test = "local count = 0\n\
        it('counts', function()\n count = count + 1\n local flow = client('192.0.2.7:' .. count)\n flow:send('www', { whole = true })\n expect(flow):selects('www')\n end)\n";
    let told = told(&run(&configuration(SCRIPT, TCP), test));
    assert_eq!(
        told[0],
        "two runs alike came out differently: does the test keep something between its cases?"
    );
}

#[test]
fn services_are_told_apart() {
    let two = format!("{TCP}{}", TCP.replace("http", "dns").replace("tcp/80", "udp/53"));
    let snapshot = configuration(SCRIPT, &two);
    let told_of = |body: &str| told(&run(&snapshot, &format!("it('x', function()\n{body}\nend)"))).join("\n");
    let told = told_of("client('192.0.2.7:1')");
    assert!(told.contains("say which service is meant, there are several: client(address, { to = \"192.0.2.10:80\", proto = \"tcp\" })"), "{told}");
    assert!(
        told_of("kv.lookup('x')").contains("tables_of(\"http\") is one"),
        "{}",
        told_of("kv.lookup('x')")
    );
    let good = "local f = client('192.0.2.7:1', { proto = 'udp' })\nf:send('p')\nexpect(tables_of('dns').lookup('key')):differs_from(nil)\nexpect(tables_of('http').lookup('key')):is_nil()";
    assert_eq!(told_of(good), "");
    let gone = "local f = client('192.0.2.7:1', { proto = 'udp' })\nf:send('reset')\nexpect(f):closes()";
    assert_eq!(told_of(gone), "");
}

#[test]
fn coverage_names_the_lines_that_no_case_reached() {
    let snapshot = configuration(
        "local text = avi.l4.read()\nif text == 'a' then\n  avi.vs.log('a')\nelse\n  avi.vs.log('b')\nend\n",
        TCP,
    );
    let mut lines = Lines::new();
    let settings = Settings { coverage: true, effort: quick(), ..Settings::default() };
    let report = run_with(&snapshot, &case("'a'", "expect(flow):logs('a')"), settings, &mut lines);
    assert_eq!(told(&report), [""; 0]);
    let covered = script_runner::coverage(&snapshot, &lines).unwrap();
    let text = report::coverage_text(&covered);
    assert!(text.ends_with(" of 4 lines (75 %)\n     5 |   avi.vs.log('b')\n"), "{text}");
}

#[test]
fn reports_for_programs_have_the_same_in_them() {
    let test = "it('good #1', function() local f = client('192.0.2.7:1'); f:send('www'); expect(f):selects('www') end)\n\
        it('bad <&>', function() local f = client('192.0.2.7:1'); f:send('x'); expect(f):selects('www') end)";
    let file = run(&configuration(SCRIPT, TCP), test);
    let mut tap = report::Tap::default();
    let points: String = file.cases.iter().map(|case| tap.case("t.lua", case)).collect();
    assert_eq!(
        format!("{points}{}", tap.plan()),
        "ok 1 - t.lua: good \\#1\nnot ok 2 - t.lua: bad <&>\n  ---\n  message: |\n    \
         case_test.lua:2: the flow of 192.0.2.7:1 should go to:\n      expected  www\n      found     api (192.0.2.22:80)\n  ...\n1..2\n"
    );
    let junit = report::junit(std::slice::from_ref(&file));
    assert!(junit.contains("tests=\"2\" failures=\"1\" errors=\"0\""), "{junit}");
    assert!(
        junit.contains("name=\"bad &lt;&amp;&gt;\">\n      <failure message=\"case_test.lua:2: the flow"),
        "{junit}"
    );
    let json = report::case_json("t.lua", &file.cases[1]);
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!((&json["passed"], &json["failure"]["kind"]), (&false.into(), &"whole".into()));
    assert_eq!(json["failure"]["problem"]["found"], "api (192.0.2.22:80)");
}
