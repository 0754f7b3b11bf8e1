//! A report for people.

use std::fmt::Write;

use super::report::{FlowReport, Report, ScriptReport};

impl Report {
    /// Many lines, each ended. With `trace` every step of the scripts has one.
    #[must_use]
    pub fn text(&self, trace: bool) -> String {
        let mut text = String::new();
        for flow in &self.flows {
            flow.write(&mut text, trace);
        }
        for note in &self.notes {
            let _ = writeln!(text, "note: {note}");
        }
        let Report { packets, played, flows, .. } = self;
        let _ = writeln!(text, "{packets} packets, {played} of clients played, {} flows", flows.len());
        for (why, count) in &self.ignored {
            let _ = writeln!(text, "  {count} not played: {why}");
        }
        text
    }
}

impl FlowReport {
    /// The flow in some lines, added to `text`; writing to a string does not fail.
    pub fn write(&self, text: &mut String, trace: bool) {
        let FlowReport { number, protocol, client, vip, service, numbers, packets, began, .. } = self;
        let _ = writeln!(
            text,
            "flow {number}: {protocol} {client} -> {vip} ({service}), {packets} packets ({} to {}), from {began:.6} s on",
            numbers.0, numbers.1
        );
        for note in &self.notes {
            let _ = writeln!(text, "  note: {note}");
        }
        for script in &self.scripts {
            script.write(text, trace);
        }
        if let Some(choice) = &self.choice {
            let _ = writeln!(text, "  choice: {}", choice.to_string().replace('\n', "\n  "));
        }
        for (index, server) in self.servers.iter().enumerate() {
            let snat = self.snat.get(index).map(|snat| format!(", from {snat}")).unwrap_or_default();
            let _ = writeln!(text, "  server: {server}{snat}");
        }
        if let Some(log) = &self.log {
            let _ = writeln!(text, "  log: {log}");
        }
        if let Some(error) = &self.error {
            let _ = writeln!(text, "  error: {}", error.replace('\n', "\n    "));
        }
        let reason = self.reason.map(|reason| format!(", {reason}")).unwrap_or_default();
        let time = self.seconds.map(|seconds| format!(" after {seconds:.6} s")).unwrap_or_default();
        let FlowReport { end, meaning, to_server, to_client, .. } = self;
        let _ = writeln!(
            text,
            "  end: {end} ({meaning}{reason}){time}; {to_server} bytes from the client, {to_client} from the server"
        );
    }
}

impl ScriptReport {
    fn write(&self, text: &mut String, trace: bool) {
        let ScriptReport { event, scripts, result, waits, instructions, nanoseconds, .. } = self;
        let waited = match waits.as_slice() {
            [] => String::new(),
            waits => format!(
                ", waited for {} bytes",
                waits.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
            ),
        };
        let time = if *nanoseconds > 0 { format!(", {} us", nanoseconds / 1000) } else { String::new() };
        let close = self.close.map(|close| format!(", closes by {close}")).unwrap_or_default();
        let names = scripts.join(", ");
        let _ =
            writeln!(text, "  {event} {names}: {result}{waited}{close}, {instructions} instructions{time}");
        if !trace {
            return;
        }
        for step in &self.steps {
            let place = step.place.as_deref().unwrap_or("");
            let what = if step.text.is_empty() { String::new() } else { format!("  {}", step.text) };
            let _ = writeln!(text, "    {place:<24}{what}");
        }
        if self.missed > 0 {
            let _ = writeln!(text, "    and {} more steps", self.missed);
        }
    }
}
