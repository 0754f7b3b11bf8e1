//! What was measured, for people and for programs.

use hdrhistogram::Histogram;
use serde_json::{Value, json};

use super::turns::{STOP_MICROS, Turn, chosen, histogram, within};
use super::{Load, Outcome, Plan};
use crate::load::rounds::{QUANTILES, Spread, Which};
use crate::load::stops::{Gap, STOP, delay};

const BOTH: [(Which, &str); 2] = [(Which::All, "all"), (Which::WithoutStop, "no stop:")];
/// Of the delays.
const PARTS: [(&str, f64); 5] = [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99.9", 0.999), ("max", 1.0)];
/// The bounds of the histogram, microseconds.
const BOUNDS: [u64; 9] = [2, 5, 10, 20, 50, 100, 200, 500, 1000];

/// Everything as Markdown.
pub fn table(outcome: &Outcome, plan: &Plan) -> anyhow::Result<String> {
    let mut text = format!(
        "{} turns of {} ms of each load. No stop: turns in which no processor was taken away for more than {STOP_MICROS} µs.\n\n\
         | each worker has | turns | inserts looked for | p50 µs | p90 µs | p99 µs | p99.9 µs | longest µs | within 100 µs |\n\
         |---|---|---|---|---|---|---|---|---|\n",
        plan.rounds,
        plan.nanoseconds / 1_000_000,
    );
    for (load, turns) in &outcome.turns {
        for (which, label) in BOTH {
            let delays = histogram(turns, which)?;
            let count = chosen(turns, which).count();
            let cells = PARTS.map(|(_, part)| micros(&delays, part).map(|value| format!("{value:.1}")));
            let cells = cells.map(|cell| cell.unwrap_or_else(|| "-".to_owned())).join(" | ");
            text += &format!(
                "| {} | {label} {count} | {} | {cells} | {} |\n",
                if which == Which::All { load.text } else { "" },
                delays.len(),
                percent(within(&delays, 100)),
            );
        }
    }
    text += &shares(outcome)?;
    text += "\n| each worker has | Mpps | inserts per second | a round takes, µs | packets in it | turns with a stop \
             | longest stop, ms | other gaps > 100 µs | longest of them, µs | news that a ring refused | resyncs |\n\
             |---|---|---|---|---|---|---|---|---|---|---|\n";
    outcome.turns.iter().for_each(|(load, turns)| text += &loads(load, turns));
    Ok(text + "\n" + &idle(outcome, plan))
}

/// The histogram.
fn shares(outcome: &Outcome) -> anyhow::Result<String> {
    let bounds = BOUNDS.map(|bound| format!(" ≤ {bound} µs |")).concat();
    let mut text =
        format!("\n| each worker has | turns |{bounds}\n|---|---|{}\n", "---|".repeat(BOUNDS.len()));
    for (load, turns) in &outcome.turns {
        for (which, label) in BOTH {
            let delays = histogram(turns, which)?;
            let cells = BOUNDS.map(|bound| format!(" {} |", percent(within(&delays, bound)))).concat();
            let name = if which == Which::All { load.text } else { "" };
            text += &format!("| {name} | {label} {} |{cells}\n", chosen(turns, which).count());
        }
    }
    Ok(text)
}

fn loads(load: &Load, turns: &[Turn]) -> String {
    let middle =
        |of: fn(&Turn) -> f64| Spread::of(turns.iter().map(of)).map_or(f64::NAN, |spread| spread.middle);
    let most = |of: fn(&Turn) -> u64| turns.iter().map(of).max().unwrap_or(0) as f64;
    let sum = |of: fn(&Turn) -> u64| turns.iter().map(of).sum::<u64>();
    format!(
        "| {} | {:.2} | {:.0} | {:.1} | {:.0} | {} of {} | {:.1} | {} | {:.0} | {} | {} |\n",
        load.text,
        middle(|turn| turn.packets) / 1e6,
        middle(|turn| turn.inserts),
        middle(|turn| turn.round),
        middle(|turn| turn.burst),
        turns.iter().filter(|turn| turn.is_hit()).count(),
        turns.len(),
        most(|turn| turn.longest) / 1e6,
        sum(|turn| turn.unproven as u64),
        most(|turn| turn.longest_unproven) / 1e3,
        sum(|turn| turn.refused),
        sum(|turn| turn.resyncs),
    )
}

/// What the processors do to a loop that only reads the clock.
struct Noise {
    /// Rounds with a gap of more than [`STOP`] of either processor, and those of them in which the kernel proves one.
    hit: usize,
    proven: usize,
    /// By [`QUANTILES`], the median of the rounds: microseconds by which what meets both processors would be held up.
    delay: [Option<f64>; 3],
}

fn noise(outcome: &Outcome, plan: &Plan) -> Noise {
    let all = |gaps: &[Vec<Gap>; 2]| -> Vec<Gap> { gaps.iter().flatten().copied().collect() };
    let rounds: Vec<Vec<Gap>> = outcome.idle.iter().map(all).collect();
    let having = |is: fn(&Gap) -> bool| {
        rounds.iter().filter(|gaps| gaps.iter().any(|gap| gap.nanoseconds > STOP && is(gap))).count()
    };
    let delay = QUANTILES.map(|(_, quantile)| {
        let of = rounds.iter().map(|gaps| delay(gaps, plan.nanoseconds, quantile) as f64 / 1000.0);
        Spread::of(of).map(|spread| spread.middle)
    });
    Noise { hit: having(|_| true), proven: having(Gap::is_proven), delay }
}

fn idle(outcome: &Outcome, plan: &Plan) -> String {
    let Noise { hit, proven, delay } = noise(outcome, plan);
    let delay = delay.map(|value| value.map_or_else(|| "-".to_owned(), |value| format!("{value:.1}")));
    format!(
        "Both processors only reading the clock, in turn with these: {hit} of {} turns had a gap of more than {STOP_MICROS} µs, \
         {proven} of them one that the kernel proves; what needs both would have been held up for {} µs (p50 / p99 / p99.9, \
         median of the turns).\n",
        outcome.idle.len(),
        delay.join(" / "),
    )
}

fn micros(delays: &Histogram<u64>, part: f64) -> Option<f64> {
    (!delays.is_empty()).then(|| delays.value_at_quantile(part) as f64 / 1000.0)
}

fn percent(share: Option<f64>) -> String {
    share.map_or_else(|| "-".to_owned(), |share| format!("{:.2} %", share * 100.0))
}

/// Everything for programs.
pub fn json(outcome: &Outcome, plan: &Plan) -> anyhow::Result<Value> {
    let mut loads = Vec::new();
    for (load, turns) in &outcome.turns {
        let both = |which| -> anyhow::Result<Value> {
            let delays = histogram(turns, which)?;
            let parts: serde_json::Map<String, Value> = PARTS
                .iter()
                .map(|(name, part)| ((*name).to_owned(), json!(micros(&delays, *part))))
                .collect();
            let shares: Vec<Value> =
                curve(&delays).into_iter().map(|(at, share)| json!([at, share])).collect();
            let within = within(&delays, 100);
            Ok(json!({
                "turns": chosen(turns, which).count(), "inserts": delays.len(), "microseconds": parts,
                "within_100_microseconds": within, "within": shares,
            }))
        };
        loads.push(json!({
            "load": load.text, "all": both(Which::All)?, "without_stop": both(Which::WithoutStop)?,
            "turns": turns.iter().map(turn).collect::<Vec<Value>>(),
        }));
    }
    let Noise { hit, proven, delay } = noise(outcome, plan);
    Ok(json!({
        "rounds": plan.rounds, "nanoseconds": plan.nanoseconds, "loads": loads,
        "idle": { "rounds": outcome.idle.len(), "hit": hit, "proven": proven, "delay_microseconds": delay },
    }))
}

/// Microseconds, and the share of delays that are not longer, up to the longest; ten points for each factor of ten.
fn curve(delays: &Histogram<u64>) -> Vec<(f64, f64)> {
    let mut points = Vec::new();
    let steps = if delays.is_empty() { 0 } else { 70 };
    for step in 0..steps {
        let bound = 100.0 * 10f64.powf(f64::from(step) / 10.0);
        let share = delays.count_between(0, bound as u64) as f64 / (delays.len() as f64).max(1.0);
        points.push((bound / 1000.0, share));
        if bound as u64 >= delays.max() {
            break;
        }
    }
    points
}

fn turn(turn: &Turn) -> Value {
    json!({
        "inserts": turn.delays.len(), "longest_nanoseconds": turn.delays.iter().max(), "stops": turn.stops,
        "longest_stop": turn.longest, "other_gaps": turn.unproven, "longest_other_gap": turn.longest_unproven,
        "packets_per_second": turn.packets, "inserts_per_second": turn.inserts, "round_microseconds": turn.round,
        "packets_in_a_round": turn.burst, "news_refused": turn.refused, "resyncs": turn.resyncs,
    })
}

#[cfg(test)]
mod tests {
    use super::super::LOADS;
    use super::*;

    fn outcome() -> Outcome {
        let turn = |delays: &[u64], stops, longest| Turn {
            delays: delays.to_vec(),
            stops,
            longest,
            unproven: 1,
            longest_unproven: 130_000,
            packets: 12e6,
            inserts: 150_000.0,
            round: 5.5,
            burst: 64.0,
            refused: 3,
            resyncs: 0,
        };
        let quiet = turn(&[4_000, 5_000, 6_000, 90_000], 0, 0);
        let stopped = turn(&[4_000, 5_000, 700_000, 8_000_000], 2, 7_500_000);
        let gap = |nanoseconds, idle| Gap { begin: 0, nanoseconds, idle };
        Outcome {
            turns: vec![(LOADS[0], vec![quiet, stopped.clone()]), (LOADS[3], vec![stopped])],
            idle: vec![
                [vec![gap(2_000, 0)], vec![gap(200_000, 0)]],
                [vec![gap(400_000, 300_000)], Vec::new()],
                Default::default(),
            ],
        }
    }

    #[test]
    fn turns_without_a_stop_stand_beside_all_of_them() {
        let text = table(&outcome(), &Plan::new(true)).unwrap();
        for line in [
            "20 turns of 10 ms",
            "| a flow begins every 20 µs, nothing else | all 2 | 8 | 5.0 | 8003.6 | 8003.6 | 8003.6 | 8003.6 | 75.00 % |",
            "|  | no stop: 1 | 4 | 5.0 | 90.0 | 90.0 | 90.0 | 90.0 | 100.00 % |",
            "| full bursts, every packet opens a flow | all 1 | 4 |",
            "|  | no stop: 0 | 0 | - | - | - | - | - | - |",
            "|  | no stop: 1 | 0.00 % | 50.00 % | 75.00 % | 75.00 % | 75.00 % | 100.00 % | 100.00 % | 100.00 % | 100.00 % |",
            "| 12.00 | 150000 | 5.5 | 64 | 1 of 2 | 7.5 | 2 | 130 | 6 | 0 |",
            "2 of 3 turns had a gap of more than 100 µs, 1 of them one that the kernel proves",
            "held up for 0.0 / 100.0 / 190.0 µs",
        ] {
            assert!(text.contains(line), "{line}\n{text}");
        }
    }

    #[test]
    fn programs_get_the_whole_histogram_and_each_turn() {
        let value = json(&outcome(), &Plan::new(true)).unwrap();
        let at = |path: &str| value.pointer(path).cloned().unwrap_or_default();
        assert_eq!(at("/loads/0/without_stop/within_100_microseconds"), 1.0);
        assert_eq!(at("/loads/1/without_stop/microseconds/p50"), Value::Null);
        assert_eq!(at("/loads/0/turns/1/longest_stop"), 7_500_000);
        assert_eq!((at("/idle/proven"), at("/loads/1/without_stop/within")), (json!(1), json!([])));
        let all = at("/loads/0/all/within");
        let last = all.as_array().and_then(|points| points.last()).cloned().unwrap_or_default();
        assert!(last[0].as_f64().unwrap() >= 8_000.0 && last[1] == 1.0, "{last}");
        assert_eq!(all[20], json!([10.0, 0.625]), "{all}");
    }
}
