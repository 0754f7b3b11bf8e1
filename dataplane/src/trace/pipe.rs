//! The way from a worker's tracer to control: bounded in events and in bytes of packets, without a lock.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use crossbeam_queue::ArrayQueue;

use super::TraceEvent;

/// Events that wait for control.
pub const MOST_EVENTS: usize = 4096;
/// Bytes of packets that wait for control.
const MOST_BYTES: usize = 8 << 20;

#[derive(Debug)]
struct Shared {
    events: ArrayQueue<TraceEvent>,
    bytes: AtomicUsize,
    lost: AtomicU64,
}

/// Both ends of a new pipe for one worker.
#[must_use]
pub fn pipe() -> (TraceSink, TraceSource) {
    let events = ArrayQueue::new(MOST_EVENTS);
    let shared = Arc::new(Shared { events, bytes: AtomicUsize::new(0), lost: AtomicU64::new(0) });
    (TraceSink(Arc::clone(&shared)), TraceSource { shared, told: 0 })
}

/// The worker's end. Never waits.
#[derive(Debug)]
pub struct TraceSink(Arc<Shared>);

impl TraceSink {
    /// Sends an event, or counts it as lost.
    pub fn send(&mut self, event: TraceEvent) {
        let bytes = event.what.bytes();
        let waiting = self.0.bytes.fetch_add(bytes, Ordering::Relaxed);
        if waiting + bytes > MOST_BYTES || self.0.events.push(event).is_err() {
            self.0.bytes.fetch_sub(bytes, Ordering::Relaxed);
            self.0.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// True if nobody reads any more.
    pub(super) fn is_abandoned(&self) -> bool {
        Arc::strong_count(&self.0) == 1
    }
}

/// Control's end; dropping it ends the trace.
#[derive(Debug)]
pub struct TraceSource {
    shared: Arc<Shared>,
    told: u64,
}

impl TraceSource {
    /// The next event.
    #[must_use]
    pub fn receive(&self) -> Option<TraceEvent> {
        let event = self.shared.events.pop()?;
        self.shared.bytes.fetch_sub(event.what.bytes(), Ordering::Relaxed);
        Some(event)
    }

    /// Events lost since the last call.
    pub fn lost(&mut self) -> u64 {
        let lost = self.shared.lost.load(Ordering::Relaxed);
        lost - std::mem::replace(&mut self.told, lost)
    }

    /// True once the worker has ended the trace and all of it was read.
    #[must_use]
    pub fn is_over(&self) -> bool {
        // In this order: what is sent before the end is there to be read.
        Arc::strong_count(&self.shared) == 1 && self.shared.events.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use smoltcp::time::Instant;

    use super::*;
    use crate::counters::DropReason;
    use crate::io::PortId;
    use crate::trace::{Shape, What};

    fn event(bytes: usize) -> TraceEvent {
        let frame = (bytes > 0).then(|| vec![0; bytes].into());
        let what = What::Received { port: PortId(0), direction: None, shape: Shape::default(), frame };
        TraceEvent { at: Instant::ZERO, flow: 0, what }
    }

    #[test]
    fn what_finds_no_room_is_lost_and_told_once() {
        let (mut sink, mut source) = pipe();
        (0..MOST_EVENTS + 3).for_each(|_| sink.send(event(0)));
        assert_eq!((source.lost(), source.lost()), (3, 0));
        assert!(source.receive().is_some());
        sink.send(event(0));
        sink.send(event(0));
        assert_eq!(source.lost(), 1);
    }

    #[test]
    fn bytes_are_bounded_too_and_given_back() {
        let (mut sink, mut source) = pipe();
        (0..3).for_each(|_| sink.send(event(MOST_BYTES / 2)));
        assert_eq!(source.lost(), 1);
        while source.receive().is_some() {}
        sink.send(event(MOST_BYTES));
        assert_eq!(source.lost(), 0);
        assert!(source.receive().is_some());
    }

    #[test]
    fn each_end_sees_the_other_go() {
        let (mut sink, source) = pipe();
        sink.send(TraceEvent { at: Instant::ZERO, flow: 0, what: What::Refused(DropReason::NoRoute) });
        assert!(!sink.is_abandoned() && !source.is_over());
        drop(sink);
        assert!(!source.is_over(), "one event is left");
        assert!(source.receive().is_some() && source.is_over());
        let (sink, source) = pipe();
        drop(source);
        assert!(sink.is_abandoned());
    }
}
