//! The configuration as the core means it: validated, immutable, everything referred to by index.
//!
//! `config` builds it from TOML; tests build it by hand. Owned by an `Arc`, shared by workers and control, never
//! changed after that, but for [`Snapshot::tokens`]. What changes at run time (server up or down) lives in
//! [`crate::balance::Balancer`]. A reload makes another one, in which nothing has lost its place: [`crate::overlay`].

mod limits;
mod network;
mod pool;
mod service;

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};

use crate::io::PortId;
use crate::overlay::Retired;
use crate::tokens::SharedTokens;
pub use limits::Limits;
pub use network::{Interface, Prefix, Route, SnatPool};
pub use pool::{
    Algorithm, FailAction, Monitor, MonitorKind, Pool, PoolGroup, PoolGroupMember, PoolTcp, Server, Target,
};
pub use service::{
    Fallback, PortRange, Protocol, ScriptSet, Service, ServiceDatascript, ServiceTcp, ServiceUdp, Source,
    SynCookies, TableLimits, TcpProfile,
};

macro_rules! index_type {
    ($(#[$doc:meta] $name:ident in $list:literal),* $(,)?) => { $(
        #[$doc]
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(pub u16);
        impl $name {
            #[doc = concat!("The place in [`Snapshot::", $list, "`].")]
            #[must_use]
            pub fn index(self) -> usize { usize::from(self.0) }
        }
    )* };
}

index_type! {
    /// A pool.
    PoolId in "pools",
    /// A server: one member of one pool (the same address in two pools is two servers).
    ServerId in "servers",
    /// A pool group.
    PoolGroupId in "pool_groups",
    /// A virtual service.
    ServiceId in "services",
    /// A DataScript set.
    ScriptSetId in "script_sets",
}

/// One whole configuration.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// Ports, by [`PortId`].
    pub interfaces: Vec<Interface>,
    /// Static routes; the longest prefix wins. Connected routes come from [`Interface::addresses`].
    pub routes: Vec<Route>,
    /// Source addresses for full NAT, which all services do that do not preserve the client's address.
    pub snat: SnatPool,
    /// By [`PoolId`].
    pub pools: Vec<Pool>,
    /// By [`ServerId`].
    pub servers: Vec<Server>,
    /// By [`PoolGroupId`].
    pub pool_groups: Vec<PoolGroup>,
    /// By [`ServiceId`].
    pub services: Vec<Service>,
    /// By [`ScriptSetId`].
    pub script_sets: Vec<ScriptSet>,
    /// Bounds of everything that grows.
    pub limits: Limits,
    /// What the workers share of [`Server::max_connections`].
    pub tokens: SharedTokens,
    /// What only earlier configurations had; empty but after [`Snapshot::overlaid`].
    pub retired: Retired,
}

impl Snapshot {
    /// True if servers of any service see their clients' own addresses.
    #[must_use]
    pub fn preserves_clients(&self) -> bool {
        self.services.iter().any(|service| service.preserve_client_ip)
    }

    /// The pools that flows of a service may end in: those of its default and those attached to its script sets, and where
    /// their `fail_action` leads. Some more than once.
    #[must_use]
    pub fn pools_of(&self, service: &Service) -> Vec<PoolId> {
        let sets = service.script_sets.iter().filter_map(|id| self.script_sets.get(id.index()));
        let groups = sets.clone().flat_map(|set| set.pool_groups.iter().copied());
        let groups = groups.chain(match service.default {
            Some(Target::PoolGroup(group)) => Some(group),
            _ => None,
        });
        let members = groups.filter_map(|id| self.pool_groups.get(id.index()));
        let members = members.flat_map(|group| group.members.iter().map(|member| member.pool));
        let default = match service.default {
            Some(Target::Pool(pool)) => Some(pool),
            _ => None,
        };
        let mut pools: Vec<PoolId> = default
            .into_iter()
            .chain(sets.flat_map(|set| set.pools.iter().copied()))
            .chain(members)
            .collect();
        let mut place = 0;
        while let Some(pool) = pools.get(place).and_then(|id| self.pools.get(id.index())) {
            if let FailAction::Pool(next) = pool.fail_action
                && !pools.contains(&next)
            {
                pools.push(next);
            }
            place += 1;
        }
        pools
    }

    /// For each service the one whose tables it has: the first of its name, itself but for one that a reload has changed.
    #[must_use]
    pub fn table_owners(&self) -> Vec<ServiceId> {
        let Retired { spare, given, .. } = &self.retired;
        let mut ids: Vec<ServiceId> = self.services.iter().zip(0..).map(|(_, id)| ServiceId(id)).collect();
        let mut owners = ids.clone();
        ids.retain(|id| !spare.services.contains_key(id));
        // A later state may have been given an earlier place.
        ids.sort_by_key(|id| (given.services.get(id).copied().unwrap_or(0), *id));
        let mut first: HashMap<&str, ServiceId> = HashMap::new();
        for id in ids {
            if let (Some(service), Some(owner)) = (self.services.get(id.index()), owners.get_mut(id.index()))
            {
                *owner = *first.entry(service.name.as_str()).or_insert(id);
            }
        }
        owners
    }

    /// The pool named `name`.
    #[must_use]
    pub fn pool_named(&self, name: &str) -> Option<PoolId> {
        let at = self.pools.iter().position(|p| p.name == name)?;
        u16::try_from(at).ok().map(PoolId)
    }

    /// The pool group named `name`.
    #[must_use]
    pub fn pool_group_named(&self, name: &str) -> Option<PoolGroupId> {
        let at = self.pool_groups.iter().position(|g| g.name == name)?;
        u16::try_from(at).ok().map(PoolGroupId)
    }

    /// Where a server listens.
    #[must_use]
    pub fn server_address(&self, server: ServerId) -> Option<SocketAddr> {
        self.servers.get(server.index()).map(|s| SocketAddr::new(s.address, s.port))
    }

    /// True if flows may have addresses of IPv6, which take room of their own.
    #[must_use]
    pub fn expects_ipv6(&self) -> bool {
        let vips = self.services.iter().flat_map(|service| &service.addresses);
        let servers = self.servers.iter().map(|server| &server.address);
        vips.chain(servers).chain(&self.snat.addresses).any(|address| address.is_ipv6())
    }

    /// The port and the address of the interface whose subnet holds `address`.
    #[must_use]
    pub fn connected(&self, address: IpAddr) -> Option<(PortId, IpAddr)> {
        self.interfaces.iter().zip(0u8..).find_map(|(interface, port)| {
            let own = interface.addresses.iter().find(|p| p.contains(address))?;
            Some((PortId(port), own.address))
        })
    }
}
