use super::*;
use crate::counters::Counters;

#[test]
fn queries_reach_the_worker_and_answers_come_back() {
    let (mut worker, control) = channel(Capacities { commands: 2, records: 1, packets: 1 });
    let answer = control.commands.query(Query::Counters).unwrap();
    control.commands.send(Command::Stop).unwrap();
    assert!(control.commands.query(Query::Ports).is_none(), "the queue holds two");
    match worker.command() {
        Some(Command::Query(Query::Counters, reply)) => {
            reply.send(Answer::Counters(Box::new(Counters { rx: 7, ..Counters::default() })));
        }
        other => panic!("{other:?}"),
    }
    assert!(matches!(worker.command(), Some(Command::Stop)));
    assert!(worker.command().is_none());
    match answer.try_recv() {
        Ok(Answer::Counters(counters)) => assert_eq!(counters.rx, 7),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_reply_that_nobody_waits_for_is_dropped_quietly() {
    let (mut worker, control) = channel(Capacities::default());
    drop(control.commands.query(Query::Pools).unwrap());
    match worker.command() {
        Some(Command::Query(Query::Pools, reply)) => reply.send(Answer::Pools(Vec::new(), Vec::new())),
        other => panic!("{other:?}"),
    }
}

#[test]
fn packets_cross_in_both_directions_and_full_queues_refuse() {
    let (mut worker, control) = channel(Capacities { commands: 1, records: 1, packets: 1 });
    assert!(worker.punt(&[1, 2, 3]));
    assert!(!worker.punt(&[4]), "the queue holds one packet");
    assert_eq!(control.packets.receive(), Some(PuntedPacket(vec![1, 2, 3])));
    assert!(control.packets.send(PuntedPacket(vec![9])));
    assert!(!control.packets.send(PuntedPacket(vec![8])));
    assert_eq!(worker.packet(), Some(PuntedPacket(vec![9])));
    assert_eq!(worker.packet(), None);
}

#[test]
fn terminations_are_two_letters() {
    assert_eq!(Termination::NORMAL.to_string(), "--");
    assert_eq!(Termination::new(EndedBy::Refused, Phase::Deciding).to_string(), "RP");
    assert_eq!(Termination::new(EndedBy::ServerTimeout, Phase::from(FlowState::Closing)).to_string(), "sD");
    let mut letters: Vec<char> = EndedBy::ALL.iter().map(|by| by.letter()).collect();
    letters.sort_unstable();
    letters.dedup();
    assert_eq!(letters.len(), EndedBy::ALL.len(), "each letter means one thing");
}

#[test]
fn monitor_ports_are_above_the_snat_ports() {
    let mut snapshot = Snapshot::default();
    snapshot.snat.last_port = 60999;
    assert_eq!(monitor_ports(&snapshot), 61000..=65535);
    snapshot.snat.last_port = 65535;
    assert!(monitor_ports(&snapshot).is_empty());
}
