//! The key-value tables and persistence.

use super::meaning::Meaning;
use super::types::{Events, Function, Kind, Outcome, Parameter};

const TABLE: Parameter =
    Parameter::required("table", Meaning::Table, "the name of a table; the default one if left out");
const KEY: Parameter =
    Parameter::required("key", Meaning::Key, "numbers and booleans are taken as their text");
const VALUE: Parameter =
    Parameter::required("value", Meaning::Stored, "numbers and booleans are stored as their text");
const LIFETIME: Parameter = Parameter::optional(
    "lifetime",
    Meaning::Lifetime,
    "seconds; 300 if left out, and smaller ones are raised to 300",
);
const EXTENSION: Parameter = Parameter::optional(
    "extension",
    Meaning::Extension,
    "seconds that are added to the entry's life: 300 if left out, 0 adds none",
);
const RENEWAL: Parameter = Parameter::optional(
    "extension",
    Meaning::Renewal,
    "seconds from now that the entry lives at least; 300 if left out",
);

/// `avi.vs.persist`
pub const PERSIST: Function = Function {
    name: "avi.vs.persist",
    forms: &[&[
        Parameter::wanted(
            "key",
            Meaning::Key,
            "what the flows of one client have in common; nil: nothing happens",
        ),
        LIFETIME,
        Parameter::optional(
            "pool",
            Meaning::Pool,
            "where a new server is chosen; the default pool if left out",
        ),
    ]],
    events: Events::Request,
    text: "Keeps flows with the same key on one server: the one that the default table holds for the key if it is up, \
           else one that the pool's algorithm chooses and that is stored. A later `select` decides instead, and the \
           entry then records the server it led to.",
    errors: "The pool does not exist or is not attached; the lifetime is zero or negative.",
    ..Function::NONE
};

/// `avi.vs.table_insert`
pub const TABLE_INSERT: Function = Function {
    name: "avi.vs.table_insert",
    forms: &[&[KEY, VALUE, LIFETIME], &[TABLE, KEY, VALUE, LIFETIME]],
    results: &[Outcome::new(
        "stored",
        &[Kind::Boolean],
        "boolean",
        "false: no room, too long, or a nil key or value",
    )],
    text: "Adds an entry. A key that is there **keeps its value** and gets the new lifetime; remove it first to \
           replace it.",
    errors: "The lifetime is zero or negative.",
    ..Function::NONE
};

/// `avi.vs.table_lookup`
pub const TABLE_LOOKUP: Function = Function {
    name: "avi.vs.table_lookup",
    forms: &[&[KEY, EXTENSION], &[TABLE, KEY, EXTENSION]],
    results: &[
        Outcome::new("value", &[Kind::String, Kind::Nil], "string?", "nil: there is no such entry"),
        Outcome::new(
            "seconds",
            &[Kind::Number, Kind::Nil],
            "integer?",
            "how long the entry lives, with what was added",
        ),
    ],
    text: "Gives the value of a key and **prolongs the entry**, by 300 seconds unless told otherwise.",
    errors: "The extension is negative.",
    ..Function::NONE
};

/// `avi.vs.table_refresh`
pub const TABLE_REFRESH: Function = Function {
    name: "avi.vs.table_refresh",
    forms: &[
        &[Parameter::wanted("key", Meaning::Key, KEY.text), RENEWAL],
        &[
            Parameter::wanted("table", Meaning::Table, TABLE.text),
            Parameter::wanted("key", Meaning::Key, KEY.text),
            RENEWAL,
        ],
    ],
    results: &[Outcome::new("found", &[Kind::Boolean], "boolean", "whether the key was there")],
    never_raises: true,
    text: "Lets an entry live until `extension` seconds from now, if that is later than it does anyway. Raises no \
           error, whatever it is given.",
    ..Function::NONE
};

/// `avi.vs.table_remove`
pub const TABLE_REMOVE: Function = Function {
    name: "avi.vs.table_remove",
    forms: &[&[KEY], &[TABLE, KEY]],
    text: "Removes an entry, on all cores. A key that is not there is no error.",
    ..Function::NONE
};
