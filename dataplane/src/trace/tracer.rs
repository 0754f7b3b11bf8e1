//! Which flows of a worker are followed, and what of a packet has been noted so far.

use std::collections::HashMap;

use smoltcp::time::Instant;

use super::{Order, TraceEvent, What};
use crate::address::FlowKey;
use crate::channel::ConnectionRecord;
use crate::flow_table::FlowId;
use crate::pipeline::Verdict;
use crate::script_trace::{Detail, ScriptTrace};

/// Notes about one packet; a packet causes a few.
const MOST_NOTES: usize = 64;
/// Steps of the scripts of one run.
const MOST_STEPS: usize = 1024;

/// Follows flows for an [`Order`]. Owned by a pipeline, which calls [`Tracer::receive`] before and [`Tracer::settle`] after
/// each packet, and in between tells what it does.
///
/// Costs for each flow followed about 200 bytes, and what its notes take until control has read them.
#[derive(Debug)]
pub struct Tracer {
    order: Order,
    until: Instant,
    /// Flows that have a number.
    followed: HashMap<FlowId, u32>,
    /// The same for tuples without a flow: packets that opened none, and flows that are over; at most three for each number.
    tuples: HashMap<FlowKey, Tuple>,
    /// Numbers given.
    taken: u32,
    current: Option<Current>,
}

#[derive(Clone, Copy, Debug)]
struct Tuple {
    number: u32,
    /// There was a flow, and the next one of this tuple is another one.
    over: bool,
}

/// The packet under way.
#[derive(Debug)]
struct Current {
    at: Instant,
    subject: Subject,
    notes: Vec<What>,
    /// Both keys of its flow, if that is no more.
    gone: Option<[FlowKey; 2]>,
}

impl Current {
    fn new(at: Instant, subject: Subject, notes: Vec<What>) -> Self {
        Current { at, subject, notes, gone: None }
    }
}

/// Whose packet it is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Subject {
    /// Its flow, if there is one.
    pub(crate) id: Option<FlowId>,
    /// The key of that flow's packets from the client, or that of the packet.
    pub(crate) key: FlowKey,
    /// The flow existed before this packet.
    pub(crate) open: bool,
    /// It is for a VIP, or of a flow.
    pub(crate) of_service: bool,
}

impl Tracer {
    /// Begins.
    #[must_use]
    pub fn new(order: Order, now: Instant) -> Self {
        let until = now + order.time;
        let (followed, tuples) = (HashMap::new(), HashMap::new());
        Tracer { order, until, followed, tuples, taken: 0, current: None }
    }

    /// True if it has nothing more to do: its time is over, or nobody listens.
    #[must_use]
    pub fn is_over(&self, now: Instant) -> bool {
        now >= self.until || self.order.sink.is_abandoned()
    }

    /// The beginning of a frame, if it is wanted.
    pub(crate) fn copy(&self, frame: &[u8]) -> Option<Box<[u8]>> {
        let most = self.order.frames?;
        Some(frame.get(..most).unwrap_or(frame).into())
    }

    /// For the steps of the scripts of one run.
    pub(crate) fn script_trace(&self) -> Box<ScriptTrace> {
        let detail = if self.order.lines { Detail::Lines } else { Detail::Calls };
        Box::new(ScriptTrace::new(MOST_STEPS, detail))
    }

    /// A packet has come; `what` is made if anybody wants to know. True: [`Tracer::settle`] ends it.
    pub(crate) fn receive(
        &mut self,
        at: Instant,
        subject: Subject,
        what: impl FnOnce(&Self) -> What,
    ) -> bool {
        if !self.wants(&subject) {
            return false;
        }
        let notes = vec![what(self)];
        self.current = Some(Current::new(at, subject, notes));
        true
    }

    fn wants(&self, subject: &Subject) -> bool {
        if self.number(subject).is_some() {
            return true;
        }
        let may_begin = !subject.open || self.order.open || self.order.drops;
        may_begin && self.taken < self.order.flows && self.order.filter.matches(&subject.key)
    }

    /// The number that its flow has already.
    fn number(&self, subject: &Subject) -> Option<u32> {
        match subject.id {
            Some(id) => self.followed.get(&id).copied().or_else(|| {
                let tuple = self.tuples.get(&subject.key).filter(|tuple| !tuple.over && !subject.open);
                tuple.map(|tuple| tuple.number)
            }),
            None => self.tuples.get(&subject.key).map(|tuple| tuple.number),
        }
    }

    /// The packet under way opens this flow. If it has ended another one with the same key before, that end is told first.
    pub(crate) fn opened(&mut self, id: FlowId) {
        let Some(current) = self.current.as_mut() else { return };
        if current.subject.id.is_none() {
            current.subject.id = Some(id);
            return;
        }
        let (at, key) = (current.at, current.subject.key);
        let (received, ended) = std::mem::take(&mut current.notes)
            .into_iter()
            .filter(|what| !matches!(what, What::Found(_)))
            .partition(|what| matches!(what, What::Received { .. }));
        current.notes = ended;
        self.finish(|_| false);
        let subject = Subject { id: Some(id), key, open: false, of_service: true };
        if self.wants(&subject) {
            self.current = Some(Current::new(at, subject, received));
        }
    }

    /// True if there is somebody to tell about this flow, or about the packet under way if there is no flow.
    #[must_use]
    pub(crate) fn follows(&self, id: Option<FlowId>) -> bool {
        self.is_current(id) || id.is_some_and(|id| self.followed.contains_key(&id))
    }

    fn is_current(&self, id: Option<FlowId>) -> bool {
        self.current.as_ref().is_some_and(|current| id.is_none() || current.subject.id == id)
    }

    /// Something happened to a flow, or to the packet under way if there is no flow.
    pub(crate) fn note(&mut self, at: Instant, id: Option<FlowId>, what: What) {
        if self.is_current(id)
            && let Some(current) = self.current.as_mut()
        {
            if current.notes.len() < MOST_NOTES {
                current.notes.push(what);
            }
            return;
        }
        let number = id.and_then(|id| self.followed.get(&id)).copied();
        if let Some(flow) = number.filter(|_| !self.order.drops || what.is_drop()) {
            self.order.sink.send(TraceEvent { at, flow, what });
        }
    }

    /// A flow is over.
    pub(crate) fn ended(&mut self, at: Instant, id: FlowId, key: FlowKey, record: ConnectionRecord) {
        let refused = record.reason.is_some();
        let what = What::End(Box::new(record));
        if self.follows(Some(id)) {
            return self.note(at, Some(id), what);
        }
        let subject = Subject { id: Some(id), key, open: true, of_service: true };
        if self.order.drops && refused && self.wants(&subject) {
            let packet = self.current.replace(Current::new(at, subject, vec![what]));
            self.finish(|_| false);
            self.current = packet;
        }
    }

    /// True if [`Tracer::ended`] is worth a record.
    #[must_use]
    pub(crate) fn wants_end(&self, id: FlowId, key: &FlowKey, refused: bool) -> bool {
        self.follows(Some(id)) || self.order.drops && refused && self.order.filter.matches(key)
    }

    /// The flow is no more; what still leaves of it is known by its keys.
    pub(crate) fn forget(&mut self, id: FlowId, keys: [FlowKey; 2]) {
        if let Some(current) = self.current.as_mut().filter(|current| current.subject.id == Some(id)) {
            current.gone = Some(keys);
        } else if let Some(number) = self.followed.remove(&id) {
            self.leave(number, keys);
        }
    }

    fn leave(&mut self, number: u32, keys: [FlowKey; 2]) {
        // A flow that never had a server has no second key.
        for key in keys.into_iter().filter(|key| key.protocol != 0) {
            self.tuples.insert(key, Tuple { number, over: true });
        }
    }

    /// A packet leaves that answers to packets with this key.
    pub(crate) fn sent(
        &mut self,
        at: Instant,
        id: Option<FlowId>,
        key: &FlowKey,
        what: impl FnOnce(&Self) -> What,
    ) {
        let number = id.and_then(|id| self.followed.get(&id)).copied();
        let number = number.or_else(|| self.tuples.get(key).map(|tuple| tuple.number));
        let Some(flow) = number else { return };
        let what = what(self);
        if !self.order.drops || what.is_drop() {
            self.order.sink.send(TraceEvent { at, flow, what });
        }
    }

    /// True if a packet is under way that [`Tracer::note`] without a flow is about.
    #[must_use]
    pub(crate) fn is_receiving(&self) -> bool {
        self.current.is_some()
    }

    /// What became of the packet under way.
    pub(crate) fn settle(&mut self, verdict: What) {
        let handed_over = matches!(verdict, What::Verdict { verdict: Verdict::HandOver(_), .. });
        if let Some(current) = self.current.as_mut() {
            current.notes.push(verdict);
        }
        // Whose packet it is the other worker knows.
        self.finish(|subject| handed_over && !subject.of_service);
    }

    /// Tells what was noted of the packet under way, unless it is `unwanted`.
    fn finish(&mut self, unwanted: impl FnOnce(&Subject) -> bool) {
        let Some(Current { at, subject, notes, gone }) = self.current.take() else { return };
        let quiet = self.order.drops && !notes.iter().any(What::is_drop);
        if quiet || unwanted(&subject) {
            return;
        }
        let Some(flow) = self.number(&subject).or_else(|| self.begin(at, &subject)) else { return };
        match (subject.id, gone) {
            (Some(id), None) => {
                self.followed.insert(id, flow);
                self.tuples.remove(&subject.key);
            }
            (Some(id), Some(keys)) => {
                self.followed.remove(&id);
                self.leave(flow, keys);
            }
            (None, _) => {
                self.tuples.entry(subject.key).or_insert(Tuple { number: flow, over: false });
            }
        }
        for what in notes {
            self.order.sink.send(TraceEvent { at, flow, what });
        }
    }

    /// A number for a flow that has none.
    fn begin(&mut self, at: Instant, subject: &Subject) -> Option<u32> {
        if self.taken >= self.order.flows {
            return None;
        }
        let flow = self.taken;
        self.taken += 1;
        let what = What::Begin { key: subject.key, open: subject.open };
        self.order.sink.send(TraceEvent { at, flow, what });
        Some(flow)
    }
}
