//! What workers do for each other.

use smoltcp::time::Instant;

use super::Worker;
use crate::counters::DropReason;
use crate::io::{PacketIo, PortId, SHORT_BURST};
use crate::mesh::News;
use crate::policy::Policy;

/// News of tables that each other worker is told at once, which happens twice in a round: more than the scripts of a burst of new
/// flows bring up, and not so many that packets wait for them for long. As many as both times are heard.
const NEWS: usize = 2 * SHORT_BURST;

impl<I: PacketIo, P: Policy> Worker<I, P> {
    /// One burst that another worker handed over, for each port by which its packets came in; and what it told. Before that it
    /// is told what scripts have changed in this round: it need not wait until what it told has been taken in.
    pub(super) fn take_over(&mut self, now: Instant, most: usize, peer: u8) -> usize {
        let mut taken = 0;
        for port in (0..self.ports.len()).map(|port| PortId(port as u8)) {
            self.mesh.take_over(most, peer, port, &mut self.received);
            let count = self.received.len();
            if count == 0 {
                continue;
            }
            taken += count;
            self.pipeline.counters_mut().taken_over += count as u64;
            match self.pipeline.process_handed_over(now, port, &mut self.received, &mut self.verdicts) {
                Some(out) => self.forward_all(out, port),
                None => self.carry_out(port),
            }
            self.flush(now);
        }
        self.tell_of_tables(peer);
        for _ in 0..2 * NEWS {
            let Some(news) = self.mesh.hear(peer) else { break };
            self.pipeline.shorten();
            self.pipeline.hear(now, news);
        }
        taken
    }

    /// Tells other workers what they have to know.
    pub(super) fn tell_peers(&mut self) {
        while let Some((whom, news)) = self.pipeline.poll_news() {
            match (whom, news) {
                (Some(worker), news @ News::Whole { .. }) => self.hand_over_whole(worker, news),
                (_, news) => self.tell(whom, &news),
            }
        }
        for peer in self.mesh.peers() {
            self.tell_of_tables(peer);
        }
    }

    /// What the queue has no room for is told later.
    fn tell_of_tables(&mut self, peer: u8) {
        for _ in 0..NEWS {
            let Some(news) = self.pipeline.tables_mut().poll_news(peer) else { return };
            self.pipeline.shorten();
            if let Err(News::Table(news)) = self.mesh.tell(peer, News::Table(news)) {
                self.pipeline.tables_mut().news_refused(peer, news);
                return;
            }
        }
    }

    fn tell(&mut self, whom: Option<u8>, news: &News) {
        for peer in self.mesh.peers().filter(|peer| whom.is_none_or(|whom| whom == *peer)) {
            if self.mesh.tell(peer, news.clone()).is_err() {
                self.pipeline.counters_mut().news_lost += 1;
            }
        }
    }

    /// The last of its fragments was counted as consumed.
    fn hand_over_whole(&mut self, worker: u8, whole: News) {
        let told = self.mesh.tell(worker, whole).is_ok();
        let counters = self.pipeline.counters_mut();
        counters.consumed -= 1;
        if told {
            counters.handed_over += 1;
        } else {
            counters.drop(DropReason::HandOver);
        }
    }
}
