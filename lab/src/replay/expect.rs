//! Two replays compared: did weir decide alike?

use serde::Serialize;
use serde_json::Value;

/// What is compared of a flow: everything that scripts, balancing and the end of the flow are about. Times, instructions,
/// traces and SNAT ports are not.
const FIELDS: [&str; 8] = ["service", "servers", "end", "reason", "log", "error", "to_server", "to_client"];
/// Of each run.
const RUN_FIELDS: [&str; 5] = ["event", "scripts", "result", "waits", "close"];
/// Of the choice.
const CHOICE_FIELDS: [&str; 2] = ["by", "target"];

/// Something that is not as it was.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// Which flow.
    pub flow: String,
    /// What.
    pub what: String,
    /// As it was.
    pub expected: String,
    /// As it is.
    pub found: String,
}

impl std::fmt::Display for Difference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Difference { flow, what, expected, found } = self;
        write!(f, "{flow}: {what}: expected {expected}, found {found}")
    }
}

/// The differences between two reports as JSON.
///
/// # Errors
/// `expected` is no report.
pub fn compare(expected: &Value, found: &Value) -> Result<Vec<Difference>, String> {
    let flows = |report: &Value| report.get("flows").and_then(Value::as_array).cloned();
    let expected = flows(expected).ok_or("it has no list \"flows\"")?;
    let found = flows(found).unwrap_or_default();
    let mut left: Vec<Option<&Value>> = found.iter().map(Some).collect();
    let mut differences = Vec::new();
    for was in &expected {
        let place = left.iter().position(|is| is.is_some_and(|is| title(is) == title(was)));
        match place.and_then(|place| left.get_mut(place)).and_then(Option::take) {
            Some(is) => compare_flow(was, is, &mut differences),
            None => differences.push(Difference {
                flow: title(was),
                what: "the flow".to_owned(),
                expected: "there".to_owned(),
                found: "missing".to_owned(),
            }),
        }
    }
    differences.extend(left.into_iter().flatten().map(|is| Difference {
        flow: title(is),
        what: "the flow".to_owned(),
        expected: "missing".to_owned(),
        found: "there".to_owned(),
    }));
    Ok(differences)
}

/// Protocol and addresses; flows of the same are taken in order.
fn title(flow: &Value) -> String {
    let part = |name: &str| flow.get(name).and_then(Value::as_str).unwrap_or("?");
    format!("{} {} -> {}", part("protocol"), part("client"), part("vip"))
}

fn compare_flow(was: &Value, is: &Value, differences: &mut Vec<Difference>) {
    let flow = title(is);
    let mut look = |what: String, was: &Value, is: &Value| {
        if was != is {
            let (flow, expected, found) = (flow.clone(), was.to_string(), is.to_string());
            differences.push(Difference { flow, what, expected, found });
        }
    };
    let nothing = Value::Null;
    for name in FIELDS {
        look(name.to_owned(), was.get(name).unwrap_or(&nothing), is.get(name).unwrap_or(&nothing));
    }
    for name in CHOICE_FIELDS {
        let of = |flow: &Value| {
            flow.get("choice").and_then(|choice| choice.get(name)).cloned().unwrap_or_default()
        };
        look(format!("choice, {name}"), &of(was), &of(is));
    }
    let runs = |flow: &Value| flow.get("scripts").and_then(Value::as_array).cloned().unwrap_or_default();
    let (before, now) = (runs(was), runs(is));
    look("number of runs".to_owned(), &before.len().into(), &now.len().into());
    for (number, (was, is)) in before.iter().zip(&now).enumerate() {
        for name in RUN_FIELDS {
            let of = |run: &Value| run.get(name).cloned().unwrap_or_default();
            look(format!("run {}, {name}", number + 1), &of(was), &of(is));
        }
    }
}
