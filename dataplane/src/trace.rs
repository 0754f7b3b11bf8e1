//! What happens to the packets of some flows, stage by stage, for an operator who wants to know.
//!
//! Control makes a [`pipe`] and gives a worker an [`Order`] with its writing end. From then on the worker's pipeline has a
//! [`Tracer`]: whatever belongs to a flow that the order is about leaves as [`TraceEvent`]s by the pipe, as owned copies,
//! until the time of the order is over or nobody holds the reading end any more. Bursts take another way through the
//! pipeline meanwhile (each packet by itself, `pipeline/traced.rs`), with the same decisions and the same counters; without a
//! tracer a burst pays for one comparison.
//!
//! Everything is bounded: flows followed, events and bytes in the pipe. What finds the pipe full is lost, counted, and
//! told with the next event that control reads.

mod event;
mod filter;
mod pipe;
mod shape;
mod tracer;

pub use event::{Left, ScriptEnd, TraceEvent, What, Why};
pub use filter::Filter;
pub use pipe::{MOST_EVENTS, TraceSink, TraceSource, pipe};
pub(crate) use shape::tuple;
pub use shape::{SegmentShape, Shape};
pub(crate) use tracer::Subject;
pub use tracer::Tracer;

use smoltcp::time::Duration;

/// What a worker is to follow, how far, and where it tells.
#[derive(Debug)]
pub struct Order {
    /// Which flows.
    pub filter: Filter,
    /// The first so many of them on this worker; packets that open no flow count as a flow of their own, those of the
    /// same tuple as one.
    pub flows: u32,
    /// For how long.
    pub time: Duration,
    /// Also flows that exist already.
    pub open: bool,
    /// Only packets that are dropped and flows that are refused, with what led to it.
    pub drops: bool,
    /// So many bytes of each packet are copied, as received and as sent.
    pub frames: Option<usize>,
    /// Each line of the scripts.
    pub lines: bool,
    /// Where events go.
    pub sink: TraceSink,
}
