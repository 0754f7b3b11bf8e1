//! Why a flow goes where it goes: [`Choice`], for people and as JSON.

use std::fmt;
use std::net::IpAddr;

use dataplane::balance::{Balancer, Client};
use dataplane::policy::Selection;
use dataplane::snapshot::{Algorithm, FailAction, PoolId, Server, ServerId, Snapshot};
use serde::Serialize;

/// Who chose.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum By {
    /// A script, by `select` or `persist`.
    Script,
    /// The default of the virtual service.
    Default,
}

/// Where a flow is sent and which servers that means, at one moment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Choice {
    /// Who chose.
    pub by: By,
    /// Pool, pool group or server, with its name.
    pub target: String,
    /// How a server is found there.
    pub how: String,
    /// Servers that may get the flow, in the order in which they are tried, then the others that were looked at.
    pub servers: Vec<Candidate>,
    /// What happens if none of them takes it.
    pub otherwise: String,
}

/// A server that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Candidate {
    /// 1 is the one that gets the flow; `None`: it is not tried.
    pub place: Option<usize>,
    /// Address and port.
    pub server: String,
    /// Its pool.
    pub pool: String,
    /// `up`, or why it is not tried: `down`, `disabled`, `full`, `other family`, `not asked`.
    pub state: &'static str,
    /// Its weight.
    pub weight: u16,
    /// Its open flows.
    pub flows: u32,
}

impl Choice {
    /// What the engine makes of a selection now.
    #[must_use]
    pub fn of(
        snapshot: &Snapshot,
        balancer: &Balancer,
        selection: Selection,
        (client, vip): (IpAddr, IpAddr),
        by: By,
    ) -> Choice {
        let preference = balancer.preference(snapshot, selection, Client::reached_at(client, vip));
        let mut ids = preference.order.clone();
        for pool in pools(snapshot, selection) {
            let members = snapshot.pools.get(pool.index()).map(|pool| pool.servers.as_slice());
            ids.extend(members.unwrap_or_default().iter().filter(|id| !preference.order.contains(id)));
        }
        let servers = ids.iter().filter_map(|id| {
            let server = snapshot.servers.get(id.index())?;
            let place = preference.order.iter().position(|other| other == id).map(|place| place + 1);
            Some(candidate(snapshot, balancer, (*id, server), place, vip.is_ipv4()))
        });
        let (target, how) = described(snapshot, selection);
        Choice { by, target, how, servers: servers.collect(), otherwise: otherwise(preference.then) }
    }
}

/// The pools that a selection names.
fn pools(snapshot: &Snapshot, selection: Selection) -> Vec<PoolId> {
    match selection {
        Selection::Pool(pool) => vec![pool],
        Selection::PoolGroup(group) => {
            let members = snapshot.pool_groups.get(group.index()).map(|group| group.members.as_slice());
            members.unwrap_or_default().iter().map(|member| member.pool).collect()
        }
        Selection::Server(_) => Vec::new(),
    }
}

fn candidate(
    snapshot: &Snapshot,
    balancer: &Balancer,
    (id, server): (ServerId, &Server),
    place: Option<usize>,
    is_ipv4: bool,
) -> Candidate {
    let status = balancer.status(id);
    let state = match () {
        () if !status.healthy => "down",
        () if !status.enabled => "disabled",
        () if !balancer.is_available(id) => "full",
        () if place.is_some() => "up",
        () if server.address.is_ipv4() != is_ipv4 => "other family",
        () => "not asked",
    };
    Candidate {
        place,
        server: std::net::SocketAddr::new(server.address, server.port).to_string(),
        pool: pool_name(snapshot, server.pool),
        state,
        weight: server.weight,
        flows: status.flows,
    }
}

fn pool_name(snapshot: &Snapshot, pool: PoolId) -> String {
    snapshot.pools.get(pool.index()).map(|pool| pool.name.clone()).unwrap_or_default()
}

/// A selection in words, and how a server is found there.
fn described(snapshot: &Snapshot, selection: Selection) -> (String, String) {
    match selection {
        Selection::Pool(pool) => (format!("pool '{}'", pool_name(snapshot, pool)), algorithm(snapshot, pool)),
        Selection::PoolGroup(group) => {
            let group = snapshot.pool_groups.get(group.index());
            let members = group.map(|group| group.members.as_slice()).unwrap_or_default();
            let members = members.iter().map(|member| {
                let pool = pool_name(snapshot, member.pool);
                format!(
                    "'{pool}' priority {} ratio {} {}",
                    member.priority,
                    member.ratio,
                    algorithm(snapshot, member.pool)
                )
            });
            let how = members.collect::<Vec<_>>().join(", ");
            (format!("pool group '{}'", group.map(|group| group.name.as_str()).unwrap_or_default()), how)
        }
        Selection::Server(id) => {
            let pool = snapshot.servers.get(id.index()).map(|server| pool_name(snapshot, server.pool));
            let address = snapshot.server_address(id).map(|address| address.to_string());
            let target =
                format!("server {} of pool '{}'", address.unwrap_or_default(), pool.unwrap_or_default());
            (target, "that one and no other".to_owned())
        }
    }
}

fn algorithm(snapshot: &Snapshot, pool: PoolId) -> String {
    match snapshot.pools.get(pool.index()).map(|pool| pool.algorithm) {
        Some(Algorithm::RoundRobin) => "round robin by weight",
        Some(Algorithm::LeastConnections) => "fewest open flows by weight",
        Some(Algorithm::SourceIpHash) => "hash of the client's address",
        None => "",
    }
    .to_owned()
}

fn otherwise(action: FailAction) -> String {
    match action {
        FailAction::Reset => "the flow is reset",
        FailAction::Close => "the flow is closed",
        FailAction::Pool(_) => "another pool is asked",
    }
    .to_owned()
}

impl fmt::Display for Choice {
    /// Several lines, none of them ended.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let by = match self.by {
            By::Script => "by the script",
            By::Default => "the service's default",
        };
        write!(f, "{} ({by}): {}", self.target, self.how)?;
        for server in &self.servers {
            let place = server.place.map_or("-".to_owned(), |place| format!("{place}."));
            let Candidate { server, pool, state, weight, flows, .. } = server;
            write!(f, "\n{place:>4} {server} of '{pool}': {state}, weight {weight}, {flows} flows")?;
        }
        write!(f, "\n     otherwise {}", self.otherwise)
    }
}
