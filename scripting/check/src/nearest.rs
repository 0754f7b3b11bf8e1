//! "Did you mean": the known name that is closest to an unknown one.

/// The candidate closest to `name`, if it is close enough to be a slip of the keyboard.
#[must_use]
pub fn nearest<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let allowed = (name.chars().count() / 3).max(1);
    let scored = candidates.into_iter().map(|candidate| (distance(&fold(name), &fold(candidate)), candidate));
    let (steps, candidate) = scored.min_by_key(|(steps, _)| *steps)?;
    (steps <= allowed).then_some(candidate)
}

/// Small letters, and one spelling of the separators.
fn fold(name: &str) -> Vec<char> {
    name.to_lowercase().chars().map(|c| if matches!(c, '-' | ' ' | '.') { '_' } else { c }).collect()
}

/// Insertions, removals, replacements and swaps of neighbours that turn `a` into `b`.
fn distance(a: &[char], b: &[char]) -> usize {
    let mut two_back: Vec<usize> = Vec::new();
    let mut back: Vec<usize> = (0..=b.len()).collect();
    let mut last_a = None;
    for (i, &in_a) in a.iter().enumerate() {
        let mut row = vec![i + 1];
        let mut last_b = None;
        for (j, &in_b) in b.iter().enumerate() {
            let at = |row: &[usize], j: usize| row.get(j).copied().unwrap_or(usize::MAX / 2);
            let replaced = at(&back, j) + usize::from(in_a != in_b);
            let mut best = replaced.min(at(&back, j + 1) + 1).min(at(&row, j) + 1);
            if last_a == Some(in_b) && last_b == Some(in_a) && j > 0 {
                best = best.min(at(&two_back, j - 1) + 1);
            }
            row.push(best);
            last_b = Some(in_b);
        }
        two_back = std::mem::replace(&mut back, row);
        last_a = Some(in_a);
    }
    back.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_are_found_and_other_words_are_not() {
        let keys = ["address", "port", "weight", "hostname"];
        assert_eq!(nearest("adress", keys), Some("address"));
        assert_eq!(nearest("Address", keys), Some("address"));
        assert_eq!(nearest("prot", keys), Some("port"));
        assert_eq!(nearest("host-name", keys), Some("hostname"));
        assert_eq!(nearest("banana", keys), None);
        assert_eq!(nearest("x", []), None);
    }

    #[test]
    fn distance_counts_steps() {
        let d = |a: &str, b: &str| distance(&fold(a), &fold(b));
        assert_eq!(d("", "abc"), 3);
        assert_eq!(d("abc", ""), 3);
        assert_eq!(d("abc", "abc"), 0);
        assert_eq!(d("ab", "ba"), 1);
        assert_eq!(d("kitten", "sitting"), 3);
    }
}
