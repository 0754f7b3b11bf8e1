use super::*;
use crate::fixture;
use dataplane::policy::Event;
use dataplane::script_trace::{Detail, ScriptTrace};
use dataplane::snapshot::Protocol;
use dataplane::trace::SegmentShape;

fn key() -> FlowKey {
    FlowKey::new(Protocol::Tcp, "192.0.2.7:4000".parse().unwrap(), "192.0.2.10:443".parse().unwrap())
}

fn shape() -> Shape {
    let segment = SegmentShape { flags: 0x12, seq: 7, ack: 8, window: 9 };
    Shape { frame: 60, key: key(), payload: 0, segment: Some(segment) }
}

fn lines(what: &What) -> Vec<String> {
    told(&fixture::snapshot(), what, SystemTime::UNIX_EPOCH).lines().collect()
}

fn fields(what: &What) -> Value {
    Value::Object(told(&fixture::snapshot(), what, SystemTime::UNIX_EPOCH).fields)
}

#[test]
fn packets_say_where_they_are_and_what_they_look_like() {
    let frame = Some(vec![0x0a, 0xff].into());
    let direction = Some(Direction::FromClient);
    let what = What::Received { port: PortId(0), direction, shape: shape(), frame };
    assert_eq!(
        lines(&what),
        ["received on lan: tcp 192.0.2.7:4000 > 192.0.2.10:443 [SA] seq 7 ack 8 win 9, 0 bytes"]
    );
    let fields = fields(&what);
    assert_eq!(
        (&fields["frame"], &fields["from"], &fields["flags"]),
        (&"0aff".into(), &"client".into(), &"SA".into())
    );
}

#[test]
fn a_choice_says_who_chose_what_and_what_came_of_it() {
    let web = Selection::Pool(PoolId(0));
    for (selection, why, server, expected) in [
        (
            web,
            Why::Script,
            Ok(ServerId(1)),
            "a script chose pool web: 10.0.0.12:8443 of pool web (round_robin)",
        ),
        (
            web,
            Why::Default,
            Ok(ServerId(2)),
            "by default pool web: its fail_action leads to 10.0.0.53:53 of pool dns (round_robin)",
        ),
        (
            Selection::Server(ServerId(0)),
            Why::Persistence,
            Ok(ServerId(0)),
            "persistence leads to server 10.0.0.11:8443: 10.0.0.11:8443 of pool web (as named)",
        ),
        (
            web,
            Why::Retry(2),
            Err(Close::Graceful),
            "after 2 servers that could not be reached: pool web: no server can take it: closed",
        ),
    ] {
        assert_eq!(lines(&What::Chosen { selection, why, server }), [format!("  {expected}")]);
    }
}

#[test]
fn a_drop_has_its_reason_and_what_it_means() {
    let what = What::Verdict { verdict: Verdict::Drop(DropReason::NoService), left: None };
    let [line] = <[String; 1]>::try_from(lines(&what)).unwrap();
    assert!(line.starts_with("  DROPPED: no_service (The address is weir's"), "{line}");
    assert_eq!(
        (&fields(&what)["verdict"], &fields(&what)["reason"]),
        (&"dropped".into(), &"no_service".into())
    );
}

#[test]
fn scripts_are_told_with_their_steps_and_errors() {
    let mut trace = ScriptTrace::new(8, Detail::Calls);
    trace.end(None, 1000);
    let end = ScriptEnd::Failed(dataplane::policy::ScriptFailure::Error);
    let error = Some("x.lua:1: boom\nstack traceback:".into());
    let what = What::Script { event: Event::Request, resumed: true, end, error, trace: Box::new(trace) };
    let expected = [
        "  request script has failed: error",
        "      ends after 1.0 us in Lua",
        "      x.lua:1: boom",
        "      stack traceback:",
    ];
    assert_eq!(lines(&what), expected);
    assert_eq!(fields(&what)["steps"][0]["step"], "end");
}

#[test]
fn the_end_has_the_fields_of_the_log() {
    let what = What::End(Box::new(fixture::record()));
    let fields = fields(&what);
    assert_eq!((&fields["pool"], &fields["termination"]), (&"web".into(), &"--".into()));
    assert_eq!((fields.get("time"), &fields["started"]), (None, &"1970-01-01T00:00:00.000Z".into()));
    let lines = lines(&what);
    assert!(
        lines[0].starts_with("flow ends: -- (Nobody: a normal end); 6 packets with 517 bytes in"),
        "{lines:?}"
    );
    assert_eq!(lines[1], "  log: sni=a.example \\x00\\xff");
}
