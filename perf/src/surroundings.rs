//! What the kernel did to this process while something was measured: figures that nothing else explains often begin here.

use std::fmt;

use serde_json::{Value, json};

/// Counters of this thread, of the machine and of the memory of this process, at some moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Moment {
    faults: u64,
    major_faults: u64,
    switches: u64,
    stolen: u64,
    anonymous: u64,
    transparent: u64,
    reserved: u64,
}

/// What happened between two moments, and the memory at the second one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Surroundings {
    /// Pages that had to be provided while something waited for them; of those, the ones that were read from a disk.
    pub faults: u64,
    /// See `faults`.
    pub major_faults: u64,
    /// Times that the thread was taken from its processor.
    pub switches: u64,
    /// Hundredths of a second that the hypervisor had the processors of this machine for others.
    pub stolen: u64,
    /// KiB of memory, packet buffers and tables.
    pub memory: u64,
    /// KiB of it on huge pages.
    pub huge: u64,
}

impl Moment {
    /// Of this thread and now. What the kernel does not say counts as 0.
    pub fn now() -> Self {
        let read = |path| std::fs::read_to_string(path).unwrap_or_default();
        let stat = read("/proc/thread-self/stat");
        let (status, smaps) = (read("/proc/thread-self/status"), read("/proc/self/smaps_rollup"));
        // Fields 10 and 12; the second one is a name in parentheses, which may have spaces.
        let behind_name = stat.rsplit_once(") ").map_or("", |(_, rest)| rest);
        let field = |n: usize| number(behind_name.split(' ').nth(n - 3));
        let stolen = read("/proc/stat").lines().next().map(|line| number(line.split_whitespace().nth(8)));
        Moment {
            faults: field(10) + field(12),
            major_faults: field(12),
            switches: named(&status, "nonvoluntary_ctxt_switches:"),
            stolen: stolen.unwrap_or(0),
            anonymous: named(&smaps, "Anonymous:"),
            transparent: named(&smaps, "AnonHugePages:"),
            reserved: named(&smaps, "Private_Hugetlb:") + named(&smaps, "Shared_Hugetlb:"),
        }
    }

    /// What has happened since.
    pub fn until(&self, end: &Moment) -> Surroundings {
        Surroundings {
            faults: end.faults.saturating_sub(self.faults),
            major_faults: end.major_faults.saturating_sub(self.major_faults),
            switches: end.switches.saturating_sub(self.switches),
            stolen: end.stolen.saturating_sub(self.stolen),
            memory: end.anonymous + end.reserved,
            huge: end.transparent + end.reserved,
        }
    }
}

impl Surroundings {
    /// For programs.
    pub fn json(&self) -> Value {
        json!({
            "page_faults": self.faults,
            "major_page_faults": self.major_faults,
            "involuntary_switches": self.switches,
            "stolen_seconds": self.stolen as f64 / 100.0,
            "memory_kib": self.memory,
            "huge_kib": self.huge,
        })
    }
}

impl fmt::Display for Surroundings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let part = (self.huge * 100).checked_div(self.memory).unwrap_or(0);
        write!(
            f,
            "{} MiB, {part} % on huge pages; in the rounds {} page faults ({} from disk), {} times taken from the processor, \
             {:.2} s stolen by the hypervisor",
            self.memory / 1024,
            self.faults,
            self.major_faults,
            self.switches,
            self.stolen as f64 / 100.0
        )
    }
}

/// The number behind a name at the beginning of a line.
fn named(text: &str, name: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    number(line.and_then(|rest| rest.split_whitespace().next()))
}

fn number(text: Option<&str>) -> u64 {
    text.and_then(|text| text.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The kernel's own figures, for a table that is made and touched in between.
    #[test]
    fn memory_that_is_touched_is_seen() {
        const BYTES: usize = 64 << 20;
        let begin = Moment::now();
        let table = vec![1u8; BYTES];
        let change = begin.until(&Moment::now());
        assert!(change.memory - begin.anonymous >= (BYTES as u64 >> 10) * 9 / 10, "{begin:?} {change:?}");
        // One for each page, of 4 KiB or of 2 MiB.
        assert!((20..20_000).contains(&change.faults), "{change:?}");
        assert_eq!(table.len(), BYTES);
        let after = Moment::now();
        assert!(
            after.until(&after)
                == Surroundings { memory: change.memory, huge: change.huge, ..Surroundings::default() }
        );
    }

    #[test]
    fn numbers_are_found_by_name() {
        let text = "Anonymous:          1234 kB\nAnonHugePages:     20 kB\n";
        assert_eq!(
            (named(text, "Anonymous:"), named(text, "AnonHugePages:"), named(text, "Swap:")),
            (1234, 20, 0)
        );
    }

    #[test]
    fn it_is_said_in_a_line() {
        let seen =
            Surroundings { faults: 7, major_faults: 1, switches: 3, stolen: 25, memory: 2048, huge: 1024 };
        let line = "2 MiB, 50 % on huge pages; in the rounds 7 page faults (1 from disk), 3 times taken from the processor, \
                    0.25 s stolen by the hypervisor";
        assert_eq!(seen.to_string(), line);
    }
}
