//! Where a script spends its time, by samples: [`ScriptProfile`].

/// A line and what was seen there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProfileLine {
    /// The name of the script's or module's source.
    pub source: String,
    /// Counted from 1.
    pub line: u32,
    /// Times that the script was there when it was looked at.
    pub samples: u64,
    /// Time since the look before, summed up, in nanoseconds.
    pub nanoseconds: u64,
}

/// What one worker saw of one script.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ScriptProfile {
    /// Runs that ended meanwhile.
    pub runs: u64,
    /// Their time in Lua, in nanoseconds.
    pub nanoseconds: u64,
    /// Lines in no particular order.
    pub lines: Vec<ProfileLine>,
    /// Samples for which there was no room for another line.
    pub missed: u64,
}

impl ScriptProfile {
    /// Lines that a worker can tell apart.
    pub const LINES: usize = 4096;

    /// Adds what another worker saw of the same script.
    pub fn add(&mut self, other: &ScriptProfile) {
        self.runs += other.runs;
        self.nanoseconds += other.nanoseconds;
        self.missed += other.missed;
        for line in &other.lines {
            self.line(&line.source, line.line, line.samples, line.nanoseconds);
        }
    }

    /// Adds samples of a line.
    pub fn line(&mut self, source: &str, number: u32, samples: u64, nanoseconds: u64) {
        let room = self.lines.len() < Self::LINES;
        let known = self.lines.iter_mut().find(|line| line.line == number && line.source == source);
        match known {
            Some(line) => {
                line.samples += samples;
                line.nanoseconds += nanoseconds;
            }
            None if !room => self.missed += samples,
            None => {
                self.lines.push(ProfileLine {
                    source: source.to_owned(),
                    line: number,
                    samples,
                    nanoseconds,
                });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_two_workers_are_added_and_bounded() {
        let mut first = ScriptProfile { runs: 2, nanoseconds: 100, ..ScriptProfile::default() };
        first.line("a.lua", 3, 5, 50);
        let mut second = ScriptProfile { runs: 1, nanoseconds: 30, ..ScriptProfile::default() };
        second.line("a.lua", 3, 1, 10);
        second.line("b.lua", 3, 2, 20);
        first.add(&second);
        assert_eq!((first.runs, first.nanoseconds, first.lines.len()), (3, 130, 2));
        assert_eq!((first.lines[0].samples, first.lines[0].nanoseconds), (6, 60));
        for line in 0..5000 {
            first.line("c.lua", line, 1, 1);
        }
        assert_eq!((first.lines.len(), first.missed), (4096, 5002 - 4096));
    }
}
