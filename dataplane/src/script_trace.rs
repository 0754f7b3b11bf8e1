//! What the scripts of a flow did, step by step, for whoever wants to see it: [`ScriptTrace`].
//!
//! A trace is put into [`crate::policy::Record::trace`] before the flow's first run and is filled by the
//! [`crate::policy::Policy`] from then on. A flow without one pays a look at a flag for each call of the API and nothing
//! else.

use std::fmt::{self, Write as _};

use crate::policy::{Event, ScriptFailure};

/// Bytes of a string that a trace keeps.
pub const VALUE_BYTES: usize = 256;

/// How much is noted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Detail {
    /// Calls of the API with arguments and results, waits, beginnings and ends. Scripts are not slower.
    Calls,
    /// Also each line that is executed, and the number of instructions. Scripts run at a fraction of their speed, so
    /// that the budget of a run, which is time, may not suffice where the policy's clock is a real one.
    Lines,
}

/// A line of a script or parser module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    source: u16,
    /// Counted from 1.
    pub line: u32,
}

/// A Lua value.
#[derive(Clone, Debug, PartialEq)]
pub enum TraceValue {
    /// `nil`.
    Nil,
    /// A boolean.
    Boolean(bool),
    /// A number.
    Number(f64),
    /// A string.
    Bytes {
        /// Its first bytes, at most [`VALUE_BYTES`].
        start: Vec<u8>,
        /// Its length.
        len: usize,
    },
    /// Anything else, by the name of its type or its own.
    Other(&'static str),
}

impl TraceValue {
    /// A string, cut where it is long.
    #[must_use]
    pub fn bytes(bytes: &[u8]) -> TraceValue {
        let start = bytes.get(..VALUE_BYTES).unwrap_or(bytes).to_vec();
        TraceValue::Bytes { start, len: bytes.len() }
    }
}

/// As Lua writes it, control bytes and what is no ASCII as `\ddd`; the length of a string that was cut behind it.
impl fmt::Display for TraceValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TraceValue::Nil => f.write_str("nil"),
            TraceValue::Boolean(value) => write!(f, "{value}"),
            TraceValue::Number(value) => write!(f, "{value}"),
            TraceValue::Other(name) => f.write_str(name),
            TraceValue::Bytes { start, len } => {
                f.write_char('"')?;
                for byte in start {
                    match byte {
                        b'"' | b'\\' => write!(f, "\\{}", char::from(*byte))?,
                        b'\n' => f.write_str("\\n")?,
                        b'\r' => f.write_str("\\r")?,
                        b' '..=b'~' => f.write_char(char::from(*byte))?,
                        _ => write!(f, "\\{byte:03}")?,
                    }
                }
                f.write_char('"')?;
                if *len > start.len() {
                    write!(f, "... ({len} bytes)")?;
                }
                Ok(())
            }
        }
    }
}

/// A thing that a script did or that happened to it.
#[derive(Clone, Debug, PartialEq)]
pub enum ScriptStep {
    /// A script begins.
    Begin {
        /// The name of its source.
        script: String,
        /// The event it is attached to.
        event: Event,
    },
    /// It comes to a line ([`Detail::Lines`]).
    Line(Place),
    /// It calls a function of the API.
    Call {
        /// Where, if Lua knows it.
        place: Option<Place>,
        /// As scripts write it; `avi.vs.reqvar` and `avi.vs.reqvar=` for reading and setting a variable.
        function: &'static str,
        /// Arguments in order.
        arguments: Vec<TraceValue>,
        /// Results, or the text of the error. A `collect` that has to wait has no result; `Wait` comes next.
        results: Result<Vec<TraceValue>, String>,
    },
    /// It waits in `collect` for so many bytes in all.
    Wait {
        /// Bytes.
        need: usize,
    },
    /// It goes on.
    Resume {
        /// Bytes buffered now, the result of `collect`.
        buffered: usize,
    },
    /// It ends.
    End {
        /// Why, if not at its end.
        failure: Option<ScriptFailure>,
        /// Instructions of the virtual machine, counted with [`Detail::Lines`] only.
        instructions: Option<u64>,
        /// Time in Lua by the policy's clock, without what it waited.
        nanoseconds: u64,
    },
}

/// The steps of all scripts of a flow, as many as fit.
#[derive(Clone, Debug)]
pub struct ScriptTrace {
    detail: Detail,
    most: usize,
    steps: Vec<ScriptStep>,
    missed: u64,
    sources: Vec<String>,
    instructions: u64,
}

impl ScriptTrace {
    /// A trace of at most `most` steps, an eighth of which is kept for others than calls and lines.
    #[must_use]
    pub fn new(most: usize, detail: Detail) -> ScriptTrace {
        ScriptTrace { detail, most, steps: Vec::new(), missed: 0, sources: Vec::new(), instructions: 0 }
    }

    /// How much is noted.
    #[must_use]
    pub fn detail(&self) -> Detail {
        self.detail
    }

    /// What was noted, in order.
    #[must_use]
    pub fn steps(&self) -> &[ScriptStep] {
        &self.steps
    }

    /// Steps that did not fit.
    #[must_use]
    pub fn missed(&self) -> u64 {
        self.missed
    }

    /// The name of the source of a place.
    #[must_use]
    pub fn source(&self, place: Place) -> &str {
        self.sources.get(usize::from(place.source)).map_or("?", String::as_str)
    }

    /// A place by the name of its source.
    pub fn place(&mut self, source: &str, line: u32) -> Place {
        let known = self.sources.iter().position(|name| name == source);
        let index = known.unwrap_or_else(|| {
            self.sources.push(source.to_owned());
            self.sources.len() - 1
        });
        Place { source: u16::try_from(index).unwrap_or(u16::MAX), line }
    }

    /// Notes a step, if it fits.
    pub fn push(&mut self, step: ScriptStep) {
        let room = match step {
            ScriptStep::Call { .. } | ScriptStep::Line(_) => self.most - self.most / 8,
            _ => self.most,
        };
        if self.steps.len() < room {
            self.steps.push(step);
        } else {
            self.missed += 1;
        }
    }

    /// Adds instructions of the run that is under way.
    pub fn count(&mut self, instructions: u64) {
        self.instructions += instructions;
    }

    /// Notes the end of the run that is under way.
    pub fn end(&mut self, failure: Option<ScriptFailure>, nanoseconds: u64) {
        let counted = std::mem::take(&mut self.instructions);
        let instructions = (self.detail == Detail::Lines).then_some(counted);
        self.push(ScriptStep::End { failure, instructions, nanoseconds });
    }

    /// About how much memory the steps take, in bytes, at most.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let value = size_of::<TraceValue>() + VALUE_BYTES;
        let of = |step: &ScriptStep| match step {
            ScriptStep::Call { arguments, results: Ok(results), .. } => {
                (arguments.len() + results.len()) * value
            }
            ScriptStep::Call { arguments, results: Err(error), .. } => arguments.len() * value + error.len(),
            _ => 0,
        };
        self.steps.iter().map(|step| size_of::<ScriptStep>() + of(step)).sum()
    }

    /// Takes over the steps of another trace of the same flow.
    pub fn append(&mut self, other: ScriptTrace) {
        let ScriptTrace { steps, missed, sources, .. } = other;
        for step in steps {
            let step = self.adopted(step, &sources);
            self.push(step);
        }
        self.missed += missed;
    }

    fn adopted(&mut self, step: ScriptStep, sources: &[String]) -> ScriptStep {
        let mut here = |place: Place| match sources.get(usize::from(place.source)) {
            Some(name) => self.place(name, place.line),
            None => place,
        };
        match step {
            ScriptStep::Line(place) => ScriptStep::Line(here(place)),
            ScriptStep::Call { place, function, arguments, results } => {
                ScriptStep::Call { place: place.map(here), function, arguments, results }
            }
            other => other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_written_as_lua_writes_them() {
        let text = |value: TraceValue| value.to_string();
        assert_eq!(text(TraceValue::bytes(b"a\"b\\\n\0\xff")), r#""a\"b\\\n\000\255""#);
        assert_eq!(text(TraceValue::Number(5.0)), "5");
        assert_eq!(text(TraceValue::Nil), "nil");
        let long = text(TraceValue::bytes(&[b'x'; 300]));
        assert!(long.ends_with("x\"... (300 bytes)") && long.len() == 256 + 2 + 15, "{long}");
    }

    #[test]
    fn what_does_not_fit_is_counted() {
        let mut trace = ScriptTrace::new(2, Detail::Calls);
        for need in 0..5 {
            trace.push(ScriptStep::Wait { need });
        }
        assert_eq!((trace.steps().len(), trace.missed()), (2, 3));
    }

    #[test]
    fn what_steps_hold_counts_as_memory() {
        let mut trace = ScriptTrace::new(100, Detail::Calls);
        let empty = trace.bytes();
        let call = |arguments, results| ScriptStep::Call { place: None, function: "f", arguments, results };
        trace.push(call(vec![TraceValue::bytes(&[b'x'; 300])], Err("e".repeat(10_000))));
        let refused = trace.bytes() - empty;
        assert!((10_256..12_000).contains(&refused), "{refused}");
        trace.push(call(Vec::new(), Ok(vec![TraceValue::bytes(&[b'y'; 300]); 3])));
        assert!(trace.bytes() >= refused + 3 * VALUE_BYTES);
    }

    #[test]
    fn places_keep_their_sources_when_traces_are_put_together() {
        let mut first = ScriptTrace::new(10, Detail::Lines);
        let place = first.place("a.lua", 1);
        first.push(ScriptStep::Line(place));
        let mut second = ScriptTrace::new(10, Detail::Lines);
        let place = second.place("b.lua", 7);
        second.push(ScriptStep::Line(place));
        first.append(second);
        let lines = first.steps().iter().map(|step| match step {
            ScriptStep::Line(place) => (first.source(*place), place.line),
            other => panic!("{other:?}"),
        });
        assert_eq!(lines.collect::<Vec<_>>(), [("a.lua", 1), ("b.lua", 7)]);
    }
}
