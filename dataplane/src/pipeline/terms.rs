//! What weir offers a client before its server is known.

use smoltcp::time::Duration;
use tcp::Segment;

use super::Pipeline;
use crate::parse::Headers;
use crate::policy::Policy;
use crate::snapshot::{PoolId, Service, ServiceId, Snapshot, Target};

/// Longest time that weir retransmits replayed bytes without an acknowledgement.
const REPLAY_TIMEOUT: Duration = Duration::from_secs(60);

/// What weir offers one client.
pub(super) struct Terms {
    pub(super) promise: tcp::Promise,
    pub(super) limits: tcp::Limits,
    /// Largest segment that passes the client's port.
    fits: u16,
}

impl Terms {
    /// What the client could receive must also pass its port, now from weir and later from the server.
    pub(super) fn fit(&self, syn: &mut Segment<'_>) {
        syn.options.mss = syn.options.mss.map(|mss| mss.min(self.fits));
    }
}

/// What is offered to all clients of a service.
#[derive(Clone, Copy, Debug)]
struct Offer {
    promise: tcp::Promise,
    limits: tcp::Limits,
    /// Largest segment, as far as the service has a say.
    mss: u16,
}

/// The offers of all services; made once per snapshot. A service without a pool has none.
#[derive(Debug)]
pub(super) struct Offers(Vec<Option<Offer>>);

impl Offers {
    pub(super) fn new(snapshot: &Snapshot) -> Self {
        Offers(snapshot.services.iter().map(|service| offer(snapshot, service)).collect())
    }

    /// The terms for a client behind a port by which segments of that size fit.
    fn terms(&self, service: ServiceId, most: u16) -> Option<Terms> {
        let Offer { mut promise, limits, mss } = *self.0.get(service.index())?.as_ref()?;
        let fits = most.min(mss);
        promise.mss = promise.mss.min(fits);
        Some(Terms { promise, limits, fits })
    }
}

impl<P: Policy> Pipeline<P> {
    /// What is offered to a client of this service.
    pub(super) fn terms(&self, headers: &Headers, service: ServiceId) -> Option<Terms> {
        let ip_header = if headers.key.source.is_v4() { 20 } else { 40 };
        let port = self.routes.lookup(headers.key.source)?.port;
        let mtu = self.ports.get(port.index())?.mtu;
        self.offers.terms(service, mtu.saturating_sub(ip_header + 20))
    }
}

fn offer(snapshot: &Snapshot, service: &Service) -> Option<Offer> {
    let pools = snapshot.pools_of(service);
    let promise = promise(snapshot, &pools)?;
    let pool = default_pool(snapshot, service).or_else(|| pools.first().copied())?;
    let limits = tcp::Limits {
        handshake_timeout: service.tcp.handshake_timeout,
        first_payload_timeout: service.tcp.first_payload_timeout,
        connect_timeout: snapshot.pools.get(pool.index())?.tcp.connect_timeout,
        replay_timeout: service.tcp.idle_timeout.min(REPLAY_TIMEOUT),
        buffer: service.tcp.buffer,
    };
    Some(Offer { promise, limits, mss: service.tcp.mss.unwrap_or(u16::MAX) })
}

/// What all of these pools can keep: the least of each.
fn promise(snapshot: &Snapshot, pools: &[PoolId]) -> Option<tcp::Promise> {
    let pools = pools.iter().filter_map(|id| snapshot.pools.get(id.index()));
    pools.map(|pool| pool.tcp.promise).reduce(|a, b| tcp::Promise {
        mss: a.mss.min(b.mss),
        window_scale: a.window_scale.zip(b.window_scale).map(|(a, b)| a.min(b)),
        sack: a.sack && b.sack,
        timestamps: a.timestamps && b.timestamps,
    })
}

fn default_pool(snapshot: &Snapshot, service: &Service) -> Option<PoolId> {
    match service.default? {
        Target::Pool(pool) => Some(pool),
        Target::PoolGroup(group) => {
            snapshot.pool_groups.get(group.index())?.members.first().map(|member| member.pool)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot::{Algorithm, FailAction};

    fn keeps(snapshot: &mut Snapshot, pool: PoolId, promise: tcp::Promise) {
        snapshot.pools[pool.index()].tcp.promise = promise;
    }

    #[test]
    fn a_promise_is_kept_by_every_pool_that_flows_may_end_in() {
        let mut snapshot = Snapshot::default();
        let names = ["default", "named", "member", "spare"];
        let pools = names.map(|name| snapshot.add_pool(name, Algorithm::RoundRobin, &["10.0.0.1:80"]));
        let whole = tcp::Promise { mss: 8960, window_scale: Some(9), sack: true, timestamps: true };
        keeps(&mut snapshot, pools[0], whole);
        keeps(&mut snapshot, pools[1], tcp::Promise { mss: 1460, ..whole });
        keeps(&mut snapshot, pools[2], tcp::Promise { window_scale: Some(7), ..whole });
        keeps(&mut snapshot, pools[3], tcp::Promise { sack: false, ..whole });
        let group = snapshot.add_group("group", &[(pools[2], 1, 1)]);
        let set = snapshot.add_set(&[pools[1]], &[group]);
        snapshot.add_service("plain", Some(Target::Pool(pools[0])), 1);
        snapshot.add_service("scripted", Some(Target::Pool(pools[0])), 1);
        snapshot.services[1].script_sets = vec![set];
        snapshot.add_service("without a pool", None, 1);
        let promise = |snapshot: &Snapshot, service| {
            Offers::new(snapshot).terms(ServiceId(service), 9000).map(|terms| terms.promise)
        };
        assert_eq!(promise(&snapshot, 0), Some(whole));
        let least = tcp::Promise { mss: 1460, window_scale: Some(7), ..whole };
        assert_eq!(promise(&snapshot, 1), Some(least));
        assert_eq!(promise(&snapshot, 2), None);

        // Where a pool without a server that is up sends its flows, the client's connection goes, too.
        snapshot.pools[pools[0].index()].fail_action = FailAction::Pool(pools[3]);
        assert_eq!(promise(&snapshot, 0), Some(tcp::Promise { sack: false, ..whole }));
        assert_eq!(promise(&snapshot, 1), Some(tcp::Promise { sack: false, ..least }));
    }

    #[test]
    fn a_segment_fits_the_port_and_the_service() {
        let mut snapshot = Snapshot::default();
        let pool = snapshot.add_pool("pool", Algorithm::RoundRobin, &["10.0.0.1:80"]);
        snapshot.add_service("service", Some(Target::Pool(pool)), 1);
        let sizes = |snapshot: &Snapshot, most| {
            let terms = Offers::new(snapshot).terms(ServiceId(0), most).unwrap();
            let mut syn = Segment::default();
            syn.options.mss = Some(8960);
            terms.fit(&mut syn);
            (terms.promise.mss, syn.options.mss)
        };
        assert_eq!(sizes(&snapshot, 9000), (1460, Some(8960)));
        assert_eq!(sizes(&snapshot, 1300), (1300, Some(1300)));
        snapshot.services[0].tcp.mss = Some(1200);
        assert_eq!(sizes(&snapshot, 1300), (1200, Some(1200)));
    }
}
