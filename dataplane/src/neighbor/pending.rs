//! Packets whose next hop has not answered yet.

use std::collections::HashMap;

use arrayvec::ArrayVec;

use super::NeighborId;

/// Packets held for one neighbour.
pub const PENDING_PER_NEIGHBOR: usize = 8;

/// Packets that wait for a neighbour's MAC address: at most [`PENDING_PER_NEIGHBOR`] for each neighbour, and a total.
///
/// Generic over what a packet is to its owner. What comes back from [`Pending::push`] is to be counted as dropped.
#[derive(Debug)]
pub struct Pending<B> {
    queues: HashMap<NeighborId, ArrayVec<B, PENDING_PER_NEIGHBOR>>,
    held: usize,
    capacity: usize,
}

impl<B> Pending<B> {
    /// Room for `capacity` packets in total.
    #[must_use]
    pub fn new(capacity: usize) -> Self {
        Pending { queues: HashMap::with_capacity(capacity), held: 0, capacity }
    }

    /// Packets held.
    #[must_use]
    pub fn len(&self) -> usize {
        self.held
    }

    /// True if no packet is held.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.held == 0
    }

    /// Holds `packet`. Gives the packet to drop: the oldest of a neighbour that has too many (RFC 4861, 7.2.2), or
    /// `packet` itself when there is no room at all.
    pub fn push(&mut self, id: NeighborId, packet: B) -> Option<B> {
        if let Some(queue) = self.queues.get_mut(&id)
            && queue.is_full()
        {
            let oldest = queue.pop_at(0);
            return queue.try_push(packet).err().map(|refused| refused.element()).or(oldest);
        }
        if self.held >= self.capacity {
            return Some(packet);
        }
        let refused = self.queues.entry(id).or_default().try_push(packet).err();
        self.held += usize::from(refused.is_none());
        refused.map(|refused| refused.element())
    }

    /// Takes out the packets of a neighbour, oldest first: to send them after
    /// [`super::Neighbors::learn`], or to drop them after [`super::Neighbors::poll_failed`].
    pub fn take(&mut self, id: NeighborId) -> ArrayVec<B, PENDING_PER_NEIGHBOR> {
        let packets = self.queues.remove(&id).unwrap_or_default();
        self.held = self.held.saturating_sub(packets.len());
        packets
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(slot: u16) -> NeighborId {
        NeighborId::new(slot, 0)
    }

    #[test]
    fn oldest_of_a_neighbor_goes_first() {
        let mut pending = Pending::new(100);
        for packet in 0..8 {
            assert_eq!(pending.push(id(1), packet), None);
        }
        assert_eq!(pending.push(id(1), 8), Some(0));
        assert_eq!(pending.push(id(2), 9), None);
        assert_eq!(pending.len(), 9);
        assert_eq!(pending.take(id(1)).as_slice(), [1, 2, 3, 4, 5, 6, 7, 8]);
        assert_eq!(pending.take(id(1)).as_slice(), [0; 0]);
        assert_eq!(pending.take(id(2)).as_slice(), [9]);
        assert!(pending.is_empty());
    }

    #[test]
    fn total_is_bounded() {
        let mut pending = Pending::new(3);
        for slot in 0..3 {
            assert_eq!(pending.push(id(slot), slot), None);
        }
        assert_eq!(pending.push(id(3), 3), Some(3));
        assert_eq!(pending.push(id(0), 4), Some(4));
        pending.take(id(1));
        assert_eq!(pending.push(id(3), 5), None);
        assert_eq!(pending.len(), 3);
    }
}
