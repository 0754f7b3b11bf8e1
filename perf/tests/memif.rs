//! A weir of its own, as an operator runs it, and a generator that steers like a network card with RSS: a pair of memif
//! ports joins queue to queue, so what is sent into queue n comes to worker n.
#![cfg(test)]

use anyhow::Context;
use weir_perf::load::far::{Far, Subject, WeirProcess, Wires};
use weir_perf::load::{Subjects, tally::Load};
use weir_perf::scenario::Scenario;
use weir_tests::testkit::weir_binary;

const FLOWS: u32 = 500;
/// Slow enough for a machine that is busy with other tests: each queue has room for what is sent in a second.
const PACKETS_PER_SECOND: f64 = 2_000.0;
const SECOND: u64 = 1_000_000_000;

/// Opens flows of this scenario on two workers and sends to them for a second.
struct Outcome {
    load: Load,
    /// By worker.
    flows: Vec<u64>,
    /// Packets that workers have given each other.
    handed_over: u64,
    lost: String,
}

fn two_workers(scenario: &str, misdirected: bool) -> anyhow::Result<Outcome> {
    let named = Scenario::named(scenario).context("no such scenario")?;
    serve(Scenario { flows: FLOWS, ..named }, misdirected, 0.0)
}

fn serve(scenario: Scenario, misdirected: bool, new_flows: f64) -> anyhow::Result<Outcome> {
    let directory = tempfile::tempdir()?;
    let binary = weir_binary().map_err(|error| anyhow::anyhow!("{error}"))?;
    let how = WeirProcess { binary, workers: 2, cpus: Vec::new(), idle: "sleep" };
    let weir = Subject::weir(&how, &scenario, directory.path())?;
    let wires = Wires::open(None)?;
    let mut far = Far::new(&wires, vec![weir], 2, scenario)?;
    if misdirected {
        far.misdirect();
    }
    far.open_flows(new_flows)?;
    let (load, _) = far.run(0, Some(PACKETS_PER_SECOND), SECOND)?;
    let weir = far.weir()?;
    let workers = weir.show(&how.binary, "workers")?;
    let of = |name: &str| -> Vec<u64> {
        let workers = workers.as_array().map(Vec::as_slice).unwrap_or_default();
        workers.iter().filter_map(|worker| worker[name].as_u64()).collect()
    };
    let lost = weir.show(&how.binary, "counters")?["dropped"].to_string();
    Ok(Outcome { load, flows: of("flows_created"), handed_over: of("handed_over").iter().sum(), lost })
}

fn assert_whole(outcome: &Outcome) {
    let Outcome { load, flows, lost, .. } = outcome;
    assert_eq!(load.received, load.scheduled, "dropped by weir: {lost}");
    assert_eq!(flows.len(), 2);
    assert_eq!(flows.iter().sum::<u64>(), u64::from(FLOWS));
    assert!(flows.iter().all(|flows| *flows > u64::from(FLOWS) / 3), "{flows:?}");
}

#[test]
fn datagrams_come_to_their_worker_in_both_directions() {
    let outcome = two_workers("udp-10k", false).unwrap();
    assert_whole(&outcome);
    assert_eq!(outcome.handed_over, 0);
}

#[test]
fn segments_of_spliced_connections_come_to_their_worker_in_both_directions() {
    let outcome = two_workers("tcp-10k", false).unwrap();
    assert_whole(&outcome);
    assert_eq!(outcome.handed_over, 0);
}

#[test]
fn flows_that_begin_among_others_are_told_apart_and_come_to_their_worker() {
    let named = Scenario::named("udp-10k").and_then(Scenario::with_new_flows).unwrap();
    let outcome = serve(Scenario { flows: FLOWS, ..named }, false, 0.1).unwrap();
    let Outcome { load, flows, handed_over, lost } = outcome;
    assert_eq!((load.received, handed_over), (load.scheduled, 0), "dropped by weir: {lost}");
    let (opened, seen) = (flows.iter().sum::<u64>() - u64::from(FLOWS), load.first.len());
    assert!((100..300).contains(&seen), "{seen} of {} packets, one in ten", load.scheduled);
    // Those at the start of the run are not in the histogram.
    assert!((seen..=seen + 6).contains(&opened), "{opened} flows, {seen} first packets");
}

/// So that the zeros above mean something.
#[test]
fn packets_in_the_wrong_queue_are_handed_over() {
    let outcome = two_workers("udp-10k", true).unwrap();
    assert_whole(&outcome);
    assert_eq!(outcome.handed_over, outcome.load.scheduled);
}
