use tcp::{Reassembly, TooManyHoles};

use crate::input::Input;

/// Segments at any offset, against one cell per byte whose first write stays (the overlap rule of `docs/tcp.md`).
pub fn reassembly(data: &[u8]) {
    let mut input = Input(data);
    let limit = usize::from(input.u16() % 2000) + 1;
    let mut cells: Vec<Option<u8>> = vec![None; limit];
    let mut tested = Reassembly::default();
    let mut fill = 0u8;
    while !input.is_empty() {
        let offset = usize::from(input.u16()) % (limit + 50);
        let length = usize::from(input.u8());
        fill = fill.wrapping_add(1);
        if length == 255 {
            tested.forget_waiting();
            let kept = contiguous(&cells).len();
            cells[kept..].fill(None);
        } else {
            insert(&mut tested, &mut cells, offset, &vec![fill; length]);
        }
        compare(&tested, &cells);
    }
}

fn insert(tested: &mut Reassembly, cells: &mut [Option<u8>], offset: usize, data: &[u8]) {
    let before = tested.contiguous().len();
    match tested.insert(offset, data, cells.len()) {
        Ok(grown) => {
            for (cell, byte) in cells.iter_mut().skip(offset).zip(data) {
                cell.get_or_insert(*byte);
            }
            assert_eq!(tested.contiguous().len(), before + grown);
        }
        Err(TooManyHoles) => assert!(ranges(cells).len() >= 32, "refused with room for a hole"),
    }
}

fn compare(tested: &Reassembly, cells: &[Option<u8>]) {
    assert_eq!(tested.contiguous(), contiguous(cells));
    let mut waiting: Vec<_> = tested.waiting().collect();
    waiting.sort_unstable();
    assert_eq!(waiting, ranges(cells));
    assert_eq!(tested.has_holes(), !waiting.is_empty());
}

fn contiguous(cells: &[Option<u8>]) -> Vec<u8> {
    cells.iter().map_while(|cell| *cell).collect()
}

/// The ranges beyond the first hole.
fn ranges(cells: &[Option<u8>]) -> Vec<(usize, usize)> {
    let mut ranges: Vec<(usize, usize)> = Vec::new();
    for (at, cell) in cells.iter().enumerate().skip(contiguous(cells).len()) {
        match ranges.last_mut() {
            _ if cell.is_none() => {}
            Some(range) if range.1 == at => range.1 += 1,
            _ => ranges.push((at, at + 1)),
        }
    }
    ranges
}
