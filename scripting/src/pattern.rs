//! Lua 5.1 patterns over byte strings, with a bound on the work that one call may do.
//!
//! LuaJIT's own pattern functions cannot be interrupted, so a hopeless pattern would stop a core. This matcher spends
//! [`Fuel`]: every item tried and every byte repeated costs one unit, more where a long set is looked through, and the fuel
//! says when the run's time is over.

use std::ops::Range;

/// Most captures of one pattern.
pub(crate) const CAPTURES: usize = 32;

/// Deepest nesting of items that may have to be tried again.
const DEPTH: u32 = 200;

/// Units between two looks at the clock.
const UNITS: u32 = 1024;

/// Why a match was given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum PatternError {
    /// A `%` is the last byte.
    #[error("malformed pattern (ends with '%')")]
    EndsWithEscape,
    /// A set is not closed.
    #[error("malformed pattern (missing ']')")]
    OpenSet,
    /// `%b` without two bytes.
    #[error("malformed pattern (missing arguments to '%b')")]
    Balance,
    /// `%f` without a set.
    #[error("missing '[' after '%f' in pattern")]
    Frontier,
    /// `)` without `(`.
    #[error("invalid pattern capture")]
    Capture,
    /// `%1` to a capture that is not there or not closed.
    #[error("invalid capture index")]
    Index,
    /// `(` without `)`.
    #[error("unfinished capture")]
    Unfinished,
    /// More than [`CAPTURES`] captures.
    #[error("too many captures")]
    TooMany,
    /// Nested too deep.
    #[error("pattern too complex")]
    TooComplex,
    /// The fuel is spent.
    #[error("the time budget of the run is over")]
    Spent,
}

/// Work that may still be done.
pub(crate) struct Fuel<'a> {
    units: u32,
    over: &'a dyn Fn() -> bool,
}

impl<'a> Fuel<'a> {
    /// `over` is asked every 1024 units whether to stop.
    pub(crate) fn new(over: &'a dyn Fn() -> bool) -> Self {
        Fuel { units: UNITS, over }
    }

    /// Spends one unit.
    pub(crate) fn spend(&mut self) -> Result<(), PatternError> {
        self.spend_many(1)
    }

    fn spend_many(&mut self, units: u32) -> Result<(), PatternError> {
        self.units = self.units.saturating_sub(units);
        if self.units > 0 {
            return Ok(());
        }
        self.units = UNITS;
        if (self.over)() { Err(PatternError::Spent) } else { Ok(()) }
    }
}

/// One capture of a match, as offsets into the subject.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Capture {
    /// `(` was met, `)` not yet.
    Open(usize),
    /// `()`: an offset.
    Position(usize),
    /// The bytes between two offsets.
    Text(usize, usize),
}

/// The captures of a match, in the order of their opening brackets.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Captures {
    list: [Capture; CAPTURES],
    len: usize,
}

impl Captures {
    pub(crate) const fn new() -> Self {
        Captures { list: [Capture::Open(0); CAPTURES], len: 0 }
    }

    /// All captures.
    pub(crate) fn as_slice(&self) -> &[Capture] {
        self.list.get(..self.len).unwrap_or(&[])
    }

    /// The captures, or the whole match where the pattern has none. An open capture is an error.
    pub(crate) fn close(&mut self, whole: &Range<usize>) -> Result<(), PatternError> {
        if self.as_slice().iter().any(|c| matches!(c, Capture::Open(_))) {
            return Err(PatternError::Unfinished);
        }
        if self.len == 0 {
            self.push(Capture::Text(whole.start, whole.end))?;
        }
        Ok(())
    }

    fn push(&mut self, capture: Capture) -> Result<(), PatternError> {
        let free = self.list.get_mut(self.len).ok_or(PatternError::TooMany)?;
        *free = capture;
        self.len += 1;
        Ok(())
    }
}

/// True if the pattern has no magic bytes: searching for it is a plain search.
pub(crate) fn is_plain(pattern: &[u8]) -> bool {
    !pattern.iter().any(|c| b"^$*+?.([%-".contains(c))
}

/// A pattern at work on a subject.
pub(crate) struct Matcher<'a, 'f> {
    subject: &'a [u8],
    pattern: &'a [u8],
    captures: Captures,
    depth: u32,
    fuel: &'a mut Fuel<'f>,
}

impl<'a, 'f> Matcher<'a, 'f> {
    pub(crate) fn new(subject: &'a [u8], pattern: &'a [u8], fuel: &'a mut Fuel<'f>) -> Self {
        Matcher { subject, pattern, captures: Captures::new(), depth: 0, fuel }
    }

    /// The first match that starts at `from` or later; only at `from` where the pattern starts with `^` and
    /// `anchors` says that this byte is magic.
    pub(crate) fn search(
        &mut self,
        from: usize,
        anchors: bool,
    ) -> Result<Option<(Range<usize>, Captures)>, PatternError> {
        let anchored = anchors && self.pattern.first() == Some(&b'^');
        let first_item = usize::from(anchored);
        let mut start = from;
        loop {
            self.captures.len = 0;
            if let Some(end) = self.at(start, first_item)? {
                return Ok(Some((start..end, self.captures)));
            }
            start += 1;
            if anchored || start > self.subject.len() {
                return Ok(None);
            }
        }
    }

    /// Matches the pattern from its byte `p` on at offset `s`; gives the end of the match.
    fn at(&mut self, s: usize, p: usize) -> Result<Option<usize>, PatternError> {
        if self.depth >= DEPTH {
            return Err(PatternError::TooComplex);
        }
        self.depth += 1;
        let end = self.items(s, p);
        self.depth -= 1;
        end
    }

    fn items(&mut self, mut s: usize, mut p: usize) -> Result<Option<usize>, PatternError> {
        loop {
            self.fuel.spend()?;
            let (first, second) = (self.pattern.get(p).copied(), self.pattern.get(p + 1).copied());
            let next = match (first, second) {
                (None, _) => return Ok(Some(s)),
                (Some(b'('), Some(b')')) => return self.open(Capture::Position(s), s, p + 2),
                (Some(b'('), _) => return self.open(Capture::Open(s), s, p + 1),
                (Some(b')'), _) => return self.shut(s, p + 1),
                (Some(b'$'), None) => return Ok((s == self.subject.len()).then_some(s)),
                (Some(b'%'), Some(b'b')) => self.balanced(s, p + 2)?.map(|end| (end, p + 4)),
                (Some(b'%'), Some(b'f')) => self.frontier(s, p + 2)?.map(|after| (s, after)),
                (Some(b'%'), Some(digit @ b'0'..=b'9')) => self.again(s, digit)?.map(|end| (end, p + 2)),
                _ => match self.single(s, p)? {
                    Progress::On(s, p) => Some((s, p)),
                    Progress::Is(end) => return Ok(end),
                },
            };
            match next {
                Some(next) => (s, p) = next,
                None => return Ok(None),
            }
        }
    }

    /// An item for one byte and the repetition after it.
    fn single(&mut self, s: usize, p: usize) -> Result<Progress, PatternError> {
        let end = self.item_end(p)?;
        let here = self.byte_matches(s, p, end);
        Ok(match self.pattern.get(end) {
            Some(b'?') => {
                if here && let Some(found) = self.at(s + 1, end + 1)? {
                    return Ok(Progress::Is(Some(found)));
                }
                Progress::On(s, end + 1)
            }
            Some(b'*') => Progress::Is(self.greedy(s, p, end, 0)?),
            Some(b'+') => Progress::Is(self.greedy(s, p, end, 1)?),
            Some(b'-') => Progress::Is(self.lazy(s, p, end)?),
            _ if here => Progress::On(s + 1, end),
            _ => Progress::Is(None),
        })
    }

    /// As many as there are, then fewer.
    fn greedy(
        &mut self,
        s: usize,
        p: usize,
        end: usize,
        least: usize,
    ) -> Result<Option<usize>, PatternError> {
        let mut count = 0;
        let units = units_of(p..end);
        while self.byte_matches(s + count, p, end) {
            self.fuel.spend_many(units)?;
            count += 1;
        }
        while count >= least {
            if let Some(found) = self.at(s + count, end + 1)? {
                return Ok(Some(found));
            }
            if count == 0 {
                break;
            }
            count -= 1;
        }
        Ok(None)
    }

    /// As few as possible, then more.
    fn lazy(&mut self, mut s: usize, p: usize, end: usize) -> Result<Option<usize>, PatternError> {
        let units = units_of(p..end);
        loop {
            self.fuel.spend_many(units)?;
            if let Some(found) = self.at(s, end + 1)? {
                return Ok(Some(found));
            }
            if !self.byte_matches(s, p, end) {
                return Ok(None);
            }
            s += 1;
        }
    }

    fn open(&mut self, capture: Capture, s: usize, p: usize) -> Result<Option<usize>, PatternError> {
        self.captures.push(capture)?;
        let end = self.at(s, p)?;
        if end.is_none() {
            self.captures.len -= 1;
        }
        Ok(end)
    }

    fn shut(&mut self, s: usize, p: usize) -> Result<Option<usize>, PatternError> {
        let open = self.captures.as_slice().iter().rposition(|c| matches!(c, Capture::Open(_)));
        let capture = open.and_then(|at| self.captures.list.get_mut(at)).ok_or(PatternError::Capture)?;
        let before = *capture;
        if let Capture::Open(start) = before {
            *capture = Capture::Text(start, s);
        }
        let end = self.at(s, p)?;
        if end.is_none()
            && let Some(capture) = open.and_then(|at| self.captures.list.get_mut(at))
        {
            *capture = before;
        }
        Ok(end)
    }

    /// `%bxy` from its two bytes on: the end of the balanced run that starts at `s`.
    fn balanced(&mut self, s: usize, p: usize) -> Result<Option<usize>, PatternError> {
        let (Some(&opening), Some(&closing)) = (self.pattern.get(p), self.pattern.get(p + 1)) else {
            return Err(PatternError::Balance);
        };
        if self.subject.get(s) != Some(&opening) {
            return Ok(None);
        }
        let mut nested = 1u32;
        let mut at = s + 1;
        while let Some(&byte) = self.subject.get(at) {
            self.fuel.spend()?;
            at += 1;
            if byte == closing {
                nested -= 1;
                if nested == 0 {
                    return Ok(Some(at));
                }
            } else if byte == opening {
                nested += 1;
            }
        }
        Ok(None)
    }

    /// `%f[set]` from its set on: the place after the set, if `s` is a frontier.
    fn frontier(&mut self, s: usize, p: usize) -> Result<Option<usize>, PatternError> {
        if self.pattern.get(p) != Some(&b'[') {
            return Err(PatternError::Frontier);
        }
        let end = self.item_end(p)?;
        let before = s.checked_sub(1).and_then(|at| self.subject.get(at)).copied().unwrap_or(0);
        let here = self.subject.get(s).copied().unwrap_or(0);
        Ok((!self.in_set(before, p, end) && self.in_set(here, p, end)).then_some(end))
    }

    /// `%1`: the end of the same bytes once more.
    fn again(&mut self, s: usize, digit: u8) -> Result<Option<usize>, PatternError> {
        let index = usize::from(digit).checked_sub(usize::from(b'1')).ok_or(PatternError::Index)?;
        let (start, end) = match self.captures.as_slice().get(index) {
            Some(&Capture::Text(start, end)) => (start, end),
            // A place has no bytes that could come again.
            Some(Capture::Position(_)) => return Ok(None),
            Some(Capture::Open(_)) | None => return Err(PatternError::Index),
        };
        let text = self.subject.get(start..end).unwrap_or(&[]);
        for _ in (0..text.len()).step_by(16) {
            self.fuel.spend()?;
        }
        let rest = self.subject.get(s..).unwrap_or(&[]);
        Ok(rest.starts_with(text).then_some(s + text.len()))
    }

    /// The place after the one-byte item that starts at `p`.
    fn item_end(&mut self, p: usize) -> Result<usize, PatternError> {
        match self.pattern.get(p) {
            Some(b'%') if p + 1 >= self.pattern.len() => Err(PatternError::EndsWithEscape),
            Some(b'%') => Ok(p + 2),
            Some(b'[') => self.set_end(p),
            _ => Ok(p + 1),
        }
    }

    fn set_end(&mut self, p: usize) -> Result<usize, PatternError> {
        let negated = usize::from(self.pattern.get(p + 1) == Some(&b'^'));
        let mut at = p + 1 + negated;
        loop {
            self.fuel.spend()?;
            match self.pattern.get(at) {
                None => return Err(PatternError::OpenSet),
                Some(b'%') => at += 2,
                Some(_) => at += 1,
            }
            if self.pattern.get(at) == Some(&b']') {
                return Ok(at + 1);
            }
        }
    }

    fn byte_matches(&self, s: usize, p: usize, end: usize) -> bool {
        let Some(&byte) = self.subject.get(s) else {
            return false;
        };
        match self.pattern.get(p) {
            Some(b'.') => true,
            Some(b'%') => self.pattern.get(p + 1).is_some_and(|&class| in_class(byte, class)),
            Some(b'[') => self.in_set(byte, p, end),
            other => other == Some(&byte),
        }
    }

    /// `p` is the place of `[`, `end` the one after `]`.
    fn in_set(&self, byte: u8, p: usize, end: usize) -> bool {
        let set = self.pattern.get(p + 1..end.saturating_sub(1)).unwrap_or(&[]);
        let (mut rest, negated) = match set {
            [b'^', rest @ ..] => (rest, true),
            rest => (rest, false),
        };
        loop {
            let hit;
            (hit, rest) = match rest {
                [] => return negated,
                [b'%', class, rest @ ..] => (in_class(byte, *class), rest),
                [low, b'-', high, rest @ ..] => ((*low..=*high).contains(&byte), rest),
                [one, rest @ ..] => (*one == byte, rest),
            };
            if hit {
                return !negated;
            }
        }
    }
}

/// What a look at one byte costs, with the item at these places of the pattern.
fn units_of(item: Range<usize>) -> u32 {
    u32::try_from(1 + item.len() / 16).unwrap_or(u32::MAX)
}

/// What an item for one byte came to.
enum Progress {
    /// Go on at this offset with this item.
    On(usize, usize),
    /// The rest of the pattern has been tried.
    Is(Option<usize>),
}

/// `%a` and its kin; an upper-case letter is the complement, anything that is no class stands for itself.
fn in_class(byte: u8, class: u8) -> bool {
    let hit = match class.to_ascii_lowercase() {
        b'a' => byte.is_ascii_alphabetic(),
        b'c' => byte.is_ascii_control(),
        b'd' => byte.is_ascii_digit(),
        b'g' => byte.is_ascii_graphic(),
        b'l' => byte.is_ascii_lowercase(),
        b'p' => byte.is_ascii_punctuation(),
        b's' => matches!(byte, b' ' | 9..=13),
        b'u' => byte.is_ascii_uppercase(),
        b'w' => byte.is_ascii_alphanumeric(),
        b'x' => byte.is_ascii_hexdigit(),
        b'z' => byte == 0,
        _ => return byte == class,
    };
    hit != class.is_ascii_uppercase()
}
