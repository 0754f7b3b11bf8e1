//! Reads a parsed TOML table into structs "as written", with the place of every value, and reports every unknown key
//! and every wrong type in one go. The structs are declared with [`section!`], which is also the list of all keys.

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::problem::{Problems, Span};
use script_check::nearest;

/// A value and where it stands.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct At<T> {
    pub value: T,
    pub span: Span,
}

/// Why a value was not taken.
#[derive(Debug)]
pub(crate) enum Fault {
    /// The TOML type is another one.
    Type,
    /// The type is right, the value is not.
    Value {
        /// What is wrong with it, after "`key`: ".
        what: String,
        /// What was probably meant; what is allowed when `None`.
        help: Option<String>,
    },
}

impl Fault {
    pub(crate) fn value(what: impl Into<String>) -> Self {
        Fault::Value { what: what.into(), help: None }
    }

    pub(crate) fn hint(what: impl Into<String>, help: impl Into<String>) -> Self {
        Fault::Value { what: what.into(), help: Some(help.into()) }
    }
}

/// A TOML value with a meaning.
pub(crate) trait Value: Sized {
    /// What is allowed, as in "must be …".
    fn expected() -> String;
    /// Takes the value or says what is wrong with it.
    fn read(value: &DeValue<'_>) -> Result<Self, Fault>;
}

/// A table with known keys; declared with [`section!`].
pub(crate) trait Section: Default {
    /// How the table is written, for messages.
    const HEADER: &'static str;
    fn read(table: &DeTable<'_>, span: &Span, problems: &mut Problems) -> Self;
    /// Of the header, or of an inline table.
    fn span(&self) -> &Span;
    /// Appends the path of each key below `path`.
    fn keys(path: &str, keys: &mut Vec<String>);
}

/// What stands behind one key of a section.
pub(crate) trait Field: Sized {
    fn read(place: &Place<'_, '_>, problems: &mut Problems) -> Self;
    /// Appends the path of each key that `path` stands for.
    fn keys(path: &str, keys: &mut Vec<String>) {
        keys.push(path.to_owned());
    }
}

/// A key of a table that is being read.
pub(crate) struct Place<'a, 'i> {
    pub table: &'a DeTable<'i>,
    pub key: &'static str,
    pub header: &'static str,
    pub span: &'a Span,
}

impl<'i> Place<'_, 'i> {
    fn get(&self) -> Option<&Spanned<DeValue<'i>>> {
        self.table.get(self.key)
    }
}

/// A value that must be there; `None` only after its problem was reported.
#[derive(Clone, Debug)]
pub(crate) struct Required<V>(pub Option<At<V>>);

/// A value that may be left out.
#[derive(Clone, Debug)]
pub(crate) struct Given<V>(pub Option<At<V>>);

/// An array of values; empty when left out.
#[derive(Clone, Debug)]
pub(crate) struct List<V> {
    pub items: Vec<At<V>>,
    /// Of the array, if it is there.
    pub span: Option<Span>,
    /// Something in it was not taken, which has been reported.
    pub faulty: bool,
}

/// Tables of one kind; empty when left out.
#[derive(Clone, Debug)]
pub(crate) struct Tables<S> {
    items: Vec<S>,
    /// Something in it was not taken, which has been reported.
    pub faulty: bool,
}

/// A table that may be left out.
#[derive(Clone, Debug, Default)]
pub(crate) struct Part<S> {
    section: S,
    present: bool,
}

impl<V> Default for Required<V> {
    fn default() -> Self {
        Required(None)
    }
}

impl<V> Default for Given<V> {
    fn default() -> Self {
        Given(None)
    }
}

impl<V> Default for List<V> {
    fn default() -> Self {
        List { items: Vec::new(), span: None, faulty: false }
    }
}

impl<S> Default for Tables<S> {
    fn default() -> Self {
        Tables { items: Vec::new(), faulty: false }
    }
}

impl<S> std::ops::Deref for Tables<S> {
    type Target = [S];
    fn deref(&self) -> &[S] {
        &self.items
    }
}

impl<V> Given<V> {
    /// The value, or the default.
    pub(crate) fn or(&self, default: V) -> V
    where
        V: Clone,
    {
        self.0.as_ref().map_or(default, |at| at.value.clone())
    }
}

impl<V> List<V> {
    /// True if there is nothing in it and that has not been reported.
    pub(crate) fn is_missing(&self) -> bool {
        self.items.is_empty() && !self.faulty
    }

    pub(crate) fn values(&self) -> impl Iterator<Item = &V> {
        self.items.iter().map(|at| &at.value)
    }
}

impl<S: Section> Part<S> {
    /// Of the header, if the table is there.
    pub(crate) fn span(&self) -> Option<&Span> {
        self.present.then(|| self.section.span())
    }
}

impl<S> std::ops::Deref for Part<S> {
    type Target = S;
    fn deref(&self) -> &S {
        &self.section
    }
}

impl<V: Value> Field for Required<V> {
    fn read(place: &Place<'_, '_>, problems: &mut Problems) -> Self {
        let Some(value) = place.get() else {
            let message = format!("{} has no `{}`", place.header, place.key);
            problems.error(place.span, message).help(format!("`{}` must be {}", place.key, V::expected()));
            return Required(None);
        };
        Required(read_value(place.key, value, problems))
    }
}

impl<V: Value> Field for Given<V> {
    fn read(place: &Place<'_, '_>, problems: &mut Problems) -> Self {
        Given(place.get().and_then(|value| read_value(place.key, value, problems)))
    }
}

impl<V: Value> Field for List<V> {
    fn read(place: &Place<'_, '_>, problems: &mut Problems) -> Self {
        let Some(value) = place.get() else { return List::default() };
        let DeValue::Array(array) = value.get_ref() else {
            let message = format!("`{}` must be an array: each element {}", place.key, V::expected());
            let text = problems.text().get(value.span()).unwrap_or("").to_owned();
            let problem = problems.error(&value.span(), message).label(found(value.get_ref()));
            if !value.get_ref().is_table() {
                problem.help(format!("write {} = [{text}]", place.key));
            }
            return List { items: Vec::new(), span: Some(value.span()), faulty: true };
        };
        let items: Vec<_> = array.iter().filter_map(|item| read_value(place.key, item, problems)).collect();
        let faulty = items.len() < array.len();
        List { items, span: Some(value.span()), faulty }
    }
}

impl<S> Tables<S> {
    /// True if there is none and that has not been reported.
    pub(crate) fn is_missing(&self) -> bool {
        self.items.is_empty() && !self.faulty
    }
}

impl<S: Section> Field for Tables<S> {
    fn read(place: &Place<'_, '_>, problems: &mut Problems) -> Self {
        let Some(value) = place.get() else { return Tables::default() };
        let DeValue::Array(array) = value.get_ref() else {
            let message = match S::HEADER.starts_with("[[") {
                true => format!("`{}` may occur several times and is written {}", place.key, S::HEADER),
                false => format!("`{}` must be an array of tables: [{{ … }}, {{ … }}]", place.key),
            };
            problems.error(&value.span(), message).label(found(value.get_ref()));
            return Tables { items: Vec::new(), faulty: true };
        };
        let mut items = Vec::new();
        for item in array {
            if let DeValue::Table(table) = item.get_ref() {
                items.push(S::read(table, &item.span(), problems));
            } else {
                let message = format!("each element of `{}` must be a table", place.key);
                problems.error(&item.span(), message).label(found(item.get_ref()));
            }
        }
        let faulty = items.len() < array.len();
        Tables { items, faulty }
    }

    fn keys(path: &str, keys: &mut Vec<String>) {
        S::keys(path, keys);
    }
}

impl<S: Section> Field for Part<S> {
    fn read(place: &Place<'_, '_>, problems: &mut Problems) -> Self {
        let Some(value) = place.get() else { return Part::default() };
        if let DeValue::Table(table) = value.get_ref() {
            return Part { section: S::read(table, &value.span(), problems), present: true };
        }
        let message = format!("`{}` is a table that occurs once and is written {}", place.key, S::HEADER);
        problems.error(&value.span(), message).label(found(value.get_ref()));
        Part::default()
    }

    fn keys(path: &str, keys: &mut Vec<String>) {
        S::keys(path, keys);
    }
}

fn read_value<V: Value>(key: &str, value: &Spanned<DeValue<'_>>, problems: &mut Problems) -> Option<At<V>> {
    let span = value.span();
    match V::read(value.get_ref()) {
        Ok(value) => return Some(At { value, span }),
        Err(Fault::Type) => {
            let message = format!("`{key}` must be {}", V::expected());
            problems.error(&span, message).label(found(value.get_ref()));
        }
        Err(Fault::Value { what, help }) => {
            let help = help.unwrap_or_else(|| format!("allowed: {}", V::expected()));
            problems.error(&span, format!("`{key}`: {what}")).help(help);
        }
    }
    None
}

fn found(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "this is a string",
        DeValue::Integer(_) => "this is an integer",
        DeValue::Float(_) => "this is a number with a fraction",
        DeValue::Boolean(_) => "this is a boolean",
        DeValue::Datetime(_) => "this is a date or time",
        DeValue::Array(_) => "this is an array",
        DeValue::Table(_) => "this is a table",
    }
}

/// Reports each key of `table` that is not in `known`.
pub(crate) fn refuse_unknown(table: &DeTable<'_>, header: &str, known: &[&str], problems: &mut Problems) {
    for key in table.keys() {
        let name = key.get_ref().as_ref();
        if known.contains(&name) {
            continue;
        }
        let help = match nearest(name, known.iter().copied()) {
            Some(near) => format!("did you mean `{near}`?"),
            None => elsewhere(name).unwrap_or_else(|| format!("known here: {}", known.join(", "))),
        };
        problems.error(&key.span(), format!("unknown key `{name}` in {header}")).help(help);
    }
}

/// A sentence about the sections that know the key `name`.
fn elsewhere(name: &str) -> Option<String> {
    let paths = crate::keys();
    let homes: Vec<String> = paths
        .iter()
        .filter_map(|path| path.strip_suffix(name)?.strip_suffix('.'))
        .map(|home| format!("[{home}]"))
        .collect();
    (1..=3).contains(&homes.len()).then(|| format!("`{name}` is a key of {}", homes.join(", ")))
}

/// The path of `key` below `path`.
pub(crate) fn below(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

/// Declares a table: `Name, "how it is written" { key: Field, key as "its name in TOML": Field }`.
macro_rules! section {
    (
        $(#[$doc:meta])* $name:ident, $header:literal
        { $( $(#[$key_doc:meta])* $key:ident $(as $written:literal)? : $field:ty ),* $(,)? }
    ) => {
        $(#[$doc])*
        #[derive(Clone, Debug, Default)]
        pub(crate) struct $name {
            /// Of the header, or of an inline table.
            pub span: $crate::problem::Span,
            $( $(#[$key_doc])* pub $key: $field, )*
        }

        impl $crate::read::Section for $name {
            const HEADER: &'static str = $header;

            fn read(
                table: &toml::de::DeTable<'_>,
                span: &$crate::problem::Span,
                problems: &mut $crate::problem::Problems,
            ) -> Self {
                let known = [$( $crate::read::section!(@key $key $($written)?) ),*];
                $crate::read::refuse_unknown(table, $header, &known, problems);
                $name {
                    span: span.clone(),
                    $( $key: {
                        let key = $crate::read::section!(@key $key $($written)?);
                        let place = $crate::read::Place { table, key, header: $header, span };
                        <$field as $crate::read::Field>::read(&place, problems)
                    }, )*
                }
            }

            fn span(&self) -> &$crate::problem::Span {
                &self.span
            }

            fn keys(path: &str, keys: &mut Vec<String>) {
                $( {
                    let key = $crate::read::section!(@key $key $($written)?);
                    <$field as $crate::read::Field>::keys(&$crate::read::below(path, key), keys);
                } )*
            }
        }
    };
    (@key $key:ident) => { stringify!($key) };
    (@key $key:ident $written:literal) => { $written };
}
pub(crate) use section;
