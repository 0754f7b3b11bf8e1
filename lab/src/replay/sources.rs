//! The lines of scripts, to be shown beside their numbers.

use std::collections::HashMap;

use dataplane::snapshot::{Snapshot, Source};

/// Longest line that is shown whole, in characters.
const LONGEST: usize = 160;

/// The texts of all scripts and parser modules of a configuration, by name and line.
#[derive(Default)]
pub(super) struct Sources(HashMap<String, Vec<String>>);

impl Sources {
    pub(super) fn of(snapshot: &Snapshot) -> Sources {
        let sources = snapshot.script_sets.iter().flat_map(|set| {
            let parsers = set.parsers.iter().map(|(_, source)| source);
            set.request.iter().chain(&set.response).chain(parsers)
        });
        let named = |source: &Source| (source.name.clone(), lines(&source.text));
        Sources(sources.map(named).collect())
    }

    /// A line without the blanks around it; empty if it is not known.
    pub(super) fn line(&self, source: &str, number: u32) -> &str {
        let lines = self.0.get(source).map(Vec::as_slice).unwrap_or_default();
        let place = usize::try_from(number).unwrap_or(0).checked_sub(1);
        place.and_then(|place| lines.get(place)).map_or("", String::as_str)
    }
}

fn lines(text: &[u8]) -> Vec<String> {
    let text = String::from_utf8_lossy(text);
    text.lines().map(|line| line.trim().chars().take(LONGEST).collect()).collect()
}
