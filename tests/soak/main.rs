//! Thousands of connections through weir, between hosts whose wires lose, delay, reorder, repeat and spoil packets. The
//! whole chain but for DPDK, in virtual time: the same numbers each time.
//!
//! What an end has heard is always a beginning of what the other has said, and the scripts have run once. A connection
//! that an end has given up after minutes without an answer, or weir by one of its timers, counts as `given_up`; all
//! others are complete in both directions. `retransmitted` are weir's own segments, `p50_ms` and so on the time from
//! the first SYN to the moment when both ends have everything. In the rows `lost-…` one packet of weir's is lost in each
//! connection, and only a timer of weir's can bring it again: there each connection must be complete in time.
//!
//! - `cargo nextest run -p weir-tests --test soak`: a part of it, compared with `expected_part.csv`.
//! - `make soak`: the whole, compared with `expected.csv`.
//! - `WEIR_SOAK_UPDATE=1` before either writes the table anew.
//! - `WEIR_SOAK="loss-30 17" cargo test -p weir-tests --test soak one_batch -- --ignored`: batch 17 of that row again.
#![cfg(test)]

mod batch;
#[path = "../virtual/device.rs"]
mod device;
mod host;
mod impair;
#[path = "../virtual/invariants.rs"]
mod invariants;
mod matrix;
#[path = "../virtual/weir.rs"]
mod weir;
mod world;

use std::fmt::Write;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Mutex;

use batch::{CONNECTIONS, Outcome};
use matrix::{MATRIX, Row};

/// Batches of each row in `make test`, and in `make soak`.
const PART: u64 = 6;
const WHOLE: u64 = 10_000 / CONNECTIONS as u64;

/// As [`batch::run`]; tells how a failure is repeated.
fn run_batch(row: &Row, seed: u64) -> Outcome {
    catch_unwind(AssertUnwindSafe(|| batch::run(row, seed))).unwrap_or_else(|failure| {
        eprintln!(
            "FAILED: {name}, batch {seed}. Again: WEIR_SOAK=\"{name} {seed}\" cargo test -p weir-tests --test soak \
             one_batch -- --ignored --nocapture",
            name = row.name
        );
        resume_unwind(failure)
    })
}

/// That many batches of a row.
fn run_row(row: &Row, batches: u64) -> Outcome {
    let mut all = Outcome::default();
    for seed in 0..batches {
        let one = run_batch(row, seed);
        all.connections += one.connections;
        all.retransmitted += one.retransmitted;
        all.times.extend(one.times);
    }
    all.times.sort_unstable();
    all
}

fn line(row: &Row, outcome: &Outcome) -> String {
    let times = &outcome.times;
    let quantile =
        |percent: usize| times.get((times.len() * percent / 100).min(times.len().saturating_sub(1)));
    let [p50, p90, p99] = [50, 90, 99].map(|percent| quantile(percent).copied().unwrap_or_default());
    let (all, completed) = (outcome.connections, times.len());
    let (name, given_up, again) = (row.name, all - completed, outcome.retransmitted);
    format!("{name},{all},{completed},{given_up},{again},{p50},{p90},{p99}")
}

/// The table of all rows, each row on the next free core.
fn table(batches: u64) -> String {
    let rows = Mutex::new(MATRIX.iter().enumerate());
    let next = || rows.lock().unwrap().next();
    let lines = Mutex::new(vec![String::new(); MATRIX.len()]);
    let work = || {
        while let Some((index, row)) = next() {
            let line = line(row, &run_row(row, batches));
            println!("{line}");
            lines.lock().unwrap()[index] = line;
        }
    };
    std::thread::scope(|scope| {
        let workers = std::thread::available_parallelism().map_or(1, usize::from);
        let workers: Vec<_> = (0..workers).map(|_| scope.spawn(work)).collect();
        workers.into_iter().for_each(|worker| worker.join().unwrap_or_else(|failure| resume_unwind(failure)));
    });
    let mut table = String::from("row,connections,completed,given_up,retransmitted,p50_ms,p90_ms,p99_ms\n");
    lines.into_inner().unwrap().iter().for_each(|line| writeln!(table, "{line}").unwrap());
    table
}

/// The table is the one in this file; `WEIR_SOAK_UPDATE` writes it there.
fn compare(file: &str, table: &str) {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("soak").join(file);
    if std::env::var_os("WEIR_SOAK_UPDATE").is_some() {
        std::fs::write(&path, table).unwrap();
    }
    let expected = std::fs::read_to_string(&path).unwrap();
    assert!(table == expected, "{} says:\n{expected}but it is:\n{table}", path.display());
}

#[test]
fn a_part_of_the_matrix_ends_as_it_did() {
    compare("expected_part.csv", &table(PART));
}

#[test]
#[ignore = "four minutes in a release build; make soak"]
fn the_whole_matrix_ends_as_it_did() {
    compare("expected.csv", &table(WHOLE));
}

#[test]
#[ignore = "repeats the batch that WEIR_SOAK names"]
fn one_batch() {
    let wanted = std::env::var("WEIR_SOAK").expect("WEIR_SOAK=\"row number\"");
    let (name, seed) = wanted.split_once(' ').expect("a row and a number");
    let row = MATRIX.iter().find(|row| row.name == name).expect("a row of the matrix");
    println!("{:?}", run_batch(row, seed.parse().unwrap()));
}
