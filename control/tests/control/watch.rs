//! Traces over a real Unix socket, told by a made-up worker.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;

use control::Explainer;
use control::capture::{Capture, Limits};
use control::client::{self, Next, stream};
use dataplane::channel::Command;
use dataplane::snapshot::Protocol;

use crate::admin::Setup;

fn lines(setup: &Setup, request: &str) -> Result<Vec<String>, client::Error> {
    let mut lines = Vec::new();
    stream(&setup.socket(), request, |line| {
        lines.extend(line.map(str::to_owned));
        Next::GoOn
    })?;
    Ok(lines)
}

#[test]
fn a_trace_is_streamed_until_its_flows_have_ended() {
    let setup = Setup::new();
    let told = lines(&setup, "trace flows 1 protocol tcp port 81").unwrap();
    assert_eq!(told.len(), 5, "{told:?}");
    assert_eq!(told[0], "armed: 1 flows are followed, for 60 s at most");
    let told = &told[1..];
    let texts: Vec<&str> = told.iter().take(3).filter_map(|line| line.get(23..)).collect();
    let expected = [
        "tcp 192.0.2.10:40000 > 198.51.100.1:81",
        "received on lan: tcp 192.0.2.10:40000 > 198.51.100.1:81 0 bytes",
        "  DROPPED: no_service (The address is weir's, but no service and no flow is on that port.)",
    ];
    assert_eq!(texts, expected, "{told:?}");
    assert!(told.iter().take(3).all(|line| line.starts_with("   1  ")), "{told:?}");
    assert_eq!(told[3], "over: all flows have ended; 1 flows, 3 events, 0 events lost");
    let orders: Vec<_> = setup
        .stop()
        .into_iter()
        .filter_map(|command| match command {
            Command::Trace(order) => Some((order.flows, order.filter.port, order.filter.protocol)),
            _ => None,
        })
        .collect();
    assert_eq!(orders, [(1, Some(81), Some(Protocol::Tcp))], "the filter reaches the worker");
}

#[test]
fn the_stream_as_json_becomes_a_capture() {
    let setup = Setup::new();
    let told = lines(&setup, "trace flows 1 frames 100 json").unwrap();
    let mut capture = Capture::new(Vec::new(), Limits::default()).unwrap();
    for line in &told {
        assert!(capture.line(line).unwrap());
    }
    assert_eq!((capture.packets(), capture.flows()), (1, 1));
    let received: serde_json::Value = serde_json::from_str(&told[2]).unwrap();
    assert_eq!((&received["event"], &received["frame"]), (&"received".into(), &"010203".into()));
    // The worker's clock was at 77 s when it was asked, and so it was when the packet came.
    let time = received["time"].as_str().and_then(|time| humantime::parse_rfc3339(time).ok()).unwrap();
    let ago = std::time::SystemTime::now().duration_since(time).unwrap();
    assert!(ago < std::time::Duration::from_secs(20), "{ago:?}");
    setup.stop();
}

#[test]
fn there_is_one_at_a_time_and_a_client_that_goes_ends_it() {
    let setup = Setup::new();
    let mut first = UnixStream::connect(setup.socket()).unwrap();
    first.write_all(b"trace flows 5\n").unwrap();
    // What it says first it says when it has begun: whoever asks earlier may be the first.
    let mut begun = String::new();
    BufReader::new(&first).read_line(&mut begun).unwrap();
    match lines(&setup, "trace flows 1") {
        Err(client::Error::Refused(text)) => assert!(text.contains("under way already"), "{text}"),
        other => panic!("{other:?}"),
    }
    assert!(setup.ask("show pools").is_ok(), "other requests are answered meanwhile");
    drop(first);
    let again = (0..100).any(|_| {
        std::thread::sleep(std::time::Duration::from_millis(20));
        lines(&setup, "trace flows 1").is_ok()
    });
    assert!(again, "the trace of the client that is gone goes on");
    setup.stop();
}

#[test]
fn a_client_that_asks_for_the_end_hears_what_was_told() {
    let setup = Setup::new();
    let mut lines = Vec::new();
    stream(&setup.socket(), "trace flows 5", |line| {
        lines.extend(line.map(str::to_owned));
        Next::End
    })
    .unwrap();
    assert!(lines.len() >= 2, "{lines:?}");
    let last = lines.last().unwrap();
    assert!(last.starts_with("over: the client has asked for the end; "), "{last}");
    setup.stop();
}

#[test]
fn what_is_not_understood_is_refused_and_control_ends_in_the_middle() {
    let setup = Setup::new();
    match lines(&setup, "trace client nobody") {
        Err(client::Error::Refused(text)) => assert_eq!(text, "'nobody' is not an IP address"),
        other => panic!("{other:?}"),
    }
    let socket = setup.socket();
    let (sender, receiver) = std::sync::mpsc::channel();
    let client = std::thread::spawn(move || {
        let mut last = String::new();
        let ended = stream(&socket, "trace flows 5", |line| {
            if let Some(line) = line {
                last = line.to_owned();
                let _ = sender.send(());
            }
            Next::GoOn
        });
        (ended.is_ok(), last)
    });
    receiver.recv_timeout(std::time::Duration::from_secs(5)).unwrap();
    setup.stop();
    let (ended, last) = client.join().unwrap();
    assert!(ended && last.starts_with("over: weir ends; 1 flows"), "{last}");
}

#[test]
fn a_question_is_answered_by_how_things_are() {
    let explainer = Explainer::new(|_, question, live| {
        if question.vip.port() != 443 {
            return Err("nobody is there".to_owned());
        }
        let key = String::from_utf8_lossy(&live.entries[0].key).into_owned();
        let payload = question.payload.as_ref().map_or(0, Vec::len);
        Ok(format!("{} of {} entries, {payload} bytes, {key:?}\n", live.entries.len(), live.held))
    });
    let setup = Setup::with_explainer(Some(explainer));
    let payload = "00".repeat(60_000);
    let answer = setup.ask(&format!("explain client 10.0.0.7:1 vip 198.51.100.1:443 payload {payload}"));
    assert_eq!(answer.unwrap(), "1 of 7 entries, 60000 bytes, \"user\\0\\u{1}\"\n");
    match setup.ask("explain client 10.0.0.7:1 vip 198.51.100.1:444") {
        Err(client::Error::Refused(text)) => assert_eq!(text, "nobody is there"),
        other => panic!("{other:?}"),
    }
    setup.stop();
}
