//! Tables for people.

use serde::Serialize;
use serde_json::Value;

/// The named fields of `rows` in columns under a heading; numbers stand at the right. `nothing` is shown when there
/// are no rows.
pub(super) fn table(columns: &[&str], rows: &[impl Serialize], nothing: &str) -> String {
    if rows.is_empty() {
        return format!("{nothing}\n");
    }
    let cells: Vec<Vec<(String, bool)>> = rows.iter().map(|row| row_cells(columns, row)).collect();
    let widths: Vec<usize> = columns
        .iter()
        .enumerate()
        .map(|(at, name)| {
            let widest = cells.iter().filter_map(|row| row.get(at)).map(|(text, _)| text.chars().count());
            widest.max().unwrap_or(0).max(name.chars().count())
        })
        .collect();
    let rights = cells.first().into_iter().flatten().map(|(_, right)| *right);
    let heading: Vec<(String, bool)> =
        columns.iter().zip(rights).map(|(name, right)| ((*name).to_owned(), right)).collect();
    let mut text = String::new();
    for row in std::iter::once(&heading).chain(&cells) {
        push_row(&mut text, row, &widths);
    }
    text
}

/// `name  value` per line for the named fields of one object.
pub(super) fn list(fields: &[&str], object: &impl Serialize) -> String {
    let width = fields.iter().map(|name| name.len()).max().unwrap_or(0);
    let cells = row_cells(fields, object);
    let lines = fields.iter().zip(cells).map(|(name, (text, _))| format!("{name:<width$}  {text}\n"));
    lines.collect()
}

fn push_row(text: &mut String, row: &[(String, bool)], widths: &[usize]) {
    let mut line = String::new();
    for ((cell, right), width) in row.iter().zip(widths) {
        let padded = if *right { format!("{cell:>width$}") } else { format!("{cell:<width$}") };
        if !line.is_empty() {
            line.push_str("  ");
        }
        line.push_str(&padded);
    }
    text.push_str(line.trim_end());
    text.push('\n');
}

/// Text of each field, and whether it is a number.
fn row_cells(columns: &[&str], row: &impl Serialize) -> Vec<(String, bool)> {
    let row = serde_json::to_value(row).unwrap_or(Value::Null);
    columns
        .iter()
        .map(|name| match row.get(name) {
            None | Some(Value::Null) => ("-".to_owned(), false),
            Some(Value::String(text)) => (text.clone(), false),
            Some(Value::Number(number)) => (number.to_string(), true),
            Some(other) => (other.to_string(), false),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows =
            [json!({"name": "a", "n": 5, "note": null}), json!({"name": "größer", "n": 12345, "note": "x"})];
        assert_eq!(
            table(&["name", "n", "note"], &rows, "none"),
            "name        n  note\na           5  -\ngrößer  12345  x\n"
        );
        assert_eq!(table(&["name"], &Vec::<Value>::new(), "no rows"), "no rows\n");
    }
}
