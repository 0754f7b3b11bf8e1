//! Two revisions, measured in turn: which differences are real.
//!
//! Round n of one revision is paired with round n of the other, which followed it at once, so that whatever the machine did
//! in these minutes meets both. Of each pair the logarithm of the ratio counts. If the revisions were alike, each of these
//! would be as likely of one sign as of the other: the share of all assignments of signs whose mean is at least as far from
//! zero is the probability of what was seen (an exact permutation test). A difference is real below [`LEVEL`].

use std::path::Path;

use anyhow::{Context, ensure};
use serde_json::Value;

use crate::measure::{middle, sorted};

/// Of a hundred comparisons of like with like one is called a difference.
pub const LEVEL: f64 = 0.01;
/// More rounds than that are not all permuted.
const MOST_ROUNDS: usize = 20;

/// One scenario in both revisions.
#[derive(Clone, Debug)]
pub struct Difference {
    /// Its name.
    pub scenario: String,
    /// Cycles per unit: the median of the rounds, base and head.
    pub cycles: [f64; 2],
    /// Head over base: the median of the pairs.
    pub ratio: f64,
    /// The lowest and the highest pair.
    pub bounds: [f64; 2],
    /// How likely that is among like ones.
    pub probability: f64,
}

impl Difference {
    /// From cycles of paired rounds.
    pub fn of(scenario: &str, base: &[f64], head: &[f64]) -> anyhow::Result<Difference> {
        ensure!(base.len() == head.len() && !base.is_empty(), "{scenario}: rounds without a partner");
        ensure!(base.len() <= MOST_ROUNDS, "at most {MOST_ROUNDS} rounds");
        let ratios = sorted(head.iter().zip(base).map(|(head, base)| head / base).collect());
        let logs: Vec<f64> = head.iter().zip(base).map(|(head, base)| (head / base).ln()).collect();
        let bounds = [ratios.first(), ratios.last()].map(|ratio| ratio.copied().unwrap_or(f64::NAN));
        Ok(Difference {
            scenario: scenario.to_owned(),
            cycles: [base, head].map(|cycles| middle(&sorted(cycles.to_vec()))),
            ratio: middle(&ratios),
            bounds,
            probability: probability(&logs),
        })
    }

    /// What to make of it.
    #[must_use]
    pub fn verdict(&self) -> &'static str {
        match self.probability < LEVEL {
            true if self.ratio > 1.0 => "real: dearer",
            true => "real: cheaper",
            false => "not told from noise",
        }
    }
}

/// The share of all signs whose sum is at least as far from zero.
fn probability(logs: &[f64]) -> f64 {
    let seen = logs.iter().sum::<f64>().abs() * (1.0 - 1e-12);
    let all = 1u32 << logs.len();
    let sum = |signs: u32| -> f64 {
        logs.iter().enumerate().map(|(place, log)| if signs >> place & 1 == 1 { -log } else { *log }).sum()
    };
    (0..all).filter(|&signs| sum(signs).abs() >= seen).count() as f64 / f64::from(all)
}

/// Rounds of both revisions, in the order in which they were run: files of `weir-perf --json`.
pub fn read(base: &[impl AsRef<Path>], head: &[impl AsRef<Path>]) -> anyhow::Result<Vec<Difference>> {
    let rounds = |paths: &[&Path]| paths.iter().map(|path| round(path)).collect::<anyhow::Result<Vec<_>>>();
    let base = rounds(&base.iter().map(AsRef::as_ref).collect::<Vec<_>>())?;
    let head = rounds(&head.iter().map(AsRef::as_ref).collect::<Vec<_>>())?;
    let first = base.first().context("no rounds")?;
    let of = |rounds: &[Vec<(String, f64)>], name: &str| -> Vec<f64> {
        rounds.iter().flatten().filter(|(scenario, _)| scenario == name).map(|(_, cycles)| *cycles).collect()
    };
    first.iter().map(|(name, _)| Difference::of(name, &of(&base, name), &of(&head, name))).collect()
}

fn round(path: &Path) -> anyhow::Result<Vec<(String, f64)>> {
    let place = || path.display().to_string();
    let value: Value =
        serde_json::from_slice(&std::fs::read(path).with_context(place)?).with_context(place)?;
    let row = |row: &Value| {
        Some((row.get("scenario")?.as_str()?.to_owned(), row.get("cycles_per_unit")?.as_f64()?))
    };
    value
        .get("rows")
        .and_then(Value::as_array)
        .and_then(|rows| rows.iter().map(row).collect())
        .with_context(place)
}

/// As a Markdown table.
#[must_use]
pub fn table(differences: &[Difference]) -> String {
    let mut text = String::from(
        "| scenario | base, cycles | head, cycles | head / base (lowest-highest pair) | p | |\n|---|---|---|---|---|---|\n",
    );
    for difference in differences {
        let ([base, head], [lowest, highest]) = (difference.cycles, difference.bounds);
        text += &format!(
            "| {} | {base:.0} | {head:.0} | {:.3} ({lowest:.3}-{highest:.3}) | {:.3} | {} |\n",
            difference.scenario,
            difference.ratio,
            difference.probability,
            difference.verdict()
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOISE: [f64; 9] = [100.0, 180.0, 95.0, 102.0, 240.0, 99.0, 150.0, 101.0, 97.0];

    #[test]
    fn two_per_cent_in_each_pair_are_real_whatever_the_rounds_do() {
        let head = NOISE.map(|cycles| cycles * 1.02);
        let difference = Difference::of("udp-1", &NOISE, &head).unwrap();
        assert_eq!(difference.verdict(), "real: dearer");
        assert!((difference.ratio - 1.02).abs() < 1e-9);
        assert!((difference.probability - 2.0 / 512.0).abs() < 1e-9);
        assert_eq!(Difference::of("udp-1", &head, &NOISE).unwrap().verdict(), "real: cheaper");
    }

    #[test]
    fn what_goes_up_and_down_is_noise() {
        let signs = [1.05, 0.96, 1.01, 0.98, 1.10, 0.93, 1.0, 1.02, 0.97];
        let head: Vec<f64> = NOISE.iter().zip(signs).map(|(cycles, sign)| cycles * sign).collect();
        assert_eq!(Difference::of("udp-1", &NOISE, &head).unwrap().verdict(), "not told from noise");
        assert_eq!(Difference::of("udp-1", &NOISE, &NOISE).unwrap().probability, 1.0);
    }

    #[test]
    fn of_like_revisions_one_in_a_hundred_comparisons_errs() {
        let (mut random, mut errors) = (7u64, 0);
        for _ in 0..2000 {
            let mut noise = || {
                random = random.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
                100.0 + ((random >> 40) % 50) as f64
            };
            let (base, head): ([f64; 9], [f64; 9]) =
                (std::array::from_fn(|_| noise()), std::array::from_fn(|_| noise()));
            errors +=
                i32::from(Difference::of("x", &base, &head).unwrap().verdict() != "not told from noise");
        }
        assert!((4..=36).contains(&errors), "{errors} of 2000");
    }

    #[test]
    fn rounds_without_a_partner_are_refused() {
        assert!(Difference::of("x", &NOISE, &NOISE[1..]).is_err());
    }
}
