//! The admin socket over a real Unix socket.

use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use control::client::{self, request};
use control::{Control, ControlSettings, Error, Explainer, LogDestination};
use dataplane::channel::{Capacities, Command, channel};
use dataplane::policy::Event;
use dataplane::snapshot::ScriptSetId;
use dataplane::snapshot::ServerId;
use tempfile::TempDir;

use crate::{fixture, worker};

/// Control with a made-up worker behind it.
pub struct Setup {
    pub directory: TempDir,
    pub control: Control,
    worker: JoinHandle<Vec<Command>>,
}

impl Setup {
    pub fn new() -> Setup {
        Setup::with_explainer(None)
    }

    pub fn with_explainer(explainer: Option<Explainer>) -> Setup {
        let directory = tempfile::tempdir().unwrap();
        let snapshot = Arc::new(fixture::snapshot());
        let (worker_end, control_end) = channel(Capacities::default());
        let settings = ControlSettings { explainer, ..settings(&directory.path().join("admin")) };
        let control = Control::spawn(snapshot, vec![control_end], settings).unwrap();
        let worker = std::thread::spawn(move || worker::run_worker(worker_end));
        Setup { directory, control, worker }
    }

    pub fn socket(&self) -> PathBuf {
        self.directory.path().join("admin")
    }

    pub fn ask(&self, line: &str) -> Result<String, client::Error> {
        request(&self.socket(), line)
    }

    /// Stops everything; what the worker was told, but for queries.
    pub fn stop(self) -> Vec<Command> {
        assert!(self.control.workers().stop());
        let commands = self.worker.join().unwrap();
        self.control.shutdown();
        commands
    }
}

fn settings(socket: &Path) -> ControlSettings {
    ControlSettings {
        admin_socket: Some(socket.to_owned()),
        log: LogDestination::None,
        seed: 1,
        version: "1.2.3".into(),
        ..ControlSettings::new(&fixture::snapshot())
    }
}

fn refusal(answer: Result<String, client::Error>) -> String {
    match answer {
        Err(client::Error::Refused(text)) => text,
        other => panic!("{other:?}"),
    }
}

#[test]
fn servers_are_enabled_and_disabled() {
    let setup = Setup::new();
    assert_eq!(setup.ask("disable server web 10.0.0.12:8443").unwrap(), "ok\n");
    assert_eq!(setup.ask("enable server dns [2001:db8:1::53]:53").unwrap(), "ok\n");
    assert!(refusal(setup.ask("enable server web 10.0.0.99:1")).starts_with("there is no server"));
    assert!(refusal(setup.ask("reboot")).contains("show counters"), "what exists is named");
    let commands = setup.stop();
    let wishes: Vec<_> = commands
        .iter()
        .filter_map(|command| match command {
            Command::ServerEnabled { server, enabled } => Some((*server, *enabled)),
            _ => None,
        })
        .collect();
    assert_eq!(wishes, [(ServerId(1), false), (ServerId(3), true)]);
}

#[test]
fn a_profile_names_the_lines_where_the_time_goes() {
    let setup = Setup::new();
    let shown = setup.ask("profile script by sni seconds 1").unwrap();
    let expected = "by sni, request script: 30 runs in 1 s, 120 us in Lua, 3 samples\n\
        source           line  samples  percent  time_us  text\n\
        Default-TLS.lua    40        2     66.7     20.3\n\
        sni.lua             2        1     33.3      9.7  local payload = avi.l4.read()\n";
    assert_eq!(shown, expected);
    let json = setup.ask("profile script by sni event request seconds 1 json").unwrap();
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!((&json["runs"], &json["lines"][0]["line"]), (&30.into(), &40.into()));

    assert!(refusal(setup.ask("profile script sni")).ends_with("there are: by sni"));
    assert!(refusal(setup.ask("profile script by sni event response")).contains("has no response script"));
    assert!(refusal(setup.ask("profile script by sni seconds 0")).contains("from 1 to 600"));
    // Two who ask until one of them is refused, because the other one is served.
    let refused = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !refused.load(Ordering::Relaxed) {
                    if let Err(client::Error::Refused(text)) = setup.ask("profile script by sni seconds 1") {
                        assert!(text.contains("being made already"), "{text}");
                        refused.store(true, Ordering::Relaxed);
                    }
                }
            });
        }
    });
    let commands = setup.stop();
    let begun = |command: &&Command| {
        matches!(command, Command::StartProfile { set: ScriptSetId(0), event: Event::Request })
    };
    assert!(commands.iter().filter(begun).count() >= 3, "{commands:?}");
}

#[test]
fn json_answers_are_one_line_of_json() {
    let setup = Setup::new();
    for what in ["counters", "flows", "info", "latency", "pools", "ports", "scripts", "servers", "tables"] {
        let answer = setup.ask(&format!("show {what} json")).unwrap();
        assert_eq!(answer.lines().count(), 1, "{what}");
        let value: serde_json::Value = serde_json::from_str(&answer).unwrap();
        assert!(!value.to_string().contains("null,null"), "{what}: {value}");
    }
    let counters: serde_json::Value =
        serde_json::from_str(&setup.ask("show counters json").unwrap()).unwrap();
    assert_eq!(counters["totals"]["received"], 1012);
    assert_eq!(counters["totals"]["balanced"], true);
    assert_eq!(counters["dropped"][0]["reason"], "no_flow");
    let flows: serde_json::Value =
        serde_json::from_str(&setup.ask("show flows client 192.0.2.99 json").unwrap()).unwrap();
    assert_eq!(flows, serde_json::json!([]), "the filter reaches the worker");
    assert!(refusal(setup.ask("show metrics json")).contains("no json form"));
    setup.stop();
}

#[test]
fn metrics_are_in_the_text_format_of_prometheus() {
    let setup = Setup::new();
    let metrics = setup.ask("show metrics").unwrap();
    setup.stop();
    for line in [
        "weir_received_packets_total 1012",
        "weir_dropped_packets_total{reason=\"no_flow\"} 10",
        "weir_dropped_packets_total{reason=\"truncated\"} 0",
        "weir_server_up{pool=\"dns\",server=\"[2001:db8:1::53]:53\"} 0",
        "weir_server_max_connections{pool=\"dns\",server=\"10.0.0.53:53\"} 2",
        "weir_pool_refused_full_flows_total{pool=\"dns\"} 3",
        "weir_script_budget_stops_total{set=\"by-sni\",event=\"request\"} 1",
        "weir_burst_latency_seconds_count 1000",
        "weir_port_sent_packets_total{port=\"lan\"} 940",
    ] {
        assert!(metrics.lines().any(|found| found == line), "{line}\n{metrics}");
    }
    let mut announced = Vec::new();
    for line in metrics.lines() {
        let words: Vec<&str> = line.split(' ').collect();
        match words[..] {
            ["#", "HELP", name, ..] => assert!(!announced.contains(&name), "{name} announced twice"),
            ["#", "TYPE", name, kind] => {
                assert!(["counter", "gauge", "summary"].contains(&kind));
                assert!(kind != "counter" || name.ends_with("_total"), "{name}");
                announced.push(name);
            }
            [sample, value] => {
                let name = sample.split('{').next().unwrap();
                let base = name.trim_end_matches("_sum").trim_end_matches("_count");
                assert_eq!(announced.last(), Some(&base), "{line}");
                assert!(value.parse::<f64>().is_ok(), "{line}");
            }
            _ => panic!("{line}"),
        }
    }
}

#[test]
fn one_connection_carries_several_requests() {
    let setup = Setup::new();
    let mut stream = UnixStream::connect(setup.socket()).unwrap();
    stream.write_all(b"show latency\r\nshow nothing\nsho").unwrap();
    stream.write_all(b"w pools\n").unwrap();
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    let mut answers = String::new();
    stream.read_to_string(&mut answers).unwrap();
    let answers: Vec<&str> = answers.split_terminator("\n\n").collect();
    assert_eq!(answers.len(), 3, "{answers:?}");
    assert!(answers[0].starts_with("bursts"));
    assert!(answers[1].starts_with("error: unknown command 'show nothing'"));
    assert!(answers[2].starts_with("pool"));
    setup.stop();
}

#[test]
fn idle_clients_are_many_and_do_not_keep_control_from_ending() {
    let setup = Setup::new();
    let mut idle: Vec<UnixStream> = (0..8).map(|_| UnixStream::connect(setup.socket()).unwrap()).collect();
    // The listener takes them in the order in which they came: the ninth is one too many.
    assert!(refusal(setup.ask("help")).contains("8 admin connections already"));
    idle.truncate(3);
    let mut answer = setup.ask("help");
    for _ in 0..200 {
        if answer.is_ok() {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
        answer = setup.ask("help");
    }
    assert!(answer.unwrap().starts_with("show counters"));
    let socket = setup.socket();
    let start = std::time::SystemTime::now();
    setup.stop();
    assert!(start.elapsed().unwrap() < std::time::Duration::from_secs(1));
    assert!(!socket.exists(), "the socket file is removed");
}

#[test]
fn a_worker_that_does_not_answer_is_reported() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("admin");
    let (_worker, end) = channel(Capacities { commands: 8, ..Capacities::default() });
    let control = Control::spawn(Arc::new(fixture::snapshot()), vec![end], settings(&socket)).unwrap();
    assert_eq!(refusal(request(&socket, "show counters")), "the worker does not answer");
    assert!(request(&socket, "show info").unwrap().contains("version             1.2.3"));
    control.shutdown();
}

#[test]
fn the_socket_is_private_and_replaces_only_dead_ones() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("admin");
    let spawn = || {
        let (_, end) = channel(Capacities::default());
        Control::spawn(Arc::new(fixture::snapshot()), vec![end], settings(&socket))
    };
    drop(UnixListener::bind(&socket).unwrap());
    assert!(socket.exists(), "a process died and left its file");
    let first = spawn().unwrap();
    assert_eq!(std::fs::metadata(&socket).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1, "nothing else is left there");
    assert!(matches!(spawn(), Err(Error::SocketInUse(path)) if path == socket));
    assert!(request(&socket, "help").is_ok(), "the first one is unharmed");
    drop(first);
    assert!(!socket.exists());
    std::fs::write(&socket, "a file").unwrap();
    assert!(matches!(spawn(), Err(Error::NotASocket(_))));
    assert_eq!(std::fs::read_to_string(&socket).unwrap(), "a file");
    let error = request(&socket, "help").unwrap_err();
    assert!(matches!(error, client::Error::Connect { .. }));
    // The text has the system's reason; a source would have it printed twice.
    assert!(std::error::Error::source(&error).is_none(), "{error:?}");
    assert_eq!(error.to_string().matches("os error").count(), 1, "{error}");
}

#[test]
fn monitors_without_ports_are_refused() {
    let mut snapshot = fixture::snapshot();
    snapshot.snat.last_port = 65535;
    let (_, end) = channel(Capacities::default());
    let settings = ControlSettings { log: LogDestination::None, ..ControlSettings::new(&snapshot) };
    assert!(matches!(Control::spawn(Arc::new(snapshot), vec![end], settings), Err(Error::NoMonitorPorts)));
}

#[test]
fn several_workers_give_one_answer() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("admin");
    let capacities = Capacities { commands: 4, ..Capacities::default() };
    let (mut ends, controls): (Vec<_>, Vec<_>) = (0..3).map(|_| channel(capacities)).unzip();
    let control = Control::spawn(Arc::new(fixture::snapshot()), controls, settings(&socket)).unwrap();
    let silent = ends.pop().unwrap();
    let running: Vec<_> =
        ends.into_iter().map(|end| std::thread::spawn(|| worker::run_worker(end))).collect();

    assert_eq!(refusal(request(&socket, "show counters")), "worker 2 does not answer");
    let workers = request(&socket, "show workers json").unwrap();
    let workers: serde_json::Value = serde_json::from_str(&workers).unwrap();
    assert_eq!(workers[1]["received"], 1012);
    assert_eq!(
        (&workers[2]["state"], &workers[2]["received"]),
        (&"no answer".into(), &serde_json::Value::Null)
    );

    let third = std::thread::spawn(|| worker::run_worker(silent));
    let json = |what: &str| -> serde_json::Value {
        serde_json::from_str(&request(&socket, &format!("show {what} json")).unwrap()).unwrap()
    };
    let counters = json("counters");
    assert_eq!(
        (&counters["totals"]["received"], &counters["totals"]["balanced"]),
        (&3036.into(), &true.into())
    );
    assert_eq!(counters["dropped"][0]["packets"], 30, "of no_flow");
    assert_eq!(json("servers")[0]["flows_total"], 48);
    assert_eq!(json("flows").as_array().unwrap().len(), 3);
    assert_eq!(json("flows limit 2").as_array().unwrap().len(), 2);
    assert_eq!(json("scripts")[0]["runs"], 90);
    assert_eq!(json("latency")[0]["bursts"], 3000);
    assert_eq!(json("ports").as_array().unwrap().len(), 1, "ports are the same for all");
    assert_eq!(json("ports")[0]["rx_packets"], 1012);

    assert_eq!(request(&socket, "disable server web 10.0.0.12:8443").unwrap(), "ok\n");
    assert!(control.workers().stop());
    for worker in running.into_iter().chain([third]) {
        let commands = worker.join().unwrap();
        let told = |command: &Command| matches!(command, Command::ServerEnabled { enabled: false, .. });
        assert!(commands.iter().any(told), "{commands:?}");
    }
    control.shutdown();
}
