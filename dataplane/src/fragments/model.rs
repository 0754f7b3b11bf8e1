//! The table compared with one that keeps single bytes and has no bounds.

use std::collections::{BTreeMap, HashMap};

use smoltcp::time::{Duration, Instant};

use super::tests::{MEMORY, Piece, Table, bytes, cut, piece};
use super::{MOST_PIECES, TIMEOUT, UNIT};
use crate::counters::DropReason;

struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
        ((self.0 >> 33) as usize) % limit
    }
}

struct Known {
    since: Instant,
    bytes: BTreeMap<usize, u8>,
    pieces: Vec<(usize, Vec<u8>, bool)>,
    end: Option<usize>,
    dead: Option<DropReason>,
}

impl Known {
    fn new(since: Instant) -> Self {
        Known { since, bytes: BTreeMap::new(), pieces: Vec::new(), end: None, dead: None }
    }
}

#[derive(Default)]
struct Model(HashMap<u16, Known>);

impl Model {
    fn add(&mut self, now: Instant, piece: &Piece) -> Result<Option<Vec<u8>>, DropReason> {
        let known = self.0.entry(piece.id).or_insert_with(|| Known::new(now));
        if let Some(reason) = known.dead {
            return Err(reason);
        }
        let (start, end) = (piece.offset, piece.offset + piece.payload.len());
        if known.pieces.contains(&(start, piece.payload.clone(), piece.more)) {
            return Err(DropReason::FragmentRepeat);
        }
        let overlaps = (start..end).any(|at| known.bytes.contains_key(&at));
        let last = known.bytes.keys().next_back().map_or(0, |last| last + 1);
        let wrong_end = match (known.end, piece.more) {
            (Some(known), false) => known != end,
            (Some(known), true) => known <= end,
            (None, false) => last > end,
            (None, true) => false,
        };
        if overlaps || wrong_end {
            known.dead = Some(DropReason::FragmentOverlap);
            return Err(DropReason::FragmentOverlap);
        }
        if known.pieces.len() == MOST_PIECES {
            known.dead = Some(DropReason::FragmentInvalid);
            return Err(DropReason::FragmentInvalid);
        }
        known.pieces.push((start, piece.payload.clone(), piece.more));
        known.bytes.extend((start..end).zip(piece.payload.iter().copied()));
        known.end = known.end.or((!piece.more).then_some(end));
        if known.end != Some(known.bytes.len()) {
            return Ok(None);
        }
        Ok(self.0.remove(&piece.id).map(|known| known.bytes.into_values().collect()))
    }

    /// The datagrams that are given up now: whether each counts, and whether its start is there.
    fn expire(&mut self, now: Instant) -> HashMap<u16, (bool, bool)> {
        let over = self.0.extract_if(|_, known| known.since + TIMEOUT <= now);
        over.map(|(id, known)| (id, (known.dead.is_some(), known.bytes.contains_key(&0)))).collect()
    }
}

/// A fragment of one of a few datagrams, or something near it.
fn any_piece(random: &mut Random) -> Piece {
    // Most are of the datagram that has more fragments than are allowed.
    let id = if random.below(3) == 0 { 1 } else { random.below(12) };
    let length = [40, 600, 3000, 5000, 8000][id % 5];
    let payload = bytes(length, id as u8);
    let pieces = cut(id as u16, &payload, [8, 8, 1480, 2048, 1480][id % 5]);
    let chosen = pieces[random.below(pieces.len())].clone();
    match random.below(200) {
        0 => Piece { more: true, payload: chosen.payload[..chosen.payload.len() & !7].to_vec(), ..chosen },
        1 => Piece { more: false, ..chosen },
        2 => {
            let mut other = chosen;
            let at = random.below(other.payload.len());
            other.payload[at] ^= 1;
            other
        }
        3 => {
            let start = random.below(length / 8) * 8;
            piece(id as u16, start, true, &payload[start..(start + 16).min(length & !7)])
        }
        _ => chosen,
    }
}

#[test]
fn the_table_agrees_with_a_naive_model() {
    let seed = 0xf4a6_0001;
    println!("seed {seed:#x}");
    let mut random = Random(seed);
    let (mut table, mut model) = (Table::new(MEMORY), Model::default());
    let mut met: HashMap<String, usize> = HashMap::new();
    for step in 0..12_000 {
        let piece = any_piece(&mut random);
        if piece.payload.is_empty() {
            continue;
        }
        let (got, wanted) = (table.add(&piece), model.add(table.now, &piece));
        assert_eq!(got, wanted, "step {step}, seed {seed:#x}: {piece:?}");
        let name = match got {
            Ok(whole) => format!("whole: {}", whole.is_some()),
            Err(reason) => reason.label().to_owned(),
        };
        *met.entry(name).or_default() += 1;
        table.now += Duration::from_millis(random.below(40) as u64);
        let mut over = model.expire(table.now);
        while let Some(expired) = table.table.pop_expired(table.now) {
            let (dead, first) = over.remove(&expired.key.source_port).unwrap();
            assert_eq!(
                (expired.refused, !expired.first.is_empty()),
                (dead, first && !dead),
                "seed {seed:#x}"
            );
            *met.entry("expired".to_owned()).or_default() += 1;
        }
        assert!(over.is_empty(), "step {step}, seed {seed:#x}");
        assert_eq!(table.table.in_use().0, model.0.len(), "step {step}, seed {seed:#x}");
    }
    println!("{met:?}");
    for name in
        ["whole: true", "whole: false", "fragment_repeat", "fragment_overlap", "fragment_invalid", "expired"]
    {
        assert!(met.get(name).is_some_and(|count| *count >= 10), "{name} is not met: {met:?}");
    }
    assert_eq!(table.counters.fragments_evicted, 0);
}

/// However small the table is and whatever else comes: it stays within its bounds, and a datagram whose fragments
/// come one after the other is complete.
#[test]
fn a_flood_does_not_keep_a_datagram_in_one_piece_away() {
    let seed = 0xf4a6_0002;
    println!("seed {seed:#x}");
    let mut random = Random(seed);
    let units = 34;
    let mut table = Table::new((units * UNIT) as u32);
    let payload = bytes(65_000, 9);
    for round in 0..400u16 {
        for _ in 0..random.below(60) {
            let offset = random.below(8000) * 8;
            let fragment = piece(random.below(60_000) as u16 + 1000, offset, true, &[1; 1480]);
            let _ = table.add(&fragment);
            let (datagrams, blocks) = table.table.in_use();
            assert!(datagrams <= units && blocks <= units);
        }
        let pieces = cut(round, &payload, 1480);
        let results: Vec<_> = pieces.iter().map(|piece| table.add(piece)).collect();
        assert_eq!(results.last(), Some(&Ok(Some(payload.clone()))), "round {round}, seed {seed:#x}");
        table.now += Duration::from_millis(50);
        while table.table.pop_expired(table.now).is_some() {}
    }
    table.now += TIMEOUT;
    while table.table.pop_expired(table.now).is_some() {}
    assert_eq!(table.table.in_use(), (0, 0));
    assert!(table.counters.fragments_evicted > 1000, "{:?}", table.counters);
}
