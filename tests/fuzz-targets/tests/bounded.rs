//! The fuzz targets on stable Rust: the committed corpora, then a bounded number of random inputs.
//!
//! `FUZZ_SEED` repeats a failing run, `FUZZ_SECONDS` (default 2, per target) makes it longer.
#![cfg(test)]

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use fuzz_targets::{ALL, Target};

/// SplitMix64: the same numbers on every machine.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }
}

fn corpus(name: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus").join(name);
    let mut files: Vec<_> = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(!files.is_empty(), "{} is empty", folder.display());
    files.into_iter().map(|path| (path.clone(), std::fs::read(path).unwrap())).collect()
}

/// Bytes of a file, damaged and grown, or nothing but random ones.
fn variation(random: &mut Random, corpus: &[(PathBuf, Vec<u8>)]) -> Vec<u8> {
    let mut bytes = match random.below(4) {
        0 => Vec::new(),
        _ => corpus[random.below(corpus.len())].1.clone(),
    };
    for _ in 0..random.below(6) {
        if !bytes.is_empty() {
            let at = random.below(bytes.len());
            bytes[at] = random.next() as u8;
        }
    }
    let more = if bytes.is_empty() || random.below(3) == 0 { random.below(300) } else { 0 };
    bytes.extend(
        (0..more).map(|_| if random.below(3) == 0 { random.below(8) } else { random.below(256) } as u8),
    );
    bytes
}

fn run(name: &str, target: Target, bytes: &[u8], origin: &str) {
    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| target(bytes))) {
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        eprintln!("target {name}, {origin}, fails with these bytes:\n{hex}");
        resume_unwind(panic);
    }
}

fn bounded(wanted: &str) {
    let (name, target) = ALL.into_iter().find(|(name, _)| *name == wanted).unwrap();
    let corpus = corpus(name);
    for (path, bytes) in &corpus {
        run(name, target, bytes, &path.display().to_string());
    }
    let seed = std::env::var("FUZZ_SEED").ok().map(|seed| seed.parse().unwrap());
    let seed: u64 = seed.unwrap_or_else(|| RandomState::new().build_hasher().finish());
    println!("FUZZ_SEED={seed}");
    let seconds = std::env::var("FUZZ_SECONDS").map_or(2, |seconds| seconds.parse().unwrap());
    let end = SystemTime::now() + Duration::from_secs(seconds);
    let mut random = Random(seed);
    let mut count = 0u64;
    while SystemTime::now() < end {
        run(name, target, &variation(&mut random, &corpus), &format!("FUZZ_SEED={seed}, input {count}"));
        count += 1;
    }
    println!("{name}: {count} random inputs");
}

#[test]
fn parse() {
    bounded("parse");
}

#[test]
fn reassembly() {
    bounded("reassembly");
}

#[test]
fn binding() {
    bounded("binding");
}

#[test]
fn options() {
    bounded("options");
}

#[test]
fn proxy_protocol() {
    bounded("proxy_protocol");
}
