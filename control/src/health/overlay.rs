//! The monitors of another configuration.

use std::cmp::Reverse;
use std::collections::HashMap;

use smoltcp::time::Instant;
use smoltcp::wire::IpProtocol;

use dataplane::snapshot::{ServerId, Snapshot};

use super::{Health, Monitored, Probe, Target};

impl Health {
    /// Goes on with a configuration that is laid over the present one ([`Snapshot::overlaid`]). Monitors that are the same go
    /// on with what they know and when they are due; what was found of a server holds until its new monitors find
    /// something else. New monitors probe at once.
    pub fn lay_over(&mut self, snapshot: &Snapshot, now: Instant) {
        let servers: HashMap<ServerId, Monitored> = self.servers.drain(..).map(|old| (old.id, old)).collect();
        let mut before: Vec<Target> = std::mem::take(&mut self.targets);
        let due: HashMap<usize, Instant> = self.due.drain().map(|Reverse((at, index))| (index, at)).collect();
        self.add_servers(snapshot, now);
        self.due.clear();
        // From places before to places now.
        let mut moved: HashMap<usize, usize> = HashMap::new();
        for server in &mut self.servers {
            let old = servers.get(&server.id);
            server.up = old.and_then(|old| old.up);
            for (index, target) in
                server.targets.clone().zip(self.targets.get_mut(server.targets.clone()).into_iter().flatten())
            {
                let mut candidates = old.into_iter().flat_map(|old| old.targets.clone());
                let same = candidates.find(|at| {
                    !moved.contains_key(at) && before.get(*at).is_some_and(|old| target.is_like(old))
                });
                let Some((same, old)) = same.and_then(|at| Some((at, before.get_mut(at)?))) else {
                    self.due.push(Reverse((now, index)));
                    continue;
                };
                std::mem::swap(&mut target.check, &mut old.check);
                moved.insert(same, index);
                // One that is not due is being probed.
                self.due.extend(due.get(&same).map(|at| Reverse((*at, index))));
            }
        }
        for mut probe in std::mem::take(&mut self.probes) {
            let before = probe.check;
            probe.check = before.and_then(|check| moved.get(&check).copied());
            if before.is_none() || probe.check.is_some() || self.give_up(&probe) {
                self.probes.push(probe);
            }
        }
    }

    /// True if something was found out about each server.
    #[must_use]
    pub fn knows_all(&self) -> bool {
        self.servers.iter().all(|server| server.up.is_some())
    }

    /// Ends a probe whose result nobody waits for; true if its connection still has to send its RST.
    fn give_up(&mut self, probe: &Probe) -> bool {
        let Some(stack) = self.stacks.get_mut(probe.stack) else { return false };
        let connection = probe.protocol == IpProtocol::Tcp;
        if connection {
            probe.abort(stack);
        } else {
            stack.sockets.remove(probe.socket);
        }
        connection
    }
}

impl Target {
    /// True if it probes the same in the same way.
    fn is_like(&self, other: &Target) -> bool {
        let what = |target: &Target| (target.kind.clone(), target.remote, target.header, target.stack);
        what(self) == what(other) && self.check.is_like(&other.check)
    }
}
