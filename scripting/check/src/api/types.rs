//! What the table of the API is made of.

use super::meaning::Meaning;

/// An event for which a script runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Event {
    /// Before a server is chosen.
    Request,
    /// On the first payload of the server.
    Response,
}

impl Event {
    /// The name that error texts use.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Event::Request => "VS_DATASCRIPT_EVT_L4_REQUEST",
            Event::Response => "VS_DATASCRIPT_EVT_L4_RESPONSE",
        }
    }

    /// The key of the configuration.
    #[must_use]
    pub const fn key(self) -> &'static str {
        match self {
            Event::Request => "request",
            Event::Response => "response",
        }
    }
}

/// The events in which a function is available.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Events {
    /// In both.
    Both,
    /// In the request event only.
    Request,
}

impl Events {
    /// Whether it is available in `event`.
    #[must_use]
    pub const fn has(self, event: Event) -> bool {
        matches!((self, event), (Events::Both, _) | (Events::Request, Event::Request))
    }

    /// As in "available in request, response".
    #[must_use]
    pub const fn text(self) -> &'static str {
        match self {
            Events::Both => "request, response",
            Events::Request => "request",
        }
    }
}

/// The release of the original that brought a function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Release {
    /// 18.2, the first one.
    Seed,
    /// A later one.
    Later,
}

/// The kind of a Lua value, with `avi.SIG_ENABLE` apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `nil`
    Nil,
    /// `true`, `false`
    Boolean,
    /// A number.
    Number,
    /// A string.
    String,
    /// `avi.SIG_ENABLE`
    Significant,
    /// A table.
    Table,
    /// A function.
    Function,
    /// A part of `avi`.
    Userdata,
}

impl Kind {
    /// The name that error texts use.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Kind::Nil => "nil",
            Kind::Boolean => "boolean",
            Kind::Number => "number",
            Kind::String => "string",
            Kind::Significant => "avi.SIG_ENABLE",
            Kind::Table => "table",
            Kind::Function => "function",
            Kind::Userdata => "userdata",
        }
    }
}

/// A set of kinds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kinds(u8);

impl Kinds {
    /// Every kind.
    pub const ANY: Kinds = Kinds(u8::MAX);
    /// Strings, numbers and booleans.
    pub const PLAIN: Kinds = Kinds::of(&[Kind::String, Kind::Number, Kind::Boolean]);

    /// The set of these kinds.
    #[must_use]
    pub const fn of(mut kinds: &[Kind]) -> Kinds {
        let mut bits = 0;
        while let [first, rest @ ..] = kinds {
            bits |= 1 << *first as u8;
            kinds = rest;
        }
        Kinds(bits)
    }

    /// This set and one kind more.
    #[must_use]
    pub const fn and(self, kind: Kind) -> Kinds {
        Kinds(self.0 | 1 << kind as u8)
    }

    /// The kinds of either set.
    #[must_use]
    pub const fn or(self, other: Kinds) -> Kinds {
        Kinds(self.0 | other.0)
    }

    /// Whether all of its kinds are in the other set.
    #[must_use]
    pub const fn within(self, other: Kinds) -> bool {
        self.0 & !other.0 == 0
    }

    /// Whether the kind is in it.
    #[must_use]
    pub const fn has(self, kind: Kind) -> bool {
        self.0 & 1 << kind as u8 != 0
    }

    /// The only kind, if there is only one.
    #[must_use]
    pub fn only(self) -> Option<Kind> {
        let all = [Kind::Nil, Kind::Boolean, Kind::Number, Kind::String, Kind::Table, Kind::Function];
        all.into_iter().find(|kind| self == Kinds::of(&[*kind]))
    }
}

/// Whether an argument must be given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// Without it the call raises an error.
    Required,
    /// Without it the call does nothing.
    Wanted,
    /// It may be left out.
    Optional,
}

/// An argument.
#[derive(Clone, Copy, Debug)]
pub struct Parameter {
    /// Its name in the documents.
    pub name: &'static str,
    /// What it stands for.
    pub meaning: Meaning,
    /// Whether it must be given.
    pub need: Need,
    /// What it is, a sentence part.
    pub text: &'static str,
}

impl Parameter {
    const fn new(name: &'static str, meaning: Meaning, need: Need, text: &'static str) -> Parameter {
        Parameter { name, meaning, need, text }
    }

    pub(super) const fn required(name: &'static str, meaning: Meaning, text: &'static str) -> Parameter {
        Parameter::new(name, meaning, Need::Required, text)
    }

    pub(super) const fn wanted(name: &'static str, meaning: Meaning, text: &'static str) -> Parameter {
        Parameter::new(name, meaning, Need::Wanted, text)
    }

    pub(super) const fn optional(name: &'static str, meaning: Meaning, text: &'static str) -> Parameter {
        Parameter::new(name, meaning, Need::Optional, text)
    }

    /// Whether a value of this kind raises no error.
    #[must_use]
    pub const fn takes(&self, kind: Kind) -> bool {
        let nil = matches!(kind, Kind::Nil) && !matches!(self.need, Need::Required);
        nil || self.meaning.kinds().has(kind)
    }
}

/// A result.
#[derive(Clone, Copy, Debug)]
pub struct Outcome {
    /// Its name in the documents.
    pub name: &'static str,
    /// The kinds that it may have.
    pub kinds: Kinds,
    /// The type for a language server.
    pub luals: &'static str,
    /// What it is, a sentence part.
    pub text: &'static str,
}

impl Outcome {
    pub(super) const fn new(
        name: &'static str,
        kinds: &[Kind],
        luals: &'static str,
        text: &'static str,
    ) -> Outcome {
        Outcome { name, kinds: Kinds::of(kinds), luals, text }
    }
}

/// A function that scripts call.
#[derive(Clone, Copy, Debug)]
pub struct Function {
    /// Its whole name, such as `avi.l4.read`; of a module's function the name in the module.
    pub name: &'static str,
    /// The ways to call it. Where there are two, the second one has a table's name before the arguments of the first.
    pub forms: &'static [&'static [Parameter]],
    /// What any further arguments are; `None` where there are none.
    pub rest: Option<Parameter>,
    /// Its results.
    pub results: &'static [Outcome],
    /// Where it is available.
    pub events: Events,
    /// Since when the original has it.
    pub since: Release,
    /// Whether it raises no error whatever it is given.
    pub never_raises: bool,
    /// What it does, in sentences.
    pub text: &'static str,
    /// When it raises an error, in sentences; may be empty.
    pub errors: &'static str,
}

impl Function {
    /// What the entries of the table leave out.
    pub(super) const NONE: Function = Function {
        name: "",
        forms: &[&[]],
        rest: None,
        results: &[],
        events: Events::Both,
        since: Release::Seed,
        never_raises: false,
        text: "",
        errors: "",
    };

    /// The form that a call with `count` arguments has, the last of which is of kind `last`; `None` where that
    /// depends on a kind that is not known. Of calls that could have a table's name or not, those whose last argument
    /// is a number have none.
    #[must_use]
    pub fn form(&self, count: usize, last: Option<Kind>) -> Option<&'static [Parameter]> {
        let (first, second) = match self.forms {
            [only] => return Some(only),
            [first, second] => (*first, *second),
            _ => return None,
        };
        let needed = first.iter().filter(|parameter| parameter.need != Need::Optional).count();
        if count <= needed {
            Some(first)
        } else if count == first.len() {
            last.map(|kind| if kind == Kind::Number { first } else { second })
        } else {
            Some(second)
        }
    }

    /// How it is called, without its results: `avi.pool.select(pool [, server [, port]])`.
    #[must_use]
    pub fn signature(&self, form: &[Parameter]) -> String {
        let mut text = format!("{}(", self.name);
        let mut open = 0;
        for (index, parameter) in form.iter().enumerate() {
            let comma = if index > 0 { ", " } else { "" };
            if parameter.need == Need::Optional {
                let space = if index > 0 { " " } else { "" };
                text.push_str(&format!("{space}[{comma}{}", parameter.name));
                open += 1;
            } else {
                text.push_str(&format!("{comma}{}", parameter.name));
            }
        }
        text.push_str(&"]".repeat(open));
        if let Some(rest) = &self.rest {
            text.push_str(if form.is_empty() { "" } else { ", " });
            text.push_str(&format!("{}, ...", rest.name));
        }
        text.push(')');
        text
    }

    /// All signatures, as a sentence part.
    #[must_use]
    pub fn signatures(&self) -> String {
        let all: Vec<String> = self.forms.iter().map(|form| self.signature(form)).collect();
        all.join(" or ")
    }
}
