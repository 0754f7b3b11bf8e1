//! `profile script`: begins a profile, waits, and shows what the workers saw.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use dataplane::channel::{Answer, Command, Query};
use dataplane::policy::Event;
use dataplane::script_profile::{ProfileLine, ScriptProfile};
use dataplane::snapshot::{ScriptSet, Snapshot, Source};
use serde::Serialize;
use serde_json::json;

use super::request::{Format, Profile};
use super::{Admin, json_line, text};

/// How often somebody who waits looks whether weir is to end.
const LOOK: Duration = Duration::from_millis(100);

const COLUMNS: &[&str] = &["source", "line", "samples", "percent", "time_us", "text"];

/// Lines that a table for people has.
const SHOWN: usize = 40;

#[derive(Serialize)]
struct Row {
    source: String,
    line: u32,
    samples: u64,
    /// Of all samples.
    percent: f64,
    time_us: f64,
    /// The line itself.
    text: String,
}

/// Gives its flag back.
struct Taken<'a>(&'a AtomicBool);

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

impl Admin {
    /// Makes a profile; the connection's thread sleeps meanwhile. One at a time.
    pub(super) fn profile(&self, wanted: Profile, format: Format) -> Result<String, String> {
        if self.profiling.swap(true, Ordering::Acquire) {
            return Err("a profile is being made already; repeat this when it is over".to_owned());
        }
        let _taken = Taken(&self.profiling);
        self.reloader.wait()?;
        // By the end of it the set may be no more.
        let snapshot = self.current.snapshot();
        let begun = self.workers.send(|| Command::StartProfile { set: wanted.set, event: wanted.event });
        let mut left = Duration::from_secs(wanted.seconds);
        while begun.is_ok() && !left.is_zero() && !self.stop.load(Ordering::Relaxed) {
            let step = LOOK.min(left);
            std::thread::sleep(step);
            left -= step;
        }
        let profile = match self.workers.ask(Query::EndProfile)? {
            Answer::Profile(profile) => profile,
            _ => return Err("the worker answered something else".to_owned()),
        };
        begun.map(|()| shown(&snapshot, wanted, profile, format))
    }
}

fn shown(snapshot: &Snapshot, wanted: Profile, mut profile: ScriptProfile, format: Format) -> String {
    profile.lines.sort_by(|a, b| {
        b.samples.cmp(&a.samples).then_with(|| (&a.source, a.line).cmp(&(&b.source, b.line)))
    });
    let set = snapshot.script_sets.get(wanted.set.index());
    let all: u64 = profile.lines.iter().map(|line| line.samples).sum();
    let rows: Vec<Row> = profile.lines.iter().map(|line| row(set, line, all)).collect();
    let name = set.map_or("", |set| set.name.as_str());
    let event = match wanted.event {
        Event::Request => "request",
        Event::Response => "response",
    };
    let time_us = microseconds(profile.nanoseconds);
    if format == Format::Json {
        return json_line(&json!({
            "set": name, "event": event, "seconds": wanted.seconds, "runs": profile.runs, "time_us": time_us,
            "samples": all, "missed": profile.missed, "lines": rows,
        }));
    }
    let mut shown = format!(
        "{name}, {event} script: {} runs in {} s, {time_us} us in Lua, {all} samples\n",
        profile.runs, wanted.seconds
    );
    let first = rows.get(..SHOWN).unwrap_or(&rows);
    shown.push_str(&text::table(COLUMNS, first, "no samples: the script has hardly run"));
    if rows.len() > first.len() {
        shown.push_str(&format!("{} more lines; `json` has them\n", rows.len() - first.len()));
    }
    shown
}

fn row(set: Option<&ScriptSet>, line: &ProfileLine, all: u64) -> Row {
    Row {
        source: line.source.clone(),
        line: line.line,
        samples: line.samples,
        percent: share(line.samples, all),
        time_us: microseconds(line.nanoseconds),
        text: set.and_then(|set| text_of(set, line)).unwrap_or_default(),
    }
}

/// The line as the configuration has it.
fn text_of(set: &ScriptSet, line: &ProfileLine) -> Option<String> {
    let parsers = set.parsers.iter().map(|(_, source)| source);
    let mut sources = set.request.iter().chain(&set.response).chain(parsers);
    let source: &Source = sources.find(|source| source.name == line.source)?;
    let number = usize::try_from(line.line).ok()?.checked_sub(1)?;
    let text = source.text.split(|byte| *byte == b'\n').nth(number)?;
    Some(String::from_utf8_lossy(text).trim().to_owned())
}

/// Per cent with one decimal.
#[allow(clippy::cast_precision_loss, reason = "a share for people")]
fn share(part: u64, all: u64) -> f64 {
    (part as f64 * 1000.0 / all.max(1) as f64).round() / 10.0
}

#[allow(clippy::cast_precision_loss, reason = "exact below 2^53 ns, 104 days")]
fn microseconds(nanoseconds: u64) -> f64 {
    (nanoseconds as f64 / 100.0).round() / 10.0
}
