//! Latency and loss at a given load: an open-loop generator against weir in this process (`near`) or in one of its own
//! (`far`), each beside a bare device loop in weir's place.

pub mod far;
pub mod generator;
pub mod near;
pub mod template;

use generator::Load;
use serde_json::{Value, json};

/// How long, and at which loads.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Per cent of the most that came back when as much was sent as the wire took.
    pub loads: Vec<u32>,
    /// Nanoseconds of each run.
    pub nanoseconds: u64,
    /// Runs at each load and of each subject, in turn.
    pub rounds: usize,
}

impl Plan {
    /// The usual loads, with runs of a second or of a fifth of one.
    #[must_use]
    pub fn new(quick: bool) -> Plan {
        let (nanoseconds, rounds) = if quick { (200_000_000, 3) } else { (1_000_000_000, 5) };
        Plan { loads: vec![10, 25, 50, 75, 90], nanoseconds, rounds }
    }
}

/// What stands at the other end of the wire.
pub trait Subjects {
    /// Their names; the first one is weir.
    fn names(&self) -> Vec<String>;
    /// Sends to one of them, while the others rest.
    fn run(&mut self, subject: usize, rate: Option<f64>, nanoseconds: u64) -> anyhow::Result<Load>;
}

/// One subject at one load.
pub struct Point {
    /// Packets per second that were to be sent.
    pub offered: f64,
    /// All rounds together.
    pub load: Load,
}

/// One subject.
pub struct Curve {
    /// What it is.
    pub name: String,
    /// The most packets per second that came back: median, lowest and highest of the rounds.
    pub most: [f64; 3],
    /// By load.
    pub points: Vec<Point>,
}

/// Finds the maximum of each subject, then sends at parts of weir's to all of them, in turn.
pub fn measure(subjects: &mut dyn Subjects, plan: &Plan) -> anyhow::Result<Vec<Curve>> {
    let mut most: Vec<Vec<f64>> = vec![Vec::new(); subjects.names().len()];
    for _ in 0..plan.rounds {
        for (subject, rates) in most.iter_mut().enumerate() {
            rates.push(subjects.run(subject, None, plan.nanoseconds / 2)?.rate());
        }
    }
    let mut curves: Vec<Curve> = subjects
        .names()
        .into_iter()
        .zip(most)
        .map(|(name, mut rates)| {
            rates.sort_by(f64::total_cmp);
            let at = |place: usize| rates.get(place).copied().unwrap_or(f64::NAN);
            let most = [at(rates.len() / 2), at(0), at(rates.len().saturating_sub(1))];
            Curve { name, most, points: Vec::new() }
        })
        .collect();
    let full = curves.first().map_or(f64::NAN, |weir| weir.most[0]);
    for percent in &plan.loads {
        let offered = full * f64::from(*percent) / 100.0;
        let mut loads = vec![Load::new()?; curves.len()];
        for _ in 0..plan.rounds {
            for (subject, load) in loads.iter_mut().enumerate() {
                load.add(&subjects.run(subject, Some(offered), plan.nanoseconds)?)?;
            }
        }
        let points = loads.into_iter().map(|load| Point { offered, load });
        curves.iter_mut().zip(points).for_each(|(curve, point)| curve.points.push(point));
    }
    Ok(curves)
}

/// The curves as a Markdown table.
#[must_use]
pub fn table(curves: &[Curve], plan: &Plan) -> String {
    let mut text = String::from("| at the other end | most, Mpps (lowest-highest round) |\n|---|---|\n");
    for Curve { name, most: [middle, lowest, highest], .. } in curves {
        let [middle, lowest, highest] = [middle, lowest, highest].map(|rate| rate / 1e6);
        text += &format!("| {name} | {middle:.2} ({lowest:.2}-{highest:.2}) |\n");
    }
    text +=
        "\n| load | Mpps | at the other end | p50 / p99 / p99.9 / most µs | lost |\n|---|---|---|---|---|\n";
    for (place, percent) in plan.loads.iter().enumerate() {
        for curve in curves {
            let Some(Point { offered, load }) = curve.points.get(place) else { continue };
            let micros = |quantile| load.latency.value_at_quantile(quantile) as f64 / 1000.0;
            let [p50, p99, p999, most] = [0.5, 0.99, 0.999, 1.0].map(micros);
            text += &format!(
                "| {percent} % | {:.3} | {} | {p50:.1} / {p99:.1} / {p999:.1} / {most:.0} | {:.4} % |\n",
                offered / 1e6,
                curve.name,
                load.loss() * 100.0
            );
        }
    }
    text
}

/// The curves for programs.
#[must_use]
pub fn json(curves: &[Curve], plan: &Plan) -> Value {
    let point = |(percent, Point { offered, load }): (&u32, &Point)| {
        let nanoseconds = |quantile| load.latency.value_at_quantile(quantile);
        json!({
            "percent": percent, "offered": offered, "scheduled": load.scheduled, "refused": load.refused,
            "received": load.received, "loss": load.loss(), "nanoseconds": load.nanoseconds,
            "latency_nanoseconds": {
                "p50": nanoseconds(0.5), "p90": nanoseconds(0.9), "p99": nanoseconds(0.99),
                "p99.9": nanoseconds(0.999), "max": nanoseconds(1.0),
            },
        })
    };
    let curve = |curve: &Curve| {
        let [middle, lowest, highest] = curve.most;
        let points: Vec<Value> = plan.loads.iter().zip(&curve.points).map(point).collect();
        json!({ "name": curve.name, "most": middle, "most_lowest": lowest, "most_highest": highest, "points": points })
    };
    curves.iter().map(curve).collect()
}
