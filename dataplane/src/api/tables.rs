//! Key-value tables and persistence, which is an entry of the default table: key -> `"<server ip>-<server port>"`.

use std::net::{IpAddr, SocketAddr};

use smoltcp::time::Instant;

use super::{ApiError, argument};
use crate::balance::{Client, Pick};
use crate::policy::{Context, Persist, Record, Selection};
use crate::snapshot::{PoolId, ScriptSetId, ServerId, ServiceId, Snapshot, Target};
use crate::table::{DEFAULT_LIFETIME_S, TableStore};

impl Context<'_> {
    /// `avi.vs.table_insert`: adds an entry for `lifetime` seconds (default 300, raised to at least 300). A live key
    /// keeps its value and lives at least that long from now; also true. False: no room, or too long; counted.
    ///
    /// # Errors
    /// A lifetime that is zero, negative or not a finite number.
    pub fn table_insert(
        &mut self,
        table: Option<&[u8]>,
        key: &[u8],
        value: &[u8],
        lifetime: Option<f64>,
    ) -> Result<bool, ApiError> {
        let lifetime = lifetime_s(lifetime)?;
        Ok(self.tables.insert(self.now, self.facts.service, table, key, value, lifetime).stored())
    }

    /// `avi.vs.table_lookup`: value and seconds left after `exten` seconds (default 300) were added to the entry's
    /// life; 0 adds nothing. `None`: no live entry.
    ///
    /// # Errors
    /// An extension that is negative or not a finite number.
    pub fn table_lookup(
        &mut self,
        table: Option<&[u8]>,
        key: &[u8],
        exten: Option<f64>,
    ) -> Result<Option<(&[u8], u64)>, ApiError> {
        let exten = match exten {
            None => DEFAULT_LIFETIME_S,
            Some(s) if s.is_finite() && s >= 0.0 => whole_seconds(s),
            Some(s) => return argument(format!("lifetime extension {s} is not 0 or a number of seconds")),
        };
        Ok(self.tables.lookup(self.now, self.facts.service, table, key, exten))
    }

    /// `avi.vs.table_refresh`: the entry lives until `exten` seconds (default 300) from now if that is later. True
    /// if the key was there. An extension that is not positive changes nothing.
    ///
    /// # Errors
    /// None today.
    pub fn table_refresh(
        &mut self,
        table: Option<&[u8]>,
        key: &[u8],
        exten: Option<f64>,
    ) -> Result<bool, ApiError> {
        let exten = exten.map_or(DEFAULT_LIFETIME_S, whole_seconds);
        Ok(self.tables.refresh(self.now, self.facts.service, table, key, exten))
    }

    /// `avi.vs.table_remove`: ends an entry, if there is one.
    pub fn table_remove(&mut self, table: Option<&[u8]>, key: &[u8]) {
        self.tables.remove(self.now, self.facts.service, table, key);
    }

    /// `avi.vs.persist`: selects the server that the default table holds for `key` if it is up and not full, and renews the
    /// entry; else balances at once in `pool` (or the service's default) and stores what was chosen.
    ///
    /// The entry's server is looked for in `pool`, or without `pool` in the service's default and in what is
    /// attached to the set. When no server is up there is no new entry, and the selection becomes the pool, so that
    /// the flow fails as any other. When the service has no default and no pool is given, nothing is selected: a
    /// later `select` decides, and [`record_persistence`] writes the entry. On a flow that has its server already
    /// the entry records that one.
    ///
    /// # Errors
    /// In the response event; unknown or unattached pool; a lifetime that is zero, negative or not a finite number.
    pub fn persist(
        &mut self,
        set: ScriptSetId,
        key: &[u8],
        lifetime: Option<f64>,
        pool: Option<&str>,
    ) -> Result<(), ApiError> {
        self.request_only()?;
        let lifetime = lifetime_s(lifetime)?;
        let pool = pool.map(|name| self.attached_pool(set, name)).transpose()?.map(|(id, _)| id);
        let persist = self.record.persist.insert(Persist { key: key.to_vec(), lifetime, server: None });
        if let Some(server) = self.facts.server {
            persist.server = Some(server);
            record_persistence(self.now, self.snapshot, self.tables, self.facts.service, self.record, server);
            return Ok(());
        }
        if let Some(server) = self.persisted_server(set, key, pool) {
            self.tables.refresh(self.now, self.facts.service, None, key, lifetime);
            self.select_persistent(server);
            return Ok(());
        }
        let Some(target) = pool.map(Target::Pool).or(self.default_target()) else { return Ok(()) };
        let client = Client::reached_at(self.facts.key.source.ip(), self.facts.key.destination.ip());
        match self.balancer.pick(self.snapshot, target, client, &[]) {
            Pick::Server(server) => {
                self.select_persistent(server);
                record_persistence(
                    self.now,
                    self.snapshot,
                    self.tables,
                    self.facts.service,
                    self.record,
                    server,
                );
            }
            Pick::Failed(_) | Pick::Full(..) => {
                self.record.selection = Some(match target {
                    Target::Pool(pool) => Selection::Pool(pool),
                    Target::PoolGroup(group) => Selection::PoolGroup(group),
                });
            }
        }
        Ok(())
    }

    fn select_persistent(&mut self, server: ServerId) {
        self.record.selection = Some(Selection::Server(server));
        if let Some(persist) = &mut self.record.persist {
            persist.server = Some(server);
        }
    }

    /// The server of a live entry, if it is up and not full, of the VIP's address family, and one of those allowed.
    fn persisted_server(&mut self, set: ScriptSetId, key: &[u8], pool: Option<PoolId>) -> Option<ServerId> {
        let (value, _) = self.tables.lookup(self.now, self.facts.service, None, key, 0)?;
        let address = parse_server(value)?;
        if address.is_ipv4() != self.facts.key.destination.is_v4() {
            return None;
        }
        let in_pool = |pool: PoolId| {
            let servers = &self.snapshot.pools.get(pool.index())?.servers;
            let at_address = |&id: &ServerId| self.snapshot.server_address(id) == Some(address);
            servers.iter().copied().filter(at_address).find(|&id| self.balancer.is_available(id))
        };
        match pool {
            Some(pool) => in_pool(pool),
            None => self.reachable_pools(set).find_map(in_pool),
        }
    }
}

/// Writes the server that a flow finally uses into the entry that its script's `persist` asked for; nothing if it
/// did not call it. An entry that names the server already only has its lifetime renewed. The pipeline calls this
/// when the server has accepted the flow.
pub fn record_persistence(
    now: Instant,
    snapshot: &Snapshot,
    tables: &mut TableStore,
    service: ServiceId,
    record: &Record,
    server: ServerId,
) {
    let (Some(persist), Some(address)) = (&record.persist, snapshot.server_address(server)) else { return };
    let (key, lifetime) = (persist.key.as_slice(), persist.lifetime);
    if let Some((value, _)) = tables.lookup(now, service, None, key, 0)
        && parse_server(value) == Some(address)
    {
        tables.refresh(now, service, None, key, lifetime);
        return;
    }
    let value = format!("{}-{}", address.ip(), address.port());
    tables.replace(now, service, None, key, value.as_bytes(), lifetime);
}

/// Removes the entry that a script's `persist` asked for, if it did: the flow found no server.
pub fn forget_persistence(now: Instant, tables: &mut TableStore, service: ServiceId, record: &Record) {
    if let Some(persist) = &record.persist {
        tables.remove(now, service, None, &persist.key);
    }
}

/// `"<ip>-<port>"`.
fn parse_server(value: &[u8]) -> Option<SocketAddr> {
    let (ip, port) = std::str::from_utf8(value).ok()?.rsplit_once('-')?;
    Some(SocketAddr::new(ip.parse::<IpAddr>().ok()?, port.parse().ok()?))
}

/// A lifetime for an entry; too small ones are raised, and counted, by the table.
fn lifetime_s(lifetime: Option<f64>) -> Result<u32, ApiError> {
    match lifetime {
        None => Ok(DEFAULT_LIFETIME_S),
        Some(s) if s.is_finite() && s > 0.0 => Ok(whole_seconds(s)),
        Some(s) => argument(format!("lifetime {s} is not a positive number of seconds")),
    }
}

/// Without its fraction, between 0 (also for what is not a number) and `u32::MAX`.
fn whole_seconds(seconds: f64) -> u32 {
    seconds as u32
}
