//! The functions of tables and persistence.

use std::borrow::Cow;

use dataplane::api::ApiError;

use super::flag;
use crate::arguments::{lifetime, optional_name, stored};
use crate::call::{Answer, Argument, Quick, Refusal, Reply, Value, count};
use crate::raw::{Arguments, Slot};

pub(super) fn persist<'s>(arguments: Arguments<'s>, slot: &'s mut Slot) -> Answer<'s> {
    let set = slot.set();
    let key = stored(arguments, 1)?;
    let lifetime = lifetime(arguments, 2)?;
    let pool = optional_name(arguments, 3)?;
    // Nothing to remember the flow by: it is balanced as if persist had not been called.
    let Some(key) = key else { return Ok(Reply::Nothing) };
    slot.with_context(|context| context.persist(set, &key, lifetime, pool.as_deref()))??;
    Ok(Reply::Nothing)
}

/// Positions of table, key and what follows the key.
struct Positions {
    table: Option<usize>,
    key: usize,
}

fn table_name<'s>(arguments: Arguments<'s>, at: &Positions) -> Result<Option<Cow<'s, [u8]>>, Refusal> {
    at.table.map_or(Ok(None), |position| stored(arguments, position))
}

/// `([table,] key [, exten])`: of two arguments, a number is the second of `(key, exten)`.
fn key_positions(arguments: Arguments<'_>) -> Result<Positions, Refusal> {
    match arguments.count() {
        0 => Err(Refusal::text("bad argument #1 (key expected, got no value)")),
        1 => Ok(Positions { table: None, key: 1 }),
        2 if matches!(arguments.at(2), Argument::Number(_)) => Ok(Positions { table: None, key: 1 }),
        _ => Ok(Positions { table: Some(1), key: 2 }),
    }
}

pub(super) fn table_insert<'s>(arguments: Arguments<'s>, slot: &'s mut Slot) -> Answer<'s> {
    let at = match (arguments.count(), arguments.at(3)) {
        (0 | 1, _) => return Err(Refusal::text("bad argument #2 (value expected, got no value)")),
        (2, _) | (3, Argument::Number(_)) => Positions { table: None, key: 1 },
        _ => Positions { table: Some(1), key: 2 },
    };
    let table = table_name(arguments, &at)?;
    let key = stored(arguments, at.key)?;
    let value = stored(arguments, at.key + 1)?;
    let lifetime = lifetime(arguments, at.key + 2)?;
    let (Some(key), Some(value)) = (key, value) else { return flag(false) };
    let made =
        slot.with_context(|context| context.table_insert(table.as_deref(), &key, &value, lifetime))??;
    flag(made)
}

pub(super) fn table_lookup<'s>(arguments: Arguments<'s>, slot: &'s mut Slot) -> Answer<'s> {
    let at = key_positions(arguments)?;
    let table = table_name(arguments, &at)?;
    let exten = lifetime(arguments, at.key + 1)?;
    let Some(key) = stored(arguments, at.key)? else { return Ok(Reply::One(Value::Nil)) };
    let looked_up = slot.in_run(|context, value| {
        let entry = context.table_lookup(table.as_deref(), &key, exten)?;
        Ok::<_, ApiError>(entry.map(|entry| taken(entry, value)))
    });
    let seconds = looked_up.ok_or_else(|| Refusal::text("called outside of a run"))??;
    let Some(seconds) = seconds else { return Ok(Reply::One(Value::Nil)) };
    Ok(Reply::Two(Value::Bytes(&slot.scratch), Value::Number(seconds)))
}

/// Copies the value of an entry; the seconds that it has left.
fn taken((stored, seconds): (&[u8], u64), value: &mut Vec<u8>) -> f64 {
    value.extend_from_slice(stored);
    count(usize::try_from(seconds).unwrap_or(usize::MAX))
}

/// A key of the default table, whose life is extended as usual.
pub(super) fn looked_up(arguments: Arguments<'_>, slot: &mut Slot) -> Quick {
    let Argument::String(key) = arguments.only() else { return Quick::Other };
    let found = slot.in_run(|context, value| match context.table_lookup(None, key, None) {
        Ok(Some(entry)) => Quick::TextAndNumber(taken(entry, value)),
        Ok(None) => Quick::Nil,
        Err(_) => Quick::Other,
    });
    found.unwrap_or(Quick::Other)
}

pub(super) fn table_refresh<'s>(arguments: Arguments<'s>, slot: &'s mut Slot) -> Answer<'s> {
    if arguments.count() == 0 {
        return flag(false);
    }
    let at = key_positions(arguments)?;
    let (Ok(table), Ok(key)) = (table_name(arguments, &at), stored(arguments, at.key)) else {
        return flag(false);
    };
    let Some(key) = key else { return flag(false) };
    // Never an error: what is no number of seconds is left out.
    let exten = lifetime(arguments, at.key + 1).unwrap_or(None);
    let there = slot.with_context(|context| context.table_refresh(table.as_deref(), &key, exten))??;
    flag(there)
}

pub(super) fn table_remove<'s>(arguments: Arguments<'s>, slot: &'s mut Slot) -> Answer<'s> {
    let at = match arguments.count() {
        0 => return Err(Refusal::text("bad argument #1 (key expected, got no value)")),
        1 => Positions { table: None, key: 1 },
        _ => Positions { table: Some(1), key: 2 },
    };
    let table = table_name(arguments, &at)?;
    let Some(key) = stored(arguments, at.key)? else { return Ok(Reply::Nothing) };
    slot.with_context(|context| context.table_remove(table.as_deref(), &key))?;
    Ok(Reply::Nothing)
}
