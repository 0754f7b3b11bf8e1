//! The log through the real threads: files, reopening, broken and slow destinations.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use control::client::request;
use control::{Control, ControlSettings, LogDestination};
use dataplane::channel::{Answer, Capacities, Command, PuntedPacket, Query, WorkerEnd, channel};

use crate::fixture;
use crate::peer::{Behaviour, Peer};

fn spawn(log: LogDestination, socket: Option<&Path>, records: usize) -> (Control, WorkerEnd) {
    let mut snapshot = fixture::snapshot();
    snapshot.pools.iter_mut().for_each(|pool| pool.monitors.clear());
    let (worker, end) = channel(Capacities { records, ..Capacities::default() });
    let settings =
        ControlSettings { log, admin_socket: socket.map(Path::to_owned), ..ControlSettings::new(&snapshot) };
    (Control::spawn(Arc::new(snapshot), vec![end], settings).unwrap(), worker)
}

fn lines(path: &Path) -> Vec<serde_json::Value> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Waits until `done`, at most five seconds.
fn wait_for(what: &str, mut done: impl FnMut() -> bool) {
    for _ in 0..1000 {
        if done() {
            return;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    panic!("waited in vain: {what}");
}

#[test]
fn records_become_lines_also_those_that_are_queued_at_the_end() {
    let directory = tempfile::tempdir().unwrap();
    let (path, moved) = (directory.path().join("log"), directory.path().join("log.1"));
    let (control, worker) = spawn(LogDestination::File(path.clone()), None, 1024);
    assert!(worker.records().send(fixture::ended(), None));
    wait_for("the first line", || lines(&path).len() == 1);
    let line = &lines(&path)[0];
    assert_eq!(line["client"], fixture::record().client.to_string());
    let time: SystemTime = line["time"].as_str().unwrap().parse::<humantime::Timestamp>().unwrap().into();
    let age = SystemTime::now().duration_since(time).unwrap();
    assert!(age > Duration::from_millis(1500) && age < Duration::from_secs(60), "the start: {age:?}");

    std::fs::rename(&path, &moved).unwrap();
    control.reopen_log();
    wait_for("the new file", || path.exists());
    for _ in 0..700 {
        assert!(worker.records().send(fixture::ended(), None));
    }
    control.shutdown();
    assert_eq!((lines(&moved).len(), lines(&path).len()), (1, 700));
}

#[test]
fn a_broken_destination_is_counted_and_hurts_nobody() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("admin");
    let (control, worker) = spawn(LogDestination::File("/dev/full".into()), Some(&socket), 16);
    for _ in 0..5 {
        assert!(worker.records().send(fixture::ended(), None));
    }
    wait_for("five lost lines", || {
        request(&socket, "show info json").unwrap().contains("\"log_lines\":0,\"log_lines_lost\":5")
    });
    control.shutdown();
}

#[test]
fn a_destination_that_blocks_fills_the_queue_and_does_not_stop_the_shutdown() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("pipe");
    let made = std::process::Command::new("mkfifo").arg(&path).status().unwrap();
    assert!(made.success());
    let reader = std::fs::OpenOptions::new().read(true).write(true).open(&path).unwrap();
    let (control, worker) = spawn(LogDestination::File(path), None, 64);
    wait_for("a full queue", || (0..1000).any(|_| !worker.records().send(fixture::ended(), None)));
    std::thread::sleep(Duration::from_millis(50));
    let refused = (0..1000).filter(|_| !worker.records().send(fixture::ended(), None)).count();
    assert!(refused >= 900, "the pipe is full and nobody reads it: {refused}");
    let start = SystemTime::now();
    control.shutdown();
    assert!(start.elapsed().unwrap() < Duration::from_secs(1));
    drop(reader);
}

#[test]
fn what_the_monitors_find_reaches_worker_and_log() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("log");
    let snapshot = Arc::new(fixture::snapshot());
    let (mut worker, end) = channel(Capacities::default());
    let settings =
        ControlSettings { log: LogDestination::File(path.clone()), ..ControlSettings::new(&snapshot) };
    let control = Control::spawn(snapshot, vec![end], settings).unwrap();
    let mut peer = Peer::with(&[
        ("10.0.0.11", Behaviour::Answers("")),
        ("10.0.0.12", Behaviour::Refuses),
        ("10.0.0.53", Behaviour::Answers("")),
        ("2001:db8:1::53", Behaviour::Answers("")),
    ]);
    let mut found = Vec::new();
    wait_for("four findings", || {
        while let Some(PuntedPacket(packet)) = worker.packet() {
            for answer in peer.handle(&packet) {
                assert!(worker.punt(&answer));
            }
        }
        while let Some(command) = worker.command() {
            match command {
                Command::ServerHealth { server, up } => found.push((server.0, up)),
                Command::Query(Query::Ping, reply) => reply.send(Answer::Pong),
                other => panic!("{other:?}"),
            }
        }
        found.len() == 4
    });
    found.sort_unstable();
    assert_eq!(found, [(0, true), (1, false), (2, true), (3, true)]);
    control.shutdown();
    let mut logged: Vec<_> = lines(&path)
        .iter()
        .map(|line| (line["server"].as_str().unwrap().to_owned(), line["up"].as_bool().unwrap()))
        .collect();
    logged.sort();
    let expected = [
        ("10.0.0.11:8443", true),
        ("10.0.0.12:8443", false),
        ("10.0.0.53:53", true),
        ("[2001:db8:1::53]:53", true),
    ];
    assert_eq!(logged, expected.map(|(server, up)| (server.to_owned(), up)));
}
