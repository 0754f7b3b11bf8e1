//! What a caller sets and sees: servers, tables, records, runs.

use dataplane::channel::{ConnectionRecord, FlowView, Live, TableEntryView};
use dataplane::counters::Counters;
use dataplane::report;
use dataplane::snapshot::{PoolId, ServerId, ServiceId};
use dataplane::table::{Inserted, MINIMUM_LIFETIME_S};
use smoltcp::time::Duration;

use crate::observed::{Observed, Run};
use crate::servers::{Behaviour, Host};
use crate::world::Lab;

/// How a server is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServerState {
    /// Its monitors find it well, and it takes who comes.
    Up,
    /// Its monitors have found that it is gone, and it is.
    Down,
    /// The operator lets it take no new flows.
    Disabled,
    /// It refuses connections, and its monitors have not found out yet.
    Refusing,
    /// It answers nothing, and its monitors have not found out yet.
    Silent,
}

impl Lab {
    /// Sets how a server is: what weir thinks of it, and what its host does.
    pub fn set_server(&mut self, server: ServerId, state: ServerState) {
        let configured = self.snapshot().servers.get(server.index()).is_some_and(|server| server.enabled);
        let (healthy, enabled, behaviour) = match state {
            ServerState::Up => (true, true, Behaviour::Accept),
            ServerState::Down => (false, configured, Behaviour::Silent),
            ServerState::Disabled => (true, false, Behaviour::Accept),
            ServerState::Refusing => (true, configured, Behaviour::Refuse),
            ServerState::Silent => (true, configured, Behaviour::Silent),
        };
        let balancer = self.worker.pipeline_mut().balancer_mut();
        balancer.set_health(server, healthy);
        balancer.set_enabled(server, enabled);
        let host = Host { behaviour, ..self.host(server) };
        self.set_host(server, host);
    }

    /// Sets how all servers of a pool are.
    pub fn set_pool(&mut self, pool: PoolId, state: ServerState) {
        let servers = self.snapshot().pools.get(pool.index()).map(|pool| pool.servers.clone());
        for server in servers.unwrap_or_default() {
            self.set_server(server, state);
        }
    }

    /// Makes servers and tables like those of a weir that runs; its hosts still take whoever comes.
    pub fn imitate(&mut self, live: &Live) {
        let now = self.now();
        let pipeline = self.worker.pipeline_mut();
        pipeline.balancer_mut().imitate(&live.balancer);
        for entry in &live.entries {
            let left = u32::try_from(entry.remaining.secs()).unwrap_or(u32::MAX);
            // An entry lives for five minutes at least: one that has less left was inserted earlier.
            let before = now - Duration::from_secs(u64::from(MINIMUM_LIFETIME_S.saturating_sub(left)));
            let lifetime = left.max(MINIMUM_LIFETIME_S);
            let (table, key) = (entry.table.as_deref(), entry.key.as_slice());
            pipeline.tables_mut().insert(before, entry.service, table, key, &entry.value, lifetime);
        }
    }

    /// Puts an entry into a table of a service, as `avi.vs.table_insert` does: `None` is the default table, a live key
    /// keeps its value.
    pub fn tables_insert(
        &mut self,
        service: ServiceId,
        table: Option<&[u8]>,
        key: &[u8],
        value: &[u8],
        lifetime_s: u32,
    ) -> Inserted {
        let now = self.now();
        self.worker.pipeline_mut().tables_mut().insert(now, service, table, key, value, lifetime_s)
    }

    /// Takes an entry out of a table; `true` if there was one.
    pub fn tables_remove(&mut self, service: ServiceId, table: Option<&[u8]>, key: &[u8]) -> bool {
        let now = self.now();
        self.worker.pipeline_mut().tables_mut().remove(now, service, table, key)
    }

    /// Value and remaining seconds of a live entry; looking at it does not prolong its life.
    #[must_use]
    pub fn tables_lookup(
        &mut self,
        service: ServiceId,
        table: Option<&[u8]>,
        key: &[u8],
    ) -> Option<(Vec<u8>, u64)> {
        let now = self.now();
        let found = self.worker.pipeline_mut().tables_mut().lookup(now, service, table, key, 0)?;
        Some((found.0.to_vec(), found.1))
    }

    /// All live entries of a service, or of all.
    #[must_use]
    pub fn tables(&self, service: Option<ServiceId>) -> Vec<TableEntryView> {
        report::tables(self.worker.pipeline(), self.now(), service, usize::MAX).0
    }

    /// The connection records so far: pool and server, termination code, `ds_log`, error, traffic.
    #[must_use]
    pub fn records(&self) -> &[ConnectionRecord] {
        &self.records
    }

    /// What the scripts did so far, in the order in which the runs began.
    #[must_use]
    pub fn runs(&self) -> &[Run] {
        self.policy().runs()
    }

    /// The policy, with somebody looking on.
    #[must_use]
    pub fn policy(&self) -> &Observed {
        self.worker.pipeline().policy()
    }

    /// Flows that exist now.
    #[must_use]
    pub fn flows(&self) -> Vec<FlowView> {
        report::flows(self.worker.pipeline(), self.now(), usize::MAX, None, None)
    }

    /// weir's counters.
    #[must_use]
    pub fn counters(&self) -> &Counters {
        self.worker.pipeline().counters()
    }

    /// Server states as weir sees them.
    #[must_use]
    pub fn balancer(&self) -> &dataplane::balance::Balancer {
        self.worker.pipeline().balancer()
    }
}
