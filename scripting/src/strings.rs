//! The functions of `string` that LuaJIT's own library cannot do within a budget, and the three that Avi adds.

use memchr::memmem;

use crate::arguments::{byte_text, integer};
use crate::call::{Answer, Argument, Refusal, Reply, Value, count};
use crate::pattern::{Capture, Captures, Fuel, Matcher, PatternError, is_plain};
use crate::raw::{Arguments, Entry, Native, Slot};

/// Longest text that one call may make, in bytes.
pub(crate) const OUTPUT: usize = 1 << 20;

impl From<PatternError> for Refusal {
    fn from(error: PatternError) -> Self {
        match error {
            PatternError::Spent => Refusal::Overrun,
            other => Refusal::Text(other.to_string()),
        }
    }
}

/// All functions of this file.
pub(crate) fn entries() -> Vec<Entry> {
    vec![
        Entry::of::<Find>(),
        Entry::of::<Match>(),
        Entry::of::<Step>(),
        Entry::of::<Replace>(),
        Entry::of::<BeginsWith>(),
        Entry::of::<EndsWith>(),
        Entry::of::<Contains>(),
        Entry::of::<Tick>(),
        Entry::of::<Watch>(),
        Entry::of::<Raise>(),
    ]
}

/// Bytes of a text from which on a function that works through it without fuel asks first whether there is time.
const LONG: usize = 4096;

/// Refuses a call with long texts when the run's time is over: straight scripts make many calls, and nothing looks at the
/// clock between them.
fn in_time(slot: &Slot, texts: [&[u8]; 2]) -> Result<(), Refusal> {
    let long = texts.iter().any(|text| text.len() > LONG);
    if long && slot.deadline()() { Err(Refusal::Overrun) } else { Ok(()) }
}

/// The offset that the `init` argument of `find` and `match` means.
fn start_offset(arguments: Arguments<'_>, len: usize) -> Result<usize, Refusal> {
    let init = match arguments.at(3) {
        Argument::Missing | Argument::Nil => return Ok(0),
        _ => integer(arguments, 3)?,
    };
    let len_signed = i64::try_from(len).unwrap_or(i64::MAX);
    let place = if init < 0 { len_signed.saturating_add(init) } else { init - 1 };
    Ok(usize::try_from(place.clamp(0, len_signed)).unwrap_or(0))
}

fn found<'s>(
    slot: &'s mut Slot,
    subject: &'s [u8],
    pattern: &[u8],
    from: usize,
    anchors: bool,
) -> Result<Option<(usize, usize)>, Refusal> {
    let over = slot.deadline();
    let mut fuel = Fuel::new(&over);
    let Some((bounds, mut captures)) = Matcher::new(subject, pattern, &mut fuel).search(from, anchors)?
    else {
        return Ok(None);
    };
    // Asks for the captures only; whether the whole match stands in for them is the caller's choice.
    if !captures.as_slice().is_empty() {
        captures.close(&bounds)?;
    }
    slot.captures = captures;
    Ok(Some((bounds.start, bounds.end)))
}

/// `string.find(s, pattern [, init [, plain]])`
struct Find;
impl Native for Find {
    const NAME: &'static str = "string.find";
    fn call<'s>(arguments: Arguments<'s>, slot: &'s mut Slot) -> Answer<'s> {
        let (mut first, mut second) = (Vec::new(), Vec::new());
        let subject = byte_text(arguments, 1, &mut first)?;
        let pattern = byte_text(arguments, 2, &mut second)?;
        let from = start_offset(arguments, subject.len())?;
        in_time(slot, [subject, pattern])?;
        let plain = !matches!(arguments.at(4), Argument::Missing | Argument::Nil | Argument::Boolean(false));
        if plain || is_plain(pattern) {
            let rest = subject.get(from..).unwrap_or(&[]);
            let Some(at) = memmem::find(rest, pattern) else { return Ok(Reply::One(Value::Nil)) };
            let start = from + at;
            return Ok(Reply::Two(
                Value::Number(count(start + 1)),
                Value::Number(count(start + pattern.len())),
            ));
        }
        let Some((start, end)) = found(slot, subject, pattern, from, true)? else {
            return Ok(Reply::One(Value::Nil));
        };
        answer(slot, arguments, first, Some((start + 1, end)))
    }
}

/// `string.match(s, pattern [, init])`
struct Match;
impl Native for Match {
    const NAME: &'static str = "string.match";
    fn call<'s>(arguments: Arguments<'s>, slot: &'s mut Slot) -> Answer<'s> {
        let (mut first, mut second) = (Vec::new(), Vec::new());
        let subject = byte_text(arguments, 1, &mut first)?;
        let pattern = byte_text(arguments, 2, &mut second)?;
        let from = start_offset(arguments, subject.len())?;
        let Some((start, end)) = found(slot, subject, pattern, from, true)? else {
            return Ok(Reply::One(Value::Nil));
        };
        slot.captures.close(&(start..end))?;
        answer(slot, arguments, first, None)
    }
}

/// One step of `gmatch` and `gsub`: `(s, pattern, at, anchors)` gives first and last byte and the captures, the
/// whole match where there are none. Both texts are strings, checked by the caller.
struct Step;
impl Native for Step {
    const NAME: &'static str = "string.gmatch";
    fn call<'s>(arguments: Arguments<'s>, slot: &'s mut Slot) -> Answer<'s> {
        let (mut first, mut second) = (Vec::new(), Vec::new());
        let subject = byte_text(arguments, 1, &mut first)?;
        let pattern = byte_text(arguments, 2, &mut second)?;
        let from = start_offset(arguments, subject.len())?;
        let anchors = arguments.at(4) == Argument::Boolean(true);
        let Some((start, end)) = found(slot, subject, pattern, from, anchors)? else {
            return Ok(Reply::One(Value::Nil));
        };
        slot.captures.close(&(start..end))?;
        answer(slot, arguments, first, Some((start + 1, end)))
    }
}

/// The captures of the last match, as parts of the first argument, or of its text where it is a number.
fn answer<'s>(
    slot: &'s mut Slot,
    arguments: Arguments<'s>,
    number: Vec<u8>,
    bounds: Option<(usize, usize)>,
) -> Answer<'s> {
    let Slot { scratch, captures, .. } = slot;
    let subject: &'s [u8] = match arguments.at(1) {
        Argument::String(text) => text,
        _ => {
            *scratch = number;
            scratch
        }
    };
    Ok(Reply::Match { bounds, subject, captures: captures.as_slice() })
}

/// `string.gsub(s, pattern, text [, n])`; tables and functions are handled in the sandbox.
struct Replace;
impl Native for Replace {
    const NAME: &'static str = "string.gsub";
    fn call<'s>(arguments: Arguments<'s>, slot: &'s mut Slot) -> Answer<'s> {
        let (mut first, mut second, mut third) = (Vec::new(), Vec::new(), Vec::new());
        let subject = byte_text(arguments, 1, &mut first)?;
        let pattern = byte_text(arguments, 2, &mut second)?;
        let text = byte_text(arguments, 3, &mut third)?;
        in_time(slot, [subject, text])?;
        let most = match arguments.at(4) {
            Argument::Missing | Argument::Nil => usize::MAX,
            _ => usize::try_from(integer(arguments, 4)?).unwrap_or(0),
        };
        let over = slot.deadline();
        let mut fuel = Fuel::new(&over);
        let mut out = std::mem::take(&mut slot.scratch);
        out.clear();
        let made = replace(subject, pattern, text, most, &mut fuel, &mut out)?;
        slot.scratch = out;
        Ok(Reply::Two(Value::Bytes(&slot.scratch), Value::Number(count(made))))
    }
}

fn replace(
    subject: &[u8],
    pattern: &[u8],
    text: &[u8],
    most: usize,
    fuel: &mut Fuel<'_>,
    out: &mut Vec<u8>,
) -> Result<usize, Refusal> {
    let anchored = pattern.first() == Some(&b'^');
    let (mut at, mut made) = (0, 0);
    while made < most {
        let Some((bounds, captures)) = Matcher::new(subject, pattern, fuel).search(at, true)? else {
            break;
        };
        made += 1;
        append(out, subject.get(at..bounds.start).unwrap_or(&[]))?;
        fuel.spend()?;
        expand(text, subject, &bounds, &captures, fuel, out)?;
        at = bounds.end;
        if bounds.is_empty() {
            let Some(&byte) = subject.get(at) else { break };
            append(out, &[byte])?;
            at += 1;
        }
        if anchored {
            break;
        }
    }
    append(out, subject.get(at..).unwrap_or(&[]))?;
    Ok(made)
}

fn expand(
    text: &[u8],
    subject: &[u8],
    bounds: &std::ops::Range<usize>,
    captures: &Captures,
    fuel: &mut Fuel<'_>,
    out: &mut Vec<u8>,
) -> Result<(), Refusal> {
    let mut bytes = text.iter();
    while let Some(&byte) = bytes.next() {
        if byte != b'%' {
            append(out, &[byte])?;
            continue;
        }
        let index = match bytes.next() {
            Some(digit @ b'0'..=b'9') => usize::from(digit - b'0'),
            Some(&other) => {
                append(out, &[other])?;
                continue;
            }
            // What Lua finds there is the end of its C string.
            None => {
                append(out, &[0])?;
                continue;
            }
        };
        // Of all that is put in only captures may be empty: the rest is bounded by what may be made.
        fuel.spend()?;
        let whole = index == 0 || (index == 1 && captures.as_slice().is_empty());
        let capture = if whole {
            Capture::Text(bounds.start, bounds.end)
        } else {
            *captures.as_slice().get(index - 1).ok_or(PatternError::Index)?
        };
        match capture {
            Capture::Text(start, end) => append(out, subject.get(start..end).unwrap_or(&[]))?,
            Capture::Position(at) => append(out, (at + 1).to_string().as_bytes())?,
            Capture::Open(_) => return Err(PatternError::Unfinished.into()),
        }
    }
    Ok(())
}

fn append(out: &mut Vec<u8>, bytes: &[u8]) -> Result<(), Refusal> {
    if out.len() + bytes.len() > OUTPUT {
        return Err(Refusal::Text(format!("result is longer than {OUTPUT} bytes")));
    }
    out.extend_from_slice(bytes);
    Ok(())
}

fn two_texts<'s>(
    arguments: Arguments<'s>,
    slot: &Slot,
    check: impl FnOnce(&[u8], &[u8]) -> bool,
) -> Answer<'s> {
    let (mut first, mut second) = (Vec::new(), Vec::new());
    let text = byte_text(arguments, 1, &mut first)?;
    let part = byte_text(arguments, 2, &mut second)?;
    in_time(slot, [text, part])?;
    Ok(Reply::One(Value::Boolean(check(text, part))))
}

/// `string.beginswith(s, t)`
struct BeginsWith;
impl Native for BeginsWith {
    const NAME: &'static str = "string.beginswith";
    fn call<'s>(arguments: Arguments<'s>, slot: &'s mut Slot) -> Answer<'s> {
        two_texts(arguments, slot, <[u8]>::starts_with)
    }
}

/// `string.endswith(s, t)`
struct EndsWith;
impl Native for EndsWith {
    const NAME: &'static str = "string.endswith";
    fn call<'s>(arguments: Arguments<'s>, slot: &'s mut Slot) -> Answer<'s> {
        two_texts(arguments, slot, <[u8]>::ends_with)
    }
}

/// `string.contains(s, t)`
struct Contains;
impl Native for Contains {
    const NAME: &'static str = "string.contains";
    fn call<'s>(arguments: Arguments<'s>, slot: &'s mut Slot) -> Answer<'s> {
        two_texts(arguments, slot, |text, part| memmem::find(text, part).is_some())
    }
}

/// Bytes of a text from which on the clock is looked at more often for the rest of the run.
const HUGE: f64 = 65536.0;

/// Called by the sandbox before a library function works on a text of so many bytes: the count hook sees such a call
/// as one instruction, whatever it takes.
struct Tick;
impl Native for Tick {
    const NAME: &'static str = "tick";
    fn call<'s>(arguments: Arguments<'s>, slot: &'s mut Slot) -> Answer<'s> {
        if slot.deadline()() {
            return Err(Refusal::Overrun);
        }
        let huge = matches!(arguments.at(1), Argument::Number(bytes) if bytes >= HUGE);
        Ok(if huge { Reply::LookOften } else { Reply::Nothing })
    }
}

/// Called by the sandbox before a loop of its own: a run that has needed no hook so far has one from here on.
struct Watch;
impl Native for Watch {
    const NAME: &'static str = "watch";
    fn call<'s>(_arguments: Arguments<'s>, _slot: &'s mut Slot) -> Answer<'s> {
        Ok(Reply::Watch)
    }
}

/// Raises its argument with the place of the script's own code, however deep in the sandbox it is called.
struct Raise;
impl Native for Raise {
    const NAME: &'static str = "raise";
    const NAMED: bool = false;
    fn call<'s>(arguments: Arguments<'s>, _slot: &'s mut Slot) -> Answer<'s> {
        let mut number = Vec::new();
        let text = byte_text(arguments, 1, &mut number)?;
        Err(Refusal::Text(String::from_utf8_lossy(text).into_owned()))
    }
}
