//! Reload, with a made-up worker.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use control::client::{self, request};
use control::{Control, ControlSettings, Explainer, LogDestination, Reread, Signals};
use dataplane::channel::{Capacities, Command, Query, channel};
use dataplane::snapshot::{PoolId, ServerId, ServiceId, Snapshot, Target};
use tempfile::TempDir;

use crate::{fixture, worker};

/// Control whose next configuration is what the test says.
struct Setup {
    directory: TempDir,
    control: Control,
    signals: Signals,
    /// Reloads that have come to the file.
    begun: Arc<AtomicUsize>,
    next: Arc<Mutex<Result<Snapshot, String>>>,
    worker: JoinHandle<Vec<Command>>,
}

impl Setup {
    fn new() -> Setup {
        Setup::with(fixture::snapshot())
    }

    /// With this configuration at first.
    fn with(first: Snapshot) -> Setup {
        let directory = tempfile::tempdir().unwrap();
        let next = Arc::new(Mutex::new(Ok(fixture::snapshot())));
        let file = Arc::clone(&next);
        let begun = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&begun);
        let signals = Signals::default();
        let settings = ControlSettings {
            admin_socket: Some(directory.path().join("admin")),
            log: LogDestination::File(directory.path().join("log")),
            reread: Some(Reread::new(move || {
                count.fetch_add(1, Ordering::Relaxed);
                file.lock().unwrap().clone().map(Arc::new)
            })),
            signals: signals.clone(),
            explainer: Some(Explainer::new(|_, question, live| {
                Ok(format!("{} by configuration {}\n", question.vip, live.generation))
            })),
            ..ControlSettings::new(&first)
        };
        let (worker_end, control_end) = channel(Capacities::default());
        let control = Control::spawn(Arc::new(first), vec![control_end], settings).unwrap();
        let worker = std::thread::spawn(move || worker::run_worker(worker_end));
        Setup { directory, control, signals, begun, next, worker }
    }

    fn ask(&self, line: &str) -> Result<String, String> {
        match request(&self.directory.path().join("admin"), line) {
            Ok(answer) => Ok(answer),
            Err(client::Error::Refused(text)) => Err(text),
            Err(other) => panic!("{other:?}"),
        }
    }

    fn in_the_background(&self, line: &'static str) -> JoinHandle<Result<String, client::Error>> {
        let socket = self.directory.path().join("admin");
        std::thread::spawn(move || request(&socket, line))
    }

    /// Waits until so many reloads have come to the file, which the test holds.
    fn wait_for_reloads(&self, count: usize) {
        assert!((0..500).any(|_| {
            std::thread::sleep(Duration::from_millis(10));
            self.begun.load(Ordering::Relaxed) == count
        }));
    }

    fn set(&self, next: Result<Snapshot, String>) {
        *self.next.lock().unwrap() = next;
    }

    /// What the worker was told of configurations, and the lines of the log about them.
    fn stop(self) -> (Vec<&'static str>, Vec<serde_json::Value>) {
        let (commands, lines) = self.finish();
        let words = commands.iter().filter_map(|command| match command {
            Command::Prepare(..) => Some("prepare"),
            Command::Adopt(_) => Some("adopt"),
            Command::Abandon => Some("abandon"),
            _ => None,
        });
        (words.collect(), lines)
    }

    /// All that the worker was told, and the lines of the log about reloads.
    fn finish(self) -> (Vec<Command>, Vec<serde_json::Value>) {
        assert!(self.control.workers().stop());
        let commands = self.worker.join().unwrap();
        self.control.shutdown();
        let log = std::fs::read_to_string(self.directory.path().join("log")).unwrap();
        let lines = log.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
        (commands, lines.filter(|line| line["event"] == "reload").collect())
    }
}

/// Without the second and, in another pool, the third server, and with one more.
fn changed() -> Snapshot {
    let mut next = fixture::snapshot();
    next.servers[1].port = 9443;
    next.pools[1].servers = vec![ServerId(3)];
    next.servers.remove(2);
    next.pools[1].servers = vec![ServerId(2)];
    next
}

#[test]
fn what_has_changed_is_told_and_shown() {
    let setup = Setup::new();
    assert_eq!(setup.ask("reload"), Ok("nothing has changed\n".to_owned()));
    setup.set(Ok(changed()));
    let expected = "servers: added web 10.0.0.12:9443; removed web 10.0.0.12:8443, dns 10.0.0.53:53\n\
        the worker has taken it\n";
    assert_eq!(setup.ask("reload").as_deref(), Ok(expected));
    // The made-up worker knows of four servers; of those that are removed one has flows.
    let shown = setup.ask("show servers").unwrap();
    let states: Vec<Vec<&str>> = shown.lines().map(|line| line.split_whitespace().collect()).collect();
    let column = |row: usize, column: usize| states[row][column];
    assert_eq!((states.len(), column(1, 1), column(1, 3)), (4, "10.0.0.11:8443", "up"));
    assert_eq!((column(2, 1), column(2, 3)), ("10.0.0.53:53", "removed"));
    assert_eq!((column(3, 1), column(3, 3)), ("[2001:db8:1::53]:53", "down"));
    assert!(setup.ask("disable server web 10.0.0.12:8443").unwrap_err().contains("10.0.0.12:9443"));
    assert_eq!(setup.ask("disable server web 10.0.0.12:9443"), Ok("ok\n".to_owned()));
    let info = setup.ask("show info").unwrap();
    assert!(info.contains("servers             3\n"), "{info}");
    let (commands, lines) = setup.stop();
    assert_eq!(commands, ["prepare", "adopt"]);
    let texts: Vec<_> = lines.iter().map(|line| (line["applied"].clone(), line["text"].clone())).collect();
    let taken = (true.into(), expected.trim_end().into());
    assert_eq!(texts, [(true.into(), "nothing has changed".into()), taken]);
}

/// Nobody answers the probes of this test, so the new server is down, within the second that its monitor has.
#[test]
fn workers_go_on_when_something_is_known_of_new_servers_and_hear_of_it_then() {
    let setup = Setup::new();
    setup.set(Ok(changed()));
    assert!(setup.ask("reload").unwrap().ends_with("the worker has taken it\n"));
    std::thread::sleep(Duration::from_millis(100));
    let (commands, _) = setup.finish();
    let adopted = commands.iter().position(|command| matches!(command, Command::Adopt(_))).unwrap();
    let is_new =
        |command: &Command| matches!(command, Command::ServerHealth { server: ServerId(4), up: false });
    assert!(commands[..adopted].iter().any(is_new), "it was looked at before");
    assert!(commands[adopted..].iter().any(is_new), "and told again behind: {commands:?}");
}

#[test]
fn a_file_that_is_wrong_changes_nothing() {
    let setup = Setup::new();
    setup.set(Err("error: unknown key `poool`\n\n --> weir.toml:7".to_owned()));
    let refused = setup.ask("reload").unwrap_err();
    assert_eq!(refused, "error: unknown key `poool`\n --> weir.toml:7");
    assert!(setup.ask("disable server web 10.0.0.12:8443").is_ok(), "it is still there");
    let (commands, lines) = setup.stop();
    assert_eq!(commands, [""; 0]);
    assert_eq!((lines.len(), &lines[0]["applied"]), (1, &false.into()));
}

#[test]
fn what_one_worker_cannot_do_none_does() {
    let setup = Setup::new();
    let mut next = fixture::snapshot();
    next.services[0].name = "too much".to_owned();
    setup.set(Ok(next));
    assert_eq!(setup.ask("reload"), Err("set.lua:1: not enough memory".to_owned()));
    assert!(setup.ask("show flows service tls").is_ok(), "it is still there");
    setup.set(Ok(changed()));
    assert!(setup.ask("reload").is_ok());
    assert_eq!(setup.stop().0, ["prepare", "abandon", "prepare", "adopt"]);
}

#[test]
fn the_next_one_waits_until_all_workers_have_taken_the_last_one() {
    let setup = Setup::new();
    let mut next = fixture::snapshot();
    next.services[0].name = "slow".to_owned();
    setup.set(Ok(next));
    let late = "not taken yet by the worker; it will be as soon as it answers\n";
    assert!(setup.ask("reload").unwrap().ends_with(late));
    setup.set(Ok(changed()));
    let refused = "the worker has not taken the last configuration yet".to_owned();
    assert_eq!(setup.ask("reload"), Err(refused));
    let question = "explain client 10.0.0.7:1 vip 198.51.100.1:443";
    let refused = "the worker has not taken the last configuration yet; repeat this when it has".to_owned();
    assert_eq!(setup.ask(question), Err(refused), "it would be about the one before");
    assert!(setup.ask("enable server dns [2001:db8:1::53]:53").is_ok());
    std::thread::sleep(Duration::from_millis(100));
    assert_eq!(setup.ask(question), Ok("198.51.100.1:443 by configuration 1\n".to_owned()));
    assert!(setup.ask("reload").unwrap().ends_with("the worker has taken it\n"));
    setup.stop();
}

/// One that is not known yet is not shown with what is known of the one before.
#[test]
fn a_server_in_the_place_of_another_one_is_shown_when_the_worker_has_taken_it() {
    let mut first = fixture::snapshot();
    first.pools[0].servers = vec![ServerId(0)];
    first.retired.servers = [ServerId(1)].into();
    first.retired.spare.servers = [(ServerId(1), 0)].into();
    let setup = Setup::with(first);
    let mut next = changed();
    next.services[0].name = "slow".to_owned();
    setup.set(Ok(next));
    assert!(setup.ask("reload").unwrap().contains("not taken yet by the worker"));
    let server = "web,10.0.0.12:9443,-,disabled";
    let shown = |setup: &Setup, what: &str| -> Vec<String> {
        let text = setup.ask(what).unwrap();
        text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(",")).collect()
    };
    let has_it = |setup: &Setup| shown(setup, "show servers").iter().any(|row| row.starts_with(server));
    assert!(!has_it(&setup));
    assert!(
        shown(&setup, "show pools")[1].starts_with("web,round_robin,1,1,"),
        "of two servers one is known"
    );
    assert!(!setup.ask("show metrics").unwrap().contains("10.0.0.12:9443"));
    assert!(setup.ask("enable server dns [2001:db8:1::53]:53").is_ok());
    std::thread::sleep(Duration::from_millis(100));
    assert!(has_it(&setup), "the worker tells of its second server");
    assert!(shown(&setup, "show pools")[1].starts_with("web,round_robin,2,1,"));
    setup.stop();
}

/// The workers hear of it while the new server is still being looked at.
#[test]
fn a_server_that_is_coming_is_disabled_when_the_workers_know_it() {
    let setup = Setup::new();
    setup.set(Ok(changed()));
    let reload = setup.in_the_background("reload");
    assert!((0..500).any(|_| {
        std::thread::sleep(Duration::from_millis(10));
        setup.ask("disable server web 10.0.0.12:9443").is_ok()
    }));
    assert!(reload.join().unwrap().unwrap().ends_with("the worker has taken it\n"));
    let (commands, _) = setup.finish();
    let at = |wanted: &dyn Fn(&Command) -> bool| commands.iter().position(wanted).unwrap();
    let adopted = at(&|command| matches!(command, Command::Adopt(_)));
    let disabled =
        at(&|command| matches!(command, Command::ServerEnabled { server: ServerId(4), enabled: false }));
    assert!(adopted < disabled, "{commands:?}");
}

#[test]
fn nothing_is_told_to_workers_while_a_reload_hangs() {
    let setup = Setup::new();
    let file = setup.next.lock().unwrap();
    let reload = setup.in_the_background("reload");
    setup.wait_for_reloads(1);
    assert_eq!(setup.ask("reload"), Err("the configuration is being reloaded already".to_owned()));
    let profile = setup.in_the_background("profile script by sni seconds 1");
    let explain = setup.in_the_background("explain client 10.0.0.7:1 vip 198.51.100.1:443");
    let refusal = "the configuration is being reloaded; repeat this".to_owned();
    assert_eq!(setup.ask("disable server web 10.0.0.12:8443"), Err(refusal.clone()));
    assert!(matches!(profile.join().unwrap(), Err(client::Error::Refused(text)) if text == refusal));
    assert!(matches!(explain.join().unwrap(), Err(client::Error::Refused(text)) if text == refusal));
    drop(file);
    assert!(reload.join().unwrap().is_ok());
    assert_eq!(setup.ask("disable server web 10.0.0.12:8443"), Ok("ok\n".to_owned()));
    let (commands, _) = setup.finish();
    let told: Vec<&Command> =
        commands.iter().filter(|command| !matches!(command, Command::ServerHealth { .. })).collect();
    assert!(matches!(told[..], [Command::ServerEnabled { .. }]), "{told:?}");
}

#[test]
fn a_signal_that_comes_while_the_file_is_read_has_it_read_again() {
    let setup = Setup::new();
    let file = setup.next.lock().unwrap();
    let reload = setup.in_the_background("reload");
    setup.wait_for_reloads(1);
    setup.signals.reload.store(true, Ordering::Relaxed);
    std::thread::sleep(Duration::from_millis(300));
    drop(file);
    assert!(reload.join().unwrap().is_ok());
    setup.wait_for_reloads(2);
    assert_eq!(setup.stop().1.len(), 2, "both are in the log");
}

/// Scripts that name an address without a port get the first server there.
#[test]
fn another_order_of_the_servers_of_a_pool_is_a_change() {
    let setup = Setup::new();
    let mut next = fixture::snapshot();
    next.pools[0].servers.reverse();
    setup.set(Ok(next));
    assert_eq!(setup.ask("reload").as_deref(), Ok("pools: changed web\nthe worker has taken it\n"));
    assert_eq!(setup.ask("reload").as_deref(), Ok("nothing has changed\n"));
    assert_eq!(setup.stop().0, ["prepare", "adopt"]);
}

/// Nobody reloads a second time.
#[test]
fn what_nobody_needs_any_more_is_let_go_without_a_reload() {
    let setup = Setup::new();
    let mut next = fixture::snapshot();
    next.services[0].name = "passing".to_owned();
    setup.set(Ok(next));
    assert!(setup.ask("reload").unwrap().starts_with("services: added passing; removed tls\n"));
    std::thread::sleep(Duration::from_secs(5));
    assert_eq!(setup.ask("reload").as_deref(), Ok("nothing has changed\n"));
    let (commands, lines) = setup.finish();
    let given: Vec<&Snapshot> = commands
        .iter()
        .filter_map(|command| match command {
            Command::Prepare(snapshot, _) => Some(&**snapshot),
            _ => None,
        })
        .collect();
    let departing: Vec<Vec<ServiceId>> =
        given.iter().map(|snapshot| snapshot.departing().collect()).collect();
    assert_eq!(departing, [vec![ServiceId(0)], vec![]]);
    assert_eq!(given[1].retired.spare.services, [(ServiceId(0), 2)].into());
    assert_eq!((given[1].services[0].name.as_str(), given[1].services[0].addresses.len()), ("tls", 0));
    assert_eq!(lines.len(), 2, "the log tells of what was asked for");
}

/// A service without flows is emptied at once; what only takes up places may wait.
#[test]
fn workers_are_left_in_peace_after_something_was_let_go() {
    let (mut first, mut next) = (fixture::snapshot(), fixture::snapshot());
    first.services[0].default = Some(Target::Pool(PoolId(1)));
    next.pools.truncate(1);
    next.servers.truncate(2);
    next.services[0].name = "passing".to_owned();
    let setup = Setup::with(first);
    setup.set(Ok(next));
    assert!(setup.ask("reload").unwrap().ends_with("the worker has taken it\n"));
    std::thread::sleep(Duration::from_millis(4500));
    let (commands, _) = setup.finish();
    let given = commands.iter().filter_map(|command| match command {
        Command::Prepare(snapshot, _) => Some(&**snapshot),
        _ => None,
    });
    let given: Vec<(usize, usize)> =
        given.map(|snapshot| (snapshot.departing().count(), snapshot.retired.spare.pools.len())).collect();
    assert_eq!(given, [(1, 0), (0, 0)], "the pool to which it led is let go later");
}

/// Its flows go on for ever, and there may be a million of them.
#[test]
fn connections_are_not_asked_for_while_flows_need_all_that_is_retired() {
    let setup = Setup::new();
    let mut next = fixture::snapshot();
    next.services[0].name = "other".to_owned();
    setup.set(Ok(next));
    assert!(setup.ask("reload").unwrap().ends_with("the worker has taken it\n"));
    std::thread::sleep(Duration::from_millis(2500));
    assert_eq!(setup.ask("reload").as_deref(), Ok("nothing has changed\n"));
    let (commands, _) = setup.finish();
    let asked: Vec<u32> = commands
        .iter()
        .filter_map(|command| match command {
            Command::Query(Query::InUse { first }, _) => Some(*first),
            _ => None,
        })
        .collect();
    assert!((2..=5).contains(&asked.len()) && asked.iter().all(|first| *first == u32::MAX), "{asked:?}");
}

#[test]
fn a_signal_is_enough() {
    let setup = Setup::new();
    setup.set(Ok(changed()));
    let log = setup.directory.path().join("log");
    std::fs::rename(&log, setup.directory.path().join("old")).unwrap();
    setup.signals.reopen_log.store(true, Ordering::Relaxed);
    setup.signals.reload.store(true, Ordering::Relaxed);
    let done = || std::fs::read_to_string(&log).unwrap_or_default().contains("\"reload\"");
    assert!((0..500).any(|_| {
        std::thread::sleep(Duration::from_millis(20));
        done()
    }));
    let (commands, lines) = setup.stop();
    assert_eq!(commands, ["prepare", "adopt"]);
    assert_eq!(lines.len(), 1, "in the new file");
}
