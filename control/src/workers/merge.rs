//! One answer out of those of several workers.

use std::collections::HashMap;
use std::hash::Hash;

use dataplane::channel::{Answer, PoolView, Query, ServerView, TableStatsView};
use dataplane::policy::{Event, ScriptReport};
use hdrhistogram::Histogram;

/// Adds another worker's answer to the same question.
///
/// Counts are added. Ports are the same for all workers, and so are the states of servers. While a reload goes on, one worker
/// may know of things that another one does not know, or of another server or pool in the same place: these are not added to each
/// other.
pub(super) fn add(sum: &mut Answer, other: Answer) {
    match (sum, other) {
        (Answer::Counters(sum), Answer::Counters(other)) => sum.add(&other),
        (Answer::Flows(sum), Answer::Flows(other)) => sum.extend(other),
        (Answer::Pools(servers, pools), Answer::Pools(other_servers, other_pools)) => {
            add_each(servers, other_servers, |view| (view.server, view.given), add_server);
            add_each(pools, other_pools, |view| (view.pool, view.given), add_pool);
        }
        // Entries are replicas of each other.
        (Answer::Tables(_, stats), Answer::Tables(_, other)) => {
            add_each(stats, other, |view| view.service, add_stats);
        }
        (Answer::Latency(sum), Answer::Latency(other)) => add_histogram(sum, &other),
        (Answer::Scripts(sum), Answer::Scripts(other)) => add_each(sum, other, script, add_script),
        (Answer::Profile(sum), Answer::Profile(other)) => sum.add(&other),
        _ => {}
    }
}

/// Leaves no more than were asked for.
pub(super) fn cut(answer: &mut Answer, query: Query) {
    match (answer, query) {
        (Answer::Flows(flows), Query::Flows { limit, .. }) => flows.truncate(limit),
        (Answer::Tables(entries, _), Query::Tables { limit, .. }) => entries.truncate(limit),
        _ => {}
    }
}

/// Adds each thing to its equal, which mostly is in the same place.
fn add_each<T, K: Eq + Hash>(
    sum: &mut Vec<T>,
    other: Vec<T>,
    key: impl Fn(&T) -> K,
    add: impl Fn(&mut T, &T),
) {
    if sum.len() == other.len() && sum.iter().zip(&other).all(|(sum, other)| key(sum) == key(other)) {
        sum.iter_mut().zip(&other).for_each(|(sum, other)| add(sum, other));
        return;
    }
    let places: HashMap<K, usize> = sum.iter().zip(0..).map(|(thing, place)| (key(thing), place)).collect();
    for thing in other {
        match places.get(&key(&thing)).and_then(|place| sum.get_mut(*place)) {
            Some(sum) => add(sum, &thing),
            None => sum.push(thing),
        }
    }
}

fn add_server(sum: &mut ServerView, other: &ServerView) {
    sum.flows += other.flows;
    sum.flows_total += other.flows_total;
}

fn add_pool(sum: &mut PoolView, other: &PoolView) {
    sum.refused += other.refused;
}

fn add_stats(sum: &mut TableStatsView, other: &TableStatsView) {
    sum.stats.add(&other.stats);
}

/// What a script is known by.
fn script(report: &ScriptReport) -> (String, bool) {
    (report.set.clone(), report.event == Event::Request)
}

fn add_script(sum: &mut ScriptReport, other: &ScriptReport) {
    sum.runs += other.runs;
    sum.errors += other.errors;
    sum.budget_stops += other.budget_stops;
    sum.quarantined += other.quarantined;
    add_histogram(&mut sum.run_time, &other.run_time);
}

fn add_histogram(sum: &mut Histogram<u64>, other: &Histogram<u64>) {
    // All workers make theirs alike, and then this cannot fail.
    let _ = sum.add(other);
}

#[cfg(test)]
mod tests;
