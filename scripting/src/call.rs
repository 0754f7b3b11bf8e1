//! What goes between scripts and the functions they call, as plain Rust values.

use crate::pattern::Capture;

/// Reads a monotonic clock: nanoseconds since any fixed point.
pub type Clock = fn() -> u64;

/// One argument.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Argument<'s> {
    /// Not given.
    Missing,
    /// `nil`.
    Nil,
    /// A boolean.
    Boolean(bool),
    /// A number.
    Number(f64),
    /// A string.
    String(&'s [u8]),
    /// `avi.SIG_ENABLE`.
    Significant,
    /// Anything else, by the name of its type.
    Other(&'static str),
}

/// A result of a function.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Value<'s> {
    /// `nil`.
    Nil,
    /// A boolean.
    Boolean(bool),
    /// A number.
    Number(f64),
    /// A string.
    Bytes(&'s [u8]),
}

/// The results of a function.
#[derive(Clone, Copy)]
pub(crate) enum Reply<'s> {
    /// No result.
    Nothing,
    /// No result; from now on the clock is looked at, if it was not before.
    Watch,
    /// No result; from now on the clock is looked at more often.
    LookOften,
    /// One result.
    One(Value<'s>),
    /// Two results.
    Two(Value<'s>, Value<'s>),
    /// The captures of a match, after its bounds (first and last byte, counted from 1) if they are wanted.
    Match { bounds: Option<(usize, usize)>, subject: &'s [u8], captures: &'s [Capture] },
    /// The run waits in `collect`; the results come with the resume.
    Wait,
}

/// What a usual call comes to: small enough to be handed on in registers.
pub(crate) enum Quick {
    /// It is not a usual one, and nothing is done yet.
    Other,
    /// No result.
    Nothing,
    /// `nil`.
    Nil,
    /// A number.
    Number(f64),
    /// What is in the slot's scratch, as a string.
    Text,
    /// The same, and a number.
    TextAndNumber(f64),
}

/// Why a function gives no results.
#[derive(Debug)]
pub(crate) enum Refusal {
    /// A Lua error with this text.
    Text(String),
    /// The time budget is over.
    Overrun,
}

impl Refusal {
    pub(crate) fn text(text: &str) -> Self {
        Refusal::Text(text.to_owned())
    }
}

/// What a function comes to.
pub(crate) type Answer<'s> = Result<Reply<'s>, Refusal>;

/// A length or position as Lua's number; exact below 2^53.
#[allow(clippy::cast_precision_loss)]
pub(crate) fn count(n: usize) -> f64 {
    n as f64
}

/// A capture of `subject` as a value: a position counts from 1.
pub(crate) fn captured(subject: &[u8], capture: Capture) -> Value<'_> {
    match capture {
        Capture::Open(at) | Capture::Position(at) => Value::Number(count(at + 1)),
        Capture::Text(start, end) => Value::Bytes(subject.get(start..end).unwrap_or(&[])),
    }
}

/// A coroutine, by its place in the machine's list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Coroutine(pub(crate) usize);

/// How far a run came.
#[derive(Debug)]
pub(crate) enum Step {
    /// To its end.
    Done,
    /// To a `collect` of so many bytes.
    Waiting(Coroutine, usize),
    /// To an error.
    Failed(Box<Failure>),
}

impl Step {
    /// An error. In a box, since it is rare and long.
    pub(crate) fn failed(failure: Failure) -> Self {
        Step::Failed(Box::new(failure))
    }

    /// What a coroutine comes to that is not there any more.
    pub(crate) fn dead() -> Self {
        Step::failed(Failure::Error("the run is not there any more".to_owned()))
    }
}

/// Why a run failed.
#[derive(Debug)]
pub(crate) enum Failure {
    /// A Lua error: message and traceback.
    Error(String),
    /// The time budget.
    Budget(String),
    /// The memory limit.
    Memory(String),
}
