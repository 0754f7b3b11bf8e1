//! One answer out of those of several workers.

use dataplane::channel::{Answer, PoolView, Query, ServerView, TableStatsView};
use dataplane::policy::ScriptReport;
use hdrhistogram::Histogram;

/// Adds another worker's answer to the same question.
///
/// Counts are added. Ports are the same for all workers, and so are the states of servers.
pub(super) fn add(sum: &mut Answer, other: Answer) {
    match (sum, other) {
        (Answer::Counters(sum), Answer::Counters(other)) => sum.add(&other),
        (Answer::Flows(sum), Answer::Flows(other)) => sum.extend(other),
        (Answer::Pools(servers, pools), Answer::Pools(other_servers, other_pools)) => {
            servers.iter_mut().zip(&other_servers).for_each(add_server);
            pools.iter_mut().zip(&other_pools).for_each(add_pool);
        }
        // Entries are replicas of each other.
        (Answer::Tables(_, stats), Answer::Tables(_, other)) => {
            stats.iter_mut().zip(&other).for_each(add_stats);
        }
        (Answer::Latency(sum), Answer::Latency(other)) => add_histogram(sum, &other),
        (Answer::Scripts(sum), Answer::Scripts(other)) => sum.iter_mut().zip(&other).for_each(add_script),
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

fn add_server((sum, other): (&mut ServerView, &ServerView)) {
    sum.flows += other.flows;
    sum.flows_total += other.flows_total;
}

fn add_pool((sum, other): (&mut PoolView, &PoolView)) {
    sum.refused += other.refused;
}

fn add_stats((sum, other): (&mut TableStatsView, &TableStatsView)) {
    sum.stats.add(&other.stats);
}

fn add_script((sum, other): (&mut ScriptReport, &ScriptReport)) {
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
