//! What control asks of a worker, and what the worker answers.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use hdrhistogram::Histogram;
use smoltcp::time::Instant;

use super::{FlowView, PoolView, PortView, ServerView, TableEntryView, TableStatsView};
use crate::balance::Balancer;
use crate::counters::Counters;
use crate::overlay::InUse;
use crate::policy::{Event, ScriptReport};
use crate::script_profile::ScriptProfile;
use crate::snapshot::{ScriptSetId, ServerId, ServiceId, Snapshot};
use crate::trace::Order;

/// What control asks of a worker.
#[derive(Debug)]
pub enum Command {
    /// What the monitors found. Sent on changes only.
    ServerHealth {
        /// The server.
        server: ServerId,
        /// All monitors of its pool hold.
        up: bool,
    },
    /// The operator's wish.
    ServerEnabled {
        /// The server.
        server: ServerId,
        /// `false`: no new flows; those that exist go on.
        enabled: bool,
    },
    /// Begin a profile of a script; [`Query::EndProfile`] ends it.
    StartProfile {
        /// The set.
        set: ScriptSetId,
        /// The event.
        event: Event,
    },
    /// Make ready for this configuration, which is laid over the present one ([`Snapshot::overlaid`]);
    /// [`Answer::Prepared`].
    Prepare(Arc<Snapshot>, Reply),
    /// Go on with the configuration that was prepared; [`Answer::Adopted`].
    Adopt(Reply),
    /// Forget what was prepared.
    Abandon,
    /// A question of the operator.
    Query(Query, Reply),
    /// Follow flows; takes the place of an order before.
    Trace(Box<Order>),
    /// Take no new flows, write the records of the ones that exist, return from the worker's loop.
    Stop,
}

/// What an operator may want to know from a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Query {
    /// [`Answer::Counters`].
    Counters,
    /// [`Answer::Flows`].
    Flows {
        /// At most that many.
        limit: usize,
        /// Only those of this service.
        service: Option<ServiceId>,
        /// Only those of this client.
        client: Option<IpAddr>,
    },
    /// [`Answer::Pools`].
    Pools,
    /// [`Answer::Tables`].
    Tables {
        /// Only those of this service.
        service: Option<ServiceId>,
        /// At most that many entries.
        limit: usize,
    },
    /// [`Answer::Latency`].
    Latency,
    /// [`Answer::Scripts`].
    Scripts,
    /// [`Answer::Ports`].
    Ports,
    /// [`Answer::Profile`]; ends it.
    EndProfile,
    /// [`Answer::Pong`].
    Ping,
    /// [`Answer::Time`].
    Time,
    /// [`Answer::InUse`].
    InUse {
        /// Of connections from this place on: 0, then what the answer says. `u32::MAX`: only what is counted, whatever the
        /// number of connections and flows.
        first: u32,
    },
    /// [`Answer::Live`].
    Live {
        /// The entries of this service's tables.
        service: ServiceId,
        /// At most that many.
        limit: usize,
    },
}

/// Where the answer to a [`Query`] goes.
#[derive(Debug)]
pub struct Reply(SyncSender<Answer>);

impl Reply {
    /// A reply and where it will arrive.
    #[must_use]
    pub fn pair() -> (Reply, Receiver<Answer>) {
        let (sender, receiver) = sync_channel(1);
        (Reply(sender), receiver)
    }

    /// Delivers the answer without waiting; nobody may be listening any more.
    pub fn send(self, answer: Answer) {
        // A full or closed channel means that the asker has given up: nothing is left to do.
        let _ = self.0.try_send(answer);
    }
}

/// A worker's answer: a copy of what it knew at that moment.
#[derive(Debug)]
pub enum Answer {
    /// All counters.
    Counters(Box<Counters>),
    /// Flows, in no particular order.
    Flows(Vec<FlowView>),
    /// Every server of every pool, in the order of [`Snapshot::servers`], and every pool, in the order of
    /// [`Snapshot::pools`].
    Pools(Vec<ServerView>, Vec<PoolView>),
    /// Entries in no particular order, and the statistics of every service asked for.
    Tables(Vec<TableEntryView>, Vec<TableStatsView>),
    /// Nanoseconds from rx burst to tx burst.
    Latency(Histogram<u64>),
    /// One per script.
    Scripts(Vec<ScriptReport>),
    /// One per port, in the order of [`Snapshot::interfaces`].
    Ports(Vec<PortView>),
    /// What was seen of the script since [`Command::StartProfile`].
    Profile(ScriptProfile),
    /// It runs.
    Pong,
    /// The worker's time of this round.
    Time(Instant),
    /// What of [`Snapshot::retired`] the worker names, as far as it has looked, and where to go on, if not all has been looked at.
    InUse(Box<InUse>, Option<u32>),
    /// Whether it is ready; the error is for the operator.
    Prepared(Result<(), String>),
    /// New flows begin by the new configuration; `false`: none was prepared.
    Adopted(bool),
    /// What decisions depend on besides the configuration.
    Live(Box<Live>),
}

/// What decisions about flows of a service depend on besides the configuration, as it is now on one worker.
#[derive(Debug)]
pub struct Live {
    /// A copy to be asked, or [imitated](Balancer::imitate).
    pub balancer: Balancer,
    /// Entries of the service's tables, in no particular order.
    pub entries: Vec<TableEntryView>,
    /// Entries that there are.
    pub held: usize,
    /// The [generation](crate::overlay::Retired::generation) of the configuration by which it goes.
    pub generation: u32,
}
