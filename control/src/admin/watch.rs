//! `trace`: arms the workers, and streams what they tell until it is over or the client has gone.

mod flows;
mod request;
mod told;

use std::io::{BufRead, BufReader, ErrorKind, Write};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use dataplane::channel::{Answer, Command, Query};
use dataplane::trace::{Order, TraceEvent, TraceSource, pipe};
use serde_json::{Value, json};
use smoltcp::time::Instant;

use super::request::Format;
use super::{Admin, json_line};
use crate::clock::{Clock, wall};
use crate::current::Current;
use flows::Flows;
pub(super) use request::{Watch, parse};
use told::Told;

/// How often the workers' events are fetched, and looked whether the client has gone.
const FETCH: Duration = Duration::from_millis(20);
/// Time without an event after which a trace ends whose flows have all ended: what is late belongs to them, too.
const QUIET: smoltcp::time::Duration = smoltcp::time::Duration::from_millis(500);
/// How often a worker is asked for its time; the quickest answer counts.
const TIME_QUERIES: usize = 3;

/// The one trace that there may be.
struct Only(Arc<AtomicBool>);

impl Only {
    fn take(taken: &Arc<AtomicBool>) -> Result<Self, String> {
        match taken.swap(true, Ordering::Acquire) {
            true => Err("a trace or a capture is under way already; repeat this when it is over".to_owned()),
            false => Ok(Only(Arc::clone(taken))),
        }
    }
}

impl Drop for Only {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

/// A worker that tells.
struct Teller {
    source: TraceSource,
    /// A moment by the worker's clock, and by that on the wall.
    clocks: (Instant, SystemTime),
}

/// A trace under way; the workers end it when it is dropped.
pub(super) struct Session {
    current: Current,
    stop: Arc<AtomicBool>,
    format: Format,
    tellers: Vec<Teller>,
    flows: Flows,
    seconds: u64,
    clock: Clock,
    last: Instant,
    events: u64,
    lost: u64,
    _only: Only,
}

impl Admin {
    /// Arms all workers.
    pub(super) fn begin_watch(&self, watch: Watch, format: Format) -> Result<Session, String> {
        let only = Only::take(&self.status.watching)?;
        let mut clocks = Vec::new();
        for worker in 0..self.workers.len() {
            clocks.push(self.clocks(worker)?);
        }
        let mut tellers = Vec::new();
        for (worker, clocks) in clocks.into_iter().enumerate() {
            let (sink, source) = pipe();
            let order = Order {
                filter: watch.filter,
                flows: watch.flows,
                time: smoltcp::time::Duration::from_secs(watch.seconds),
                open: watch.open,
                drops: watch.drops,
                frames: watch.frames,
                lines: watch.lines,
                sink,
            };
            self.workers.send_to(worker, Command::Trace(Box::new(order)))?;
            tellers.push(Teller { source, clocks });
        }
        let clock = Clock::new();
        Ok(Session {
            current: self.current.clone(),
            stop: Arc::clone(&self.stop),
            format,
            tellers,
            flows: Flows::new(watch.flows),
            seconds: watch.seconds,
            clock,
            last: clock.now(),
            events: 0,
            lost: 0,
            _only: only,
        })
    }

    /// The two times of the moment when a worker answered: half way between question and answer.
    fn clocks(&self, worker: usize) -> Result<(Instant, SystemTime), String> {
        let mut best: Option<(Duration, (Instant, SystemTime))> = None;
        for _ in 0..TIME_QUERIES {
            let asked = wall();
            let Answer::Time(time) = self.workers.ask_one(worker, Query::Time)? else {
                return Err("the worker answered something else".to_owned());
            };
            let took = wall().duration_since(asked).unwrap_or_default();
            if best.is_none_or(|(least, _)| took < least) {
                best = Some((took, (time, asked + took / 2)));
            }
        }
        best.map(|(_, clocks)| clocks).ok_or_else(|| "the worker does not say its time".to_owned())
    }
}

impl Session {
    /// Streams to the end. The client ends it by closing its side, or with any further line.
    pub(super) fn run(mut self, mut stream: &UnixStream, reader: &mut BufReader<&UnixStream>) {
        let begun = self.begun();
        if stream.set_read_timeout(Some(FETCH)).is_err() || stream.write_all(begun.as_bytes()).is_err() {
            return;
        }
        let mut gone = false;
        loop {
            let over = if gone { Some("the client has asked for the end") } else { self.over() };
            let mut lines = self.fetch();
            if let Some(why) = over {
                lines.push_str(&self.last_line(why));
            }
            if stream.write_all(lines.as_bytes()).is_err() || over.is_some() {
                return;
            }
            gone = has_gone(reader);
        }
    }

    /// Tells that the workers are armed, and the names of the interfaces.
    fn begun(&self) -> String {
        let snapshot = self.current.snapshot();
        let interfaces: Vec<&str> =
            snapshot.interfaces.iter().map(|interface| interface.name.as_str()).collect();
        match self.format {
            Format::Json => json_line(&json!({ "event": "armed", "interfaces": interfaces })),
            Format::Text => {
                format!("armed: {} flows are followed, for {} s at most\n", self.flows.limit(), self.seconds)
            }
        }
    }

    /// What the workers have told since the last time.
    fn fetch(&mut self) -> String {
        let mut events: Vec<(usize, SystemTime, TraceEvent)> = Vec::new();
        let mut lost = 0;
        for (worker, teller) in self.tellers.iter_mut().enumerate() {
            lost += teller.source.lost();
            let clocks = teller.clocks;
            let told = std::iter::from_fn(|| teller.source.receive());
            events.extend(told.map(|event| (worker, at(clocks, event.at), event)));
        }
        events.sort_by_key(|(_, time, _)| *time);
        let mut text = String::new();
        for (worker, time, event) in events {
            if let Some(flow) = self.flows.number(worker, &event) {
                self.events += 1;
                self.last = self.clock.now();
                let told = told::told(&self.current.snapshot(), &event.what, time);
                text.push_str(&self.lines(told, flow, worker, time));
            }
        }
        if lost > 0 {
            self.lost += lost;
            text.push_str(&self.lost_line(lost));
        }
        text
    }

    fn lines(&self, told: Told, flow: u32, worker: usize, time: SystemTime) -> String {
        if self.format == Format::Text {
            let time = humantime::format_rfc3339_micros(time).to_string();
            let time = time.get(11..26).unwrap_or_default();
            return told.lines().map(|line| format!("{flow:>4}  {time}  {line}\n")).collect();
        }
        let mut object = told.fields;
        object.insert("event".to_owned(), told.event.into());
        object.insert("text".to_owned(), told.text.into());
        object.insert("flow".to_owned(), flow.into());
        object.insert("worker".to_owned(), worker.into());
        object.insert("time".to_owned(), humantime::format_rfc3339_nanos(time).to_string().into());
        json_line(&Value::Object(object))
    }

    fn lost_line(&self, lost: u64) -> String {
        match self.format {
            Format::Json => json_line(&json!({ "event": "lost", "events": lost })),
            Format::Text => {
                format!("   -  {lost} events lost: they came faster than they are written here\n")
            }
        }
    }

    fn last_line(&self, why: &str) -> String {
        let Session { events, lost, .. } = self;
        let flows = self.flows.given();
        match self.format {
            Format::Json => {
                json_line(
                    &json!({ "event": "over", "why": why, "flows": flows, "events": events, "lost": lost }),
                ) + "\n"
            }
            Format::Text => format!("over: {why}; {flows} flows, {events} events, {lost} events lost\n\n"),
        }
    }

    /// Why it is over, if it is. To be asked before the last events are fetched.
    fn over(&self) -> Option<&'static str> {
        if self.stop.load(Ordering::Relaxed) {
            return Some("weir ends");
        }
        if self.flows.all_over() && self.clock.now() - self.last >= QUIET {
            return Some("all flows have ended");
        }
        let told = self.tellers.iter().all(|teller| teller.source.is_over());
        told.then_some("the time is over")
    }
}

/// The time on the wall at a moment of a worker's clock.
fn at((then, wall): (Instant, SystemTime), moment: Instant) -> SystemTime {
    let micros = moment.total_micros() - then.total_micros();
    let apart = Duration::from_micros(micros.unsigned_abs());
    let time = if micros < 0 { wall.checked_sub(apart) } else { wall.checked_add(apart) };
    time.unwrap_or(wall)
}

/// Waits a moment for the client; true if it has closed its side or wants something else.
fn has_gone(reader: &mut BufReader<&UnixStream>) -> bool {
    match reader.fill_buf() {
        Ok(_) => true,
        Err(error) => !matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_of_a_worker_become_times_of_the_wall() {
        let clocks = (Instant::from_secs(100), SystemTime::UNIX_EPOCH + Duration::from_secs(5000));
        let micros = |micros| at(clocks, Instant::from_micros(micros)).duration_since(SystemTime::UNIX_EPOCH);
        assert_eq!(micros(100_000_007).unwrap(), Duration::from_micros(5_000_000_007));
        assert_eq!(micros(99_000_000).unwrap(), Duration::from_secs(4999));
    }
}
