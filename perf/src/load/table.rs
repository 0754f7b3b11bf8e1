//! What was measured, for people and for programs.

use serde_json::{Value, json};

use super::rounds::{Level, Packets, QUANTILES, Run, Spread, Summary, Which};
use super::{BARE, Outcome, Plan, WEIR};

const BOTH: [(Which, &str); 2] = [(Which::All, "all"), (Which::WithoutStop, "no stop:")];

/// Everything as Markdown.
#[must_use]
pub fn table(outcome: &Outcome, plan: &Plan) -> String {
    let mut text = String::from(
        "| at the other end | the most that both ends carry, Mpps (lowest-highest) | packets that it takes at a time then |\n\
         |---|---|---|\n",
    );
    for (name, (rates, at_a_time)) in outcome.names.iter().zip(outcome.most.iter().zip(&outcome.at_a_time)) {
        let rates = Spread::of(rates.iter().map(|rate| rate / 1e6));
        let at_a_time = Spread::of(at_a_time.iter().copied());
        text += &format!("| {name} | {} | {} |\n", cell(rates, 2), cell(at_a_time, 1));
    }
    text += &format!(
        "\n{} rounds of {} ms; each figure is the median of those of the rounds (lowest-highest). No stop: rounds in which \
         the machine held up neither end for more than 100 µs.\n\n\
         | load, of what both ends carry | Mpps | at the other end | rounds | p50 µs | p99 µs | p99.9 µs | lost | generator late, p99.9 µs |\n\
         |---|---|---|---|---|---|---|---|---|\n",
        plan.rounds,
        plan.nanoseconds / 1_000_000
    );
    outcome.levels.iter().for_each(|level| text += &latencies(level, &outcome.names));
    text += "\n| load, of what both ends carry | at the other end | runs in which the generator was held up | the other end | longest stop, ms \
             | other gaps of its thread > 100 µs | longest of them, µs |\n|---|---|---|---|---|---|---|\n";
    outcome.levels.iter().for_each(|level| text += &stops(level, &outcome.names));
    text + "\n" + &idle(outcome)
}

fn latencies(level: &Level, names: &[String]) -> String {
    let mut text = String::new();
    let head = |which| {
        let offered = level.offered().map(|Spread { middle, lowest, highest }| {
            format!("{:.3} ({:.3}-{:.3})", middle / 1e6, lowest / 1e6, highest / 1e6)
        });
        match which {
            Which::All => format!("| {} % | {} ", level.percent, offered.unwrap_or_default()),
            Which::WithoutStop => "| | ".to_owned(),
        }
    };
    let row = |which, label: &str, name: &str, summary: &Summary, rest: &str| {
        let spreads = summary.latency.map(|spreads| spreads.map(|spread| cell(Some(spread), 1)));
        let [p50, p99, p999] = spreads.unwrap_or_else(|| ["-", "-", "-"].map(str::to_owned));
        format!("{}| {name} | {label} {} | {p50} | {p99} | {p999} | {rest} |\n", head(which), summary.rounds)
    };
    for (which, label) in BOTH {
        for (packets, about) in kinds(level) {
            for (subject, name) in names.iter().enumerate() {
                let summary = level.latency(subject, which, packets);
                let rest = match (packets, summary.rounds) {
                    (Packets::First, _) => " | ".to_owned(),
                    (_, 0) => "- | -".to_owned(),
                    _ => format!(
                        "{:.4} % | {}",
                        level.loss(subject, which) * 100.0,
                        cell(level.late(subject, which), 1)
                    ),
                };
                text += &row(which, label, &format!("{name}{about}"), &summary, &rest);
            }
            let added = level.added(WEIR, BARE, which, packets);
            text += &row(which, label, &format!("**added by weir**{about}"), &added, " | ");
        }
    }
    text
}

/// Losses are of both.
fn kinds(level: &Level) -> Vec<(Packets, &'static str)> {
    let any = level.rounds.iter().flat_map(|round| &round.runs).any(|run| run.first.is_some());
    match any {
        false => vec![(Packets::Established, "")],
        true => vec![(Packets::Established, ", established"), (Packets::First, ", first packets")],
    }
}

fn stops(level: &Level, names: &[String]) -> String {
    let mut text = String::new();
    for (subject, name) in names.iter().enumerate() {
        let runs: Vec<&Run> = level.runs(subject, Which::All).collect();
        let count = |is: fn(&&&Run) -> bool| runs.iter().filter(is).count();
        let most = |of: fn(&Run) -> u64| runs.iter().map(|run| of(run)).max().unwrap_or(0) as f64;
        let unproven: usize = runs.iter().map(|run| run.stops.unproven).sum();
        text += &format!(
            "| {} % | {name} | {} of {} | {} | {:.1} | {unproven} | {:.0} |\n",
            level.percent,
            count(|run| run.generator_was_held_up()),
            runs.len(),
            count(|run| run.stops.other > 0),
            most(|run| run.stops.longest) / 1e6,
            most(|run| run.stops.longest_unproven) / 1e3,
        );
    }
    text
}

fn idle(outcome: &Outcome) -> String {
    let hit = outcome.idle.iter().filter(|idle| idle.stops > 0).count();
    let delay = |place: usize| {
        let values = outcome.idle.iter().filter_map(|idle| idle.delay.get(place).copied());
        cell(Spread::of(values), 1)
    };
    format!(
        "Processors that only read the clock, in turn with these runs: {hit} of {} had a stop; a packet would have been held up \
         for {} / {} / {} µs (p50 / p99 / p99.9).\n",
        outcome.idle.len(),
        delay(0),
        delay(1),
        delay(2)
    )
}

fn cell(spread: Option<Spread>, digits: usize) -> String {
    let Some(Spread { middle, lowest, highest }) = spread else { return "-".to_owned() };
    // A dash between negative numbers is hard to read.
    let to = if lowest < 0.0 { " to " } else { "-" };
    format!("{middle:.digits$} ({lowest:.digits$}{to}{highest:.digits$})")
}

/// Everything for programs.
#[must_use]
pub fn json(outcome: &Outcome, plan: &Plan) -> Value {
    let curve = |(subject, (name, rates)): (usize, (&String, &Vec<f64>))| {
        let points: Vec<Value> = outcome.levels.iter().map(|level| point(level, subject)).collect();
        let at_a_time = outcome.at_a_time.get(subject).into_iter().flatten().copied();
        json!({
            "name": name, "most": spread(Spread::of(rates.iter().copied())),
            "at_a_time": spread(Spread::of(at_a_time)), "points": points,
        })
    };
    let curves: Vec<Value> = outcome.names.iter().zip(&outcome.most).enumerate().map(curve).collect();
    let idle: Vec<Value> = outcome
        .idle
        .iter()
        .map(|idle| json!({ "stops": idle.stops, "delay_microseconds": named(idle.delay.map(Value::from)) }))
        .collect();
    json!({ "rounds": plan.rounds, "nanoseconds": plan.nanoseconds, "curves": curves, "idle": idle })
}

fn point(level: &Level, subject: usize) -> Value {
    let of = |summary: &Summary| {
        let latency = summary.latency.map(|spreads| named(spreads.map(|of| spread(Some(of)))));
        json!({ "rounds": summary.rounds, "microseconds": latency })
    };
    let both = |which| {
        let latency = |packets| of(&level.latency(subject, which, packets));
        let added = |packets| of(&level.added(subject, BARE, which, packets));
        json!({
            "latency": latency(Packets::Established), "added": added(Packets::Established),
            "first": latency(Packets::First), "first_added": added(Packets::First),
            "loss": level.loss(subject, which), "generator_late": spread(level.late(subject, which)),
        })
    };
    let runs: Vec<Value> = level.runs(subject, Which::All).map(run).collect();
    json!({
        "percent": level.percent, "offered": spread(level.offered()),
        "all": both(Which::All), "without_stop": both(Which::WithoutStop), "runs": runs,
    })
}

fn run(run: &Run) -> Value {
    let values = |values: Option<[f64; 3]>| values.map(|values| named(values.map(Value::from)));
    json!({
        "scheduled": run.scheduled, "received": run.received, "microseconds": values(run.latency), "first": values(run.first),
        "most": run.most, "generator_late": run.late, "stops_generator": run.stops.generator,
        "stops_other": run.stops.other, "longest_stop": run.stops.longest, "other_gaps": run.stops.unproven,
        "longest_other_gap": run.stops.longest_unproven,
    })
}

fn spread(of: Option<Spread>) -> Value {
    of.map_or(Value::Null, |of| json!({ "middle": of.middle, "lowest": of.lowest, "highest": of.highest }))
}

fn named(values: [Value; 3]) -> Value {
    QUANTILES.iter().zip(values).map(|((name, _), value)| ((*name).to_owned(), value)).collect()
}

#[cfg(test)]
mod tests {
    use super::super::Idle;
    use super::super::rounds::Round;
    use super::super::stops::Stops;
    use super::*;

    fn outcome() -> Outcome {
        let run = |p999: f64, stops: Stops| Run {
            scheduled: 1000,
            received: 999,
            latency: Some([1.0, 2.0, p999]),
            first: None,
            most: 10_000.0,
            late: Some(0.5),
            stops,
        };
        let own = Stops { unproven: 2, longest_unproven: 250_000, ..Stops::default() };
        let stopped = Stops { generator: 1, other: 1, longest: 4_000_000, ..Stops::default() };
        let round = |weir, bare| Round { offered: 2e6, runs: vec![weir, bare] };
        let half = vec![
            round(run(9.0, own), run(5.0, Stops::default())),
            round(run(4000.0, stopped), run(6.0, Stops::default())),
            round(run(8.0, Stops::default()), run(7.0, Stops::default())),
        ];
        let most = vec![round(run(4000.0, stopped), run(9000.0, stopped))];
        Outcome {
            names: vec!["weir".to_owned(), "bare".to_owned()],
            most: vec![vec![4e6], vec![5e6]],
            at_a_time: vec![vec![12.0, 14.0], vec![]],
            levels: vec![Level { percent: 50, rounds: half }, Level { percent: 90, rounds: most }],
            idle: vec![
                Idle { stops: 0, delay: [0.0, 0.0, 2.0] },
                Idle { stops: 1, delay: [0.0, 3.0, 500.0] },
            ],
        }
    }

    #[test]
    fn rounds_without_a_stop_stand_beside_all_of_them() {
        let text = table(&outcome(), &Plan::new(true));
        for line in [
            "| weir | 4.00 (4.00-4.00) | 13.0 (12.0-14.0) |",
            "| bare | 5.00 (5.00-5.00) | - |",
            "| 50 % | 2.000 (2.000-2.000) | weir | all 3 | 1.0 (1.0-1.0) | 2.0 (2.0-2.0) | 9.0 (8.0-4000.0) | 0.1000 % | 0.5 (0.5-0.5) |",
            "| | | weir | no stop: 2 | 1.0 (1.0-1.0) | 2.0 (2.0-2.0) | 8.5 (8.0-9.0) | 0.1000 % | 0.5 (0.5-0.5) |",
            "| 50 % | 2.000 (2.000-2.000) | **added by weir** | all 3 | 0.0 (0.0-0.0) | 0.0 (0.0-0.0) | 4.0 (1.0-3994.0) |  |  |",
            "| | | **added by weir** | no stop: 2 | 0.0 (0.0-0.0) | 0.0 (0.0-0.0) | 2.5 (1.0-4.0) |  |  |",
            "| 90 % | 2.000 (2.000-2.000) | **added by weir** | all 1 | 0.0 (0.0-0.0) | 0.0 (0.0-0.0) | -5000.0 (-5000.0 to -5000.0) |  |  |",
            "| | | **added by weir** | no stop: 0 | - | - | - |  |  |",
            "| 50 % | weir | 1 of 3 | 1 | 4.0 | 2 | 250 |",
            "| 90 % | bare | 1 of 1 | 1 | 4.0 | 0 | 0 |",
            "1 of 2 had a stop; a packet would have been held up for 0.0 (0.0-0.0) / 1.5 (0.0-3.0) / 251.0 (2.0-500.0) µs",
        ] {
            assert!(text.contains(line), "{line}\n{text}");
        }
    }

    #[test]
    fn first_packets_have_rows_of_their_own_where_there_are_any() {
        let mut outcome = outcome();
        assert!(!table(&outcome, &Plan::new(true)).contains("first packets"));
        let half = &mut outcome.levels[0].rounds;
        half.iter_mut().for_each(|round| round.runs[0].first = Some([10.0, 20.0, 30.0]));
        half[0].runs[1].first = Some([1.0, 2.0, 3.0]);
        let text = table(&outcome, &Plan::new(true));
        for line in [
            "| weir, established | all 3 | 1.0 (1.0-1.0) |",
            "| weir, first packets | all 3 | 10.0 (10.0-10.0) | 20.0 (20.0-20.0) | 30.0 (30.0-30.0) |  |  |",
            "| **added by weir**, first packets | no stop: 1 | 9.0 (9.0-9.0) | 18.0 (18.0-18.0) | 27.0 (27.0-27.0) |  |  |",
        ] {
            assert!(text.contains(line), "{line}\n{text}");
        }
    }

    #[test]
    fn programs_get_each_run_and_what_the_runs_say_together() {
        let value = json(&outcome(), &Plan::new(true));
        let at = |path: &str| value.pointer(path).cloned().unwrap_or_default();
        assert_eq!(at("/curves/0/points/0/without_stop/added/microseconds/p99.9/middle"), 2.5);
        assert_eq!(at("/curves/0/points/1/without_stop/added"), json!({ "rounds": 0, "microseconds": null }));
        assert_eq!(at("/curves/0/points/0/runs/1/longest_stop"), 4_000_000);
        assert_eq!(at("/curves/1/points/0/offered/middle"), 2e6);
        assert_eq!((at("/curves/0/at_a_time/middle"), at("/curves/1/at_a_time")), (json!(13.0), Value::Null));
        assert_eq!(at("/idle/1/delay_microseconds/p99.9"), 500.0);
    }
}
