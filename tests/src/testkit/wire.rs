//! Bad wires between weir and the hosts (`peers/lossy.py`).

use std::collections::HashMap;
use std::time::Duration;

use serde_json::Value;

use super::{Process, Result};

/// What a wire did with the frames of one direction, by kind.
pub type Tally = HashMap<String, u64>;

/// What happens to frames on a wire. Chances are per mille and frame, in each direction.
#[derive(Clone, Copy, Debug)]
pub struct Wire {
    /// Never comes.
    pub loss: u32,
    /// Comes late, and is overtaken.
    pub late: u32,
    /// Comes again.
    pub repeat: u32,
    /// How long each frame takes.
    pub delay: Duration,
    /// How much later than that, at most, those come that are late or come again.
    pub jitter: Duration,
    /// Of the dice.
    pub seed: u64,
}

impl Wire {
    /// The wire ends by itself when a test has been killed.
    const LIMIT: Duration = Duration::from_secs(200);

    pub(super) fn arguments(&self, port: &str, far: &str, number: u64) -> Vec<String> {
        let chances = [self.loss, self.late, self.repeat].map(|chance| chance.to_string());
        let times = [self.delay, self.jitter].map(|time| time.as_micros().to_string());
        // Each wire has two dice.
        let seed = self.seed + 2 * number;
        let head = [port.to_owned(), far.to_owned(), Self::LIMIT.as_secs().to_string(), seed.to_string()];
        head.into_iter().chain(chances).chain(times).collect()
    }

    /// Ends a wire and returns what it did, once for each direction.
    ///
    /// # Errors
    /// When it has ended already, or does not say.
    pub fn cut(wire: Process) -> Result<Vec<Tally>> {
        wire.signal("TERM")?;
        let said = wire.finish(Duration::from_secs(5))?;
        let lines = said.lines().filter(|line| line.starts_with('{'));
        lines
            .map(|line| {
                let tally: HashMap<String, Value> = serde_json::from_str(line)?;
                Ok(tally.into_iter().filter_map(|(kind, count)| Some((kind, count.as_u64()?))).collect())
            })
            .collect()
    }
}
