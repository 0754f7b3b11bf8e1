//! Pools, pool groups and servers by the names that scripts use.
//!
//! A script may name what its set is attached to. Beyond that the virtual service's own default pool or group may be
//! named too, for reading and for selecting: published scripts select the default pool without attaching it.

use std::net::IpAddr;

use super::{ApiError, argument};
use crate::policy::{Context, Event, Record, Selection};
use crate::snapshot::{
    Pool, PoolGroupId, PoolId, ScriptSet, ScriptSetId, ServerId, ServiceId, Snapshot, Target,
};

impl<'a> Context<'a> {
    fn set(&self, set: ScriptSetId) -> Option<&'a ScriptSet> {
        self.snapshot.script_sets.get(set.index())
    }

    pub(super) fn default_target(&self) -> Option<Target> {
        self.service()?.default
    }

    /// A pool that the scripts of `set` may name.
    pub(super) fn attached_pool(&self, set: ScriptSetId, name: &str) -> Result<(PoolId, &'a Pool), ApiError> {
        let attached = self.set(set).map_or(&[][..], |s| &s.pools);
        // There may be thousands of pools; few are attached.
        let pool = |id: PoolId| Some((id, self.snapshot.pools.get(id.index())?));
        if let Some(found) = attached.iter().filter_map(|id| pool(*id)).find(|(_, pool)| pool.name == name) {
            return Ok(found);
        }
        let Some((id, pool)) = self.snapshot.pool_named(name).and_then(pool) else {
            let names = attached.iter().filter_map(|p| self.snapshot.pools.get(p.index()));
            let hint = list("attached", names.map(|p| p.name.clone()));
            return Err(ApiError::Unknown { kind: "pool", name: name.to_owned(), hint });
        };
        if self.default_target() == Some(Target::Pool(id)) {
            Ok((id, pool))
        } else {
            Err(ApiError::NotAttached { kind: "pool", name: name.to_owned() })
        }
    }

    fn attached_group(&self, set: ScriptSetId, name: &str) -> Result<PoolGroupId, ApiError> {
        let attached = self.set(set).map_or(&[][..], |s| &s.pool_groups);
        let Some(id) = self.snapshot.pool_group_named(name) else {
            let names = attached.iter().filter_map(|g| self.snapshot.pool_groups.get(g.index()));
            let hint = list("attached", names.map(|g| g.name.clone()));
            return Err(ApiError::Unknown { kind: "pool group", name: name.to_owned(), hint });
        };
        if attached.contains(&id) || self.default_target() == Some(Target::PoolGroup(id)) {
            Ok(id)
        } else {
            Err(ApiError::NotAttached { kind: "pool group", name: name.to_owned() })
        }
    }

    /// The pools of a target: itself, or the members of the group.
    pub(super) fn pools_of(&self, target: Target) -> impl Iterator<Item = PoolId> + use<'a> {
        let (pool, group) = match target {
            Target::Pool(pool) => (Some(pool), None),
            Target::PoolGroup(group) => (None, self.snapshot.pool_groups.get(group.index())),
        };
        let members = group.into_iter().flat_map(|g| &g.members);
        pool.into_iter().chain(members.map(|m| m.pool))
    }

    /// All pools that a script may have sent a flow to: the default ones, then the attached ones. Some come twice.
    pub(super) fn reachable_pools(&self, set: ScriptSetId) -> impl Iterator<Item = PoolId> + use<'a, '_> {
        let default = self.default_target().into_iter().flat_map(|target| self.pools_of(target));
        let set = self.set(set);
        let pools = set.into_iter().flat_map(|s| s.pools.iter().copied());
        let groups = set.into_iter().flat_map(|s| s.pool_groups.iter().copied());
        default.chain(pools).chain(groups.flat_map(|group| self.pools_of(Target::PoolGroup(group))))
    }

    /// The first member of a pool, in configuration order, with this address (in any spelling) or host name, and
    /// with this port if there is one.
    fn member(&self, pool: &'a Pool, server: &str, port: Option<u16>) -> Option<ServerId> {
        let address = server.parse::<IpAddr>().ok().map(|a| a.to_canonical());
        pool.servers.iter().copied().find(|id| {
            self.snapshot.servers.get(id.index()).is_some_and(|s| {
                let named = address == Some(s.address.to_canonical())
                    || s.hostname.as_deref().is_some_and(|name| name.eq_ignore_ascii_case(server));
                named && port.is_none_or(|port| port == s.port)
            })
        })
    }

    /// `avi.pool.get_server_status`: true only if the server is up and enabled; false for one that is not, and for
    /// one that the pool does not have.
    ///
    /// # Errors
    /// Unknown or unattached pool.
    pub fn server_status(
        &self,
        set: ScriptSetId,
        pool: &str,
        server: &str,
        port: u16,
    ) -> Result<bool, ApiError> {
        let (_, pool) = self.attached_pool(set, pool)?;
        Ok(self.member(pool, server, Some(port)).is_some_and(|id| self.balancer.is_up(id)))
    }

    /// `avi.pool.get_servers`: how many servers of the pool are up, and how many it has. Without a pool: of the
    /// service's default pool, or of all pools of its default group.
    ///
    /// # Errors
    /// Unknown or unattached pool, or none given and the service has no default.
    pub fn servers(&self, set: ScriptSetId, pool: Option<&str>) -> Result<(usize, usize), ApiError> {
        let target = match pool {
            Some(name) => Target::Pool(self.attached_pool(set, name)?.0),
            None => match self.default_target() {
                Some(target) => target,
                None => return argument("the virtual service has no default pool: name one".to_owned()),
            },
        };
        let counts = self.pools_of(target).map(|pool| self.balancer.servers_up(self.snapshot, pool));
        Ok(counts.fold((0, 0), |(up, total), (u, t)| (up + u, total + t)))
    }

    /// `avi.pool.select`: the flow goes to this pool, or to exactly this server of it (address in any spelling, or
    /// host name; without a port the first member of that name in configuration order). The last call of the run
    /// that succeeds wins. Whether anything is up there is found out when the run is over.
    ///
    /// # Errors
    /// In the response event; unknown or unattached pool; unknown server; a port without a server.
    pub fn select_pool(
        &mut self,
        set: ScriptSetId,
        pool: &str,
        server: Option<&str>,
        port: Option<u16>,
    ) -> Result<(), ApiError> {
        self.request_only()?;
        let (id, config) = self.attached_pool(set, pool)?;
        self.record.selection = Some(match (server, port) {
            (None, None) => Selection::Pool(id),
            (None, Some(port)) => return argument(format!("port {port} is given without a server")),
            (Some(server), port) => Selection::Server(
                self.member(config, server, port)
                    .ok_or_else(|| unknown_server(self.snapshot, config, server, port))?,
            ),
        });
        Ok(())
    }

    /// `avi.pool.select` of a pool by its name alone, where that is one of those attached to the set. False where it is not,
    /// and where pools cannot be selected: [`Context::select_pool`] knows more, and says why not.
    #[inline]
    pub fn select_attached_pool(&mut self, set: ScriptSetId, name: &[u8]) -> bool {
        let named = |id: &&PoolId| {
            let pool = self.snapshot.pools.get(id.index());
            pool.is_some_and(|pool| pool.name.as_bytes() == name)
        };
        let attached = self.set(set).and_then(|set| set.pools.iter().find(named));
        let selected = attached.filter(|_| self.event == Event::Request);
        if let Some(pool) = selected {
            self.record.selection = Some(Selection::Pool(*pool));
        }
        selected.is_some()
    }

    /// `avi.poolgroup.select`: the flow goes to this group, by priority and ratio.
    ///
    /// # Errors
    /// In the response event; unknown or unattached group.
    pub fn select_pool_group(&mut self, set: ScriptSetId, name: &str) -> Result<(), ApiError> {
        self.request_only()?;
        self.record.selection = Some(Selection::PoolGroup(self.attached_group(set, name)?));
        Ok(())
    }
}

/// Where other servers may be looked for when connecting to the one that was picked has failed: the target that it
/// was picked from. `None` if a script pinned the server, or nothing was chosen.
#[must_use]
pub fn retry_target(snapshot: &Snapshot, service: ServiceId, record: &Record) -> Option<Target> {
    match record.selection {
        None => snapshot.services.get(service.index())?.default,
        Some(Selection::Pool(pool)) => Some(Target::Pool(pool)),
        Some(Selection::PoolGroup(group)) => Some(Target::PoolGroup(group)),
        Some(Selection::Server(server)) => {
            record.persist.as_ref().filter(|p| p.server == Some(server))?;
            snapshot.servers.get(server.index()).map(|s| Target::Pool(s.pool))
        }
    }
}

fn unknown_server(snapshot: &Snapshot, pool: &Pool, server: &str, port: Option<u16>) -> ApiError {
    let members = pool.servers.iter().filter_map(|&id| snapshot.server_address(id));
    let hint = list(&format!("servers of pool '{}'", pool.name), members.map(|m| m.to_string()));
    let name = match port {
        Some(port) => format!("{server} port {port}"),
        None => server.to_owned(),
    };
    ApiError::Unknown { kind: "server", name, hint }
}

/// ` (what: a, b, c)` with at most 8 names; empty without any.
fn list(what: &str, names: impl Iterator<Item = String>) -> String {
    const SHOWN: usize = 8;
    let mut names: Vec<String> = names.take(SHOWN + 1).collect();
    if names.is_empty() {
        return String::new();
    }
    if names.len() > SHOWN {
        names.truncate(SHOWN);
        names.push("...".to_owned());
    }
    format!(" ({what}: {})", names.join(", "))
}
