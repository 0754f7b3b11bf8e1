//! How many flows of a worker are of each service, and have each server.

use crate::snapshot::{ServerId, ServiceId, Snapshot};

/// Counts of flows that are in the flow table, also of those that are only kept for late packets.
#[derive(Debug)]
pub struct Uses {
    /// By [`ServiceId`].
    services: Vec<u32>,
    /// By [`ServerId`].
    servers: Vec<u32>,
}

impl Uses {
    /// No flows.
    #[must_use]
    pub fn new(snapshot: &Snapshot) -> Self {
        Uses { services: vec![0; snapshot.services.len()], servers: vec![0; snapshot.servers.len()] }
    }

    /// Goes on with a configuration in which all that has flows has its place.
    pub fn lay_over(&mut self, snapshot: &Snapshot) {
        self.services.resize(snapshot.services.len(), 0);
        self.servers.resize(snapshot.servers.len(), 0);
    }

    /// A flow of a service has begun.
    #[inline]
    pub fn begin(&mut self, service: ServiceId) {
        if let Some(flows) = self.services.get_mut(service.index()) {
            *flows += 1;
        }
    }

    /// It has a server.
    #[inline]
    pub fn serve(&mut self, server: ServerId) {
        if let Some(flows) = self.servers.get_mut(server.index()) {
            *flows += 1;
        }
    }

    /// It has its server no more.
    #[inline]
    pub fn leave(&mut self, server: ServerId) {
        if let Some(flows) = self.servers.get_mut(server.index()) {
            *flows = flows.saturating_sub(1);
        }
    }

    /// It is not in the flow table any more.
    #[inline]
    pub fn end(&mut self, service: ServiceId, server: Option<ServerId>) {
        if let Some(flows) = self.services.get_mut(service.index()) {
            *flows = flows.saturating_sub(1);
        }
        if let Some(server) = server {
            self.leave(server);
        }
    }

    /// Flows of a service.
    #[must_use]
    pub fn of_service(&self, service: ServiceId) -> u32 {
        self.services.get(service.index()).copied().unwrap_or(0)
    }

    /// Flows that have a server.
    #[must_use]
    pub fn of_server(&self, server: ServerId) -> u32 {
        self.servers.get(server.index()).copied().unwrap_or(0)
    }
}
