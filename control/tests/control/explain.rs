//! `explain`, of which of the workers it is asked.

use std::sync::Arc;

use control::client::{Error, request};
use control::{Control, ControlSettings, Explainer, LogDestination};
use dataplane::address::FlowKey;
use dataplane::balance::Balancer;
use dataplane::channel::{Answer, Capacities, Command, Live, Query, WorkerEnd, channel};
use dataplane::rss::{DEFAULT_KEY, Toeplitz};
use dataplane::snapshot::Protocol;

use crate::fixture;

/// Says of itself that it holds so many entries.
fn worker(mut end: WorkerEnd, held: usize) {
    loop {
        match end.command() {
            Some(Command::Query(Query::Live { .. }, reply)) => {
                let balancer = Balancer::new(&fixture::snapshot());
                reply.send(Answer::Live(Box::new(Live {
                    balancer,
                    entries: Vec::new(),
                    held,
                    generation: 0,
                })));
            }
            Some(Command::Stop) => return,
            Some(_) => {}
            None => std::thread::sleep(std::time::Duration::from_millis(1)),
        }
    }
}

#[test]
fn the_worker_is_asked_to_which_the_flow_comes() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("admin");
    let settings = ControlSettings {
        admin_socket: Some(socket.clone()),
        log: LogDestination::None,
        explainer: Some(Explainer::new(|_, _, live| Ok(format!("{}\n", live.held)))),
        ..ControlSettings::new(&fixture::snapshot())
    };
    let (ends, controls): (Vec<_>, Vec<_>) = (0..3).map(|_| channel(Capacities::default())).unzip();
    let threads: Vec<_> =
        ends.into_iter().zip(0..).map(|(end, held)| std::thread::spawn(move || worker(end, held))).collect();
    let control = Control::spawn(Arc::new(fixture::snapshot()), controls, settings).unwrap();
    let hash = Toeplitz::new(&DEFAULT_KEY);
    let mut asked = [0; 3];
    for port in 1000..1040 {
        let client = format!("192.0.2.77:{port}");
        let answer = request(&socket, &format!("explain client {client} vip 198.51.100.1:443"));
        let key = FlowKey::new(Protocol::Tcp, client.parse().unwrap(), "198.51.100.1:443".parse().unwrap());
        // As a card does it: the place in a table of 128, which names three queues in turn.
        let queue = hash.hash(&key) % 128 % 3;
        match answer {
            Ok(text) => assert_eq!(text, format!("{queue}\n")),
            Err(Error::Refused(text)) => panic!("{text}"),
            Err(other) => panic!("{other:?}"),
        }
        asked[queue as usize] += 1;
    }
    assert!(asked.iter().all(|count| *count > 5), "{asked:?}");
    assert!(control.workers().stop());
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    control.shutdown();
}
