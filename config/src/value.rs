//! Values with a meaning: what TOML's strings and integers stand for.

pub(crate) mod choice;
pub(crate) mod network;
pub(crate) mod quantity;
pub(crate) mod text;

use toml::de::DeValue;

use crate::read::{Fault, Value};

impl Value for bool {
    fn expected() -> String {
        "true or false".to_owned()
    }

    fn read(value: &DeValue<'_>) -> Result<Self, Fault> {
        value.as_bool().ok_or(Fault::Type)
    }
}

/// The text of a string value.
fn string<'a>(value: &'a DeValue<'_>) -> Result<&'a str, Fault> {
    value.as_str().ok_or(Fault::Type)
}

/// The value of an integer; `None` where 64 bits do not hold it.
fn integer(value: &DeValue<'_>) -> Result<Option<i64>, Fault> {
    let integer = value.as_integer().ok_or(Fault::Type)?;
    Ok(i64::from_str_radix(integer.as_str(), integer.radix()).ok())
}
