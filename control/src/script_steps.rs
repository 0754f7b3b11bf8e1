//! What scripts did, as text and as JSON: the same in all commands that show it.

use dataplane::policy::{Event, ScriptFailure};
use dataplane::script_trace::{Place, ScriptStep, ScriptTrace, TraceValue};
use serde_json::{Value, json};

/// One line for each step, indented within its script.
#[must_use]
pub fn text(trace: &ScriptTrace) -> Vec<String> {
    let mut lines: Vec<String> = trace.steps().iter().map(|step| step_text(trace, step)).collect();
    if trace.missed() > 0 {
        lines.push(format!("  and {} steps more", trace.missed()));
    }
    lines
}

fn step_text(trace: &ScriptTrace, step: &ScriptStep) -> String {
    match step {
        ScriptStep::Begin { script, event } => format!("{script} begins, for the {}", event_name(*event)),
        ScriptStep::Line(place) => format!("  {}", place_text(trace, *place)),
        ScriptStep::Call { place, function, arguments, results } => {
            let place = place.map(|place| format!("{}  ", place_text(trace, place))).unwrap_or_default();
            let call = call_text(function, arguments);
            match results {
                Ok(results) if results.is_empty() => format!("  {place}{call}"),
                Ok(results) => format!("  {place}{call} = {}", list(results)),
                // It may quote what a client has sent.
                Err(error) => {
                    format!("  {place}{call} fails: {}", crate::escape::escape(error.as_bytes()))
                }
            }
        }
        ScriptStep::Wait { need } => format!("  waits for {need} bytes in all"),
        ScriptStep::Resume { buffered } => format!("  goes on with {buffered} bytes"),
        ScriptStep::End { failure, instructions, nanoseconds } => {
            let how = match failure {
                None => "ends".to_owned(),
                Some(failure) => format!("fails ({})", failure_name(*failure)),
            };
            let instructions =
                instructions.map(|count| format!(", {count} instructions")).unwrap_or_default();
            format!("  {how} after {:.1} us in Lua{instructions}", micros(*nanoseconds))
        }
    }
}

/// Assigning and reading `avi.vs.reqvar` look as in a script.
fn call_text(function: &str, arguments: &[TraceValue]) -> String {
    format!("{function}({})", list(arguments))
}

fn list(values: &[TraceValue]) -> String {
    values.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

fn place_text(trace: &ScriptTrace, place: Place) -> String {
    format!("{}:{}", trace.source(place), place.line)
}

/// Array of objects, each with `step`.
#[must_use]
pub fn json(trace: &ScriptTrace) -> Value {
    trace.steps().iter().map(|step| step_json(trace, step)).collect()
}

fn step_json(trace: &ScriptTrace, step: &ScriptStep) -> Value {
    match step {
        ScriptStep::Begin { script, event } => {
            json!({ "step": "begin", "script": script, "on": event_name(*event) })
        }
        ScriptStep::Line(place) => {
            json!({ "step": "line", "source": trace.source(*place), "line": place.line })
        }
        ScriptStep::Call { place, function, arguments, results } => {
            let texts = |values: &[TraceValue]| values.iter().map(ToString::to_string).collect::<Vec<_>>();
            json!({
                "step": "call",
                "source": place.map(|place| trace.source(place)),
                "line": place.map(|place| place.line),
                "function": function,
                "arguments": texts(arguments),
                "results": results.as_ref().ok().map(|results| texts(results)),
                "error": results.as_ref().err(),
            })
        }
        ScriptStep::Wait { need } => json!({ "step": "wait", "need": need }),
        ScriptStep::Resume { buffered } => json!({ "step": "resume", "buffered": buffered }),
        ScriptStep::End { failure, instructions, nanoseconds } => json!({
            "step": "end",
            "failure": failure.map(failure_name),
            "instructions": instructions,
            "us": micros(*nanoseconds),
        }),
    }
}

fn micros(nanoseconds: u64) -> f64 {
    nanoseconds as f64 / 1000.0
}

/// `request` or `response`.
#[must_use]
pub fn event_name(event: Event) -> &'static str {
    match event {
        Event::Request => "request",
        Event::Response => "response",
    }
}

/// In a word.
#[must_use]
pub fn failure_name(failure: ScriptFailure) -> &'static str {
    match failure {
        ScriptFailure::Error => "error",
        ScriptFailure::Budget => "time budget",
        ScriptFailure::Memory => "memory limit",
        ScriptFailure::TooManySuspended => "too many scripts wait",
        ScriptFailure::Quarantined => "quarantined",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dataplane::script_trace::Detail;

    fn trace() -> ScriptTrace {
        let mut trace = ScriptTrace::new(16, Detail::Calls);
        let place = trace.place("by-sni.lua", 3);
        trace.push(ScriptStep::Begin { script: "by-sni.lua".to_owned(), event: Event::Request });
        let arguments = vec![TraceValue::Number(5.0)];
        let results = Ok(vec![TraceValue::bytes(b"\x16\x03\x01\0\xff")]);
        trace.push(ScriptStep::Call { place: Some(place), function: "avi.l4.read", arguments, results });
        let results = Err("no pool named 'x'".to_owned());
        let arguments = vec![TraceValue::bytes(b"x")];
        trace.push(ScriptStep::Call { place: None, function: "avi.pool.select", arguments, results });
        trace.push(ScriptStep::Wait { need: 9 });
        trace.push(ScriptStep::Resume { buffered: 12 });
        trace.end(Some(ScriptFailure::Budget), 12_340);
        trace
    }

    #[test]
    fn steps_for_people() {
        let expected = [
            "by-sni.lua begins, for the request",
            r#"  by-sni.lua:3  avi.l4.read(5) = "\022\003\001\000\255""#,
            r#"  avi.pool.select("x") fails: no pool named 'x'"#,
            "  waits for 9 bytes in all",
            "  goes on with 12 bytes",
            "  fails (time budget) after 12.3 us in Lua",
        ];
        assert_eq!(text(&trace()), expected);
    }

    #[test]
    fn an_error_that_quotes_line_ends_stays_on_its_line() {
        let mut trace = ScriptTrace::new(16, Detail::Calls);
        let results = Err("no pool named 'x\n\ny'".to_owned());
        trace.push(ScriptStep::Call { place: None, function: "avi.pool.select", arguments: vec![], results });
        assert_eq!(text(&trace).iter().map(|line| line.lines().count()).collect::<Vec<_>>(), [1]);
    }

    #[test]
    fn steps_for_programs() {
        let steps = json(&trace());
        assert_eq!(steps[0], json!({ "step": "begin", "script": "by-sni.lua", "on": "request" }));
        assert_eq!((&steps[1]["line"], &steps[1]["arguments"]), (&json!(3), &json!(["5"])));
        assert_eq!((&steps[2]["results"], &steps[2]["error"]), (&Value::Null, &json!("no pool named 'x'")));
        assert_eq!(
            steps[5],
            json!({ "step": "end", "failure": "time budget", "instructions": null, "us": 12.34 })
        );
    }
}
