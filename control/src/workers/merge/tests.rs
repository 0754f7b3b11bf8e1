//! Workers of which one goes by another configuration already.

use dataplane::snapshot::{PoolId, ServerId, ServiceId};
use dataplane::table::TableStats;

use super::*;

fn script(set: &str, event: Event, runs: u64) -> ScriptReport {
    let mut run_time = Histogram::new(3).unwrap();
    run_time.record_n(1_000, runs).unwrap();
    ScriptReport { set: set.to_owned(), event, runs, errors: 1, budget_stops: 0, quarantined: 0, run_time }
}

fn sum(answers: Vec<Answer>) -> Answer {
    let mut answers = answers.into_iter();
    let mut sum = answers.next().unwrap();
    answers.for_each(|answer| add(&mut sum, answer));
    sum
}

#[test]
fn scripts_are_added_by_set_and_event() {
    use Event::{Request, Response};
    let behind = vec![script("old", Request, 1), script("a", Request, 2), script("a", Response, 4)];
    let ahead = vec![script("a", Request, 8), script("a", Response, 16), script("new", Response, 32)];
    let again = vec![script("a", Response, 64), script("a", Request, 128), script("new", Response, 256)];
    let Answer::Scripts(sum) = sum([behind, ahead, again].map(Answer::Scripts).into()) else { panic!() };
    let rows: Vec<_> =
        sum.iter().map(|r| (r.set.as_str(), r.event, r.runs, r.run_time.len(), r.errors)).collect();
    let expected = [
        ("old", Request, 1, 1, 1),
        ("a", Request, 138, 138, 3),
        ("a", Response, 84, 84, 3),
        ("new", Response, 288, 288, 2),
    ];
    assert_eq!(rows, expected);
}

#[test]
fn tables_are_added_by_service() {
    let stats = |service, inserted| {
        let stats = TableStats { inserted, ..TableStats::default() };
        TableStatsView { service: ServiceId(service), stats }
    };
    let answers = [vec![stats(0, 1), stats(1, 2)], vec![stats(1, 4), stats(2, 8)]];
    let Answer::Tables(_, sum) = sum(answers.map(|stats| Answer::Tables(Vec::new(), stats)).into()) else {
        panic!()
    };
    let rows: Vec<_> = sum.iter().map(|view| (view.service.0, view.stats.inserted)).collect();
    assert_eq!(rows, [(0, 1), (1, 6), (2, 8)]);
}

fn server(server: u16, given: u32, flows: u64) -> ServerView {
    let server = ServerId(server);
    ServerView { server, given, up: true, enabled: true, flows, flows_total: 10 * flows }
}

fn pool(pool: u16, given: u32, refused: u64) -> PoolView {
    PoolView { pool: PoolId(pool), given, refused }
}

#[test]
fn what_had_a_place_before_is_not_added_to_what_has_it_now() {
    let behind = || Answer::Pools(vec![server(0, 0, 1)], vec![pool(0, 0, 1)]);
    let ahead = || Answer::Pools(vec![server(0, 3, 2)], vec![pool(0, 3, 2)]);
    let Answer::Pools(servers, pools) = sum(vec![behind(), ahead(), behind(), ahead()]) else { panic!() };
    let servers: Vec<_> = servers.iter().map(|view| (view.given, view.flows)).collect();
    let pools: Vec<_> = pools.iter().map(|view| (view.given, view.refused)).collect();
    assert_eq!((servers, pools), (vec![(0, 2), (3, 4)], vec![(0, 2), (3, 4)]));
}

#[test]
fn servers_and_pools_that_one_worker_does_not_know_yet_are_there() {
    let behind = Answer::Pools(vec![server(0, 0, 1)], vec![pool(0, 0, 1)]);
    let ahead = Answer::Pools(vec![server(0, 0, 2), server(1, 3, 4)], vec![pool(0, 0, 2), pool(1, 3, 4)]);
    let Answer::Pools(servers, pools) = sum(vec![behind, ahead]) else { panic!() };
    let servers: Vec<_> = servers.iter().map(|view| (view.server.0, view.flows, view.flows_total)).collect();
    assert_eq!(servers, [(0, 3, 30), (1, 4, 40)]);
    assert_eq!(pools.iter().map(|view| (view.pool.0, view.refused)).collect::<Vec<_>>(), [(0, 3), (1, 4)]);
}
