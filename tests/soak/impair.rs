//! The legs between the hosts and weir, and what happens on them.

use smoltcp::time::{Duration, Instant};

/// SplitMix64.
pub struct Rng(u64);

impl Rng {
    pub fn new(seed: u64) -> Rng {
        Rng(seed)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    fn happens(&mut self, per_mille: u64) -> bool {
        self.below(1000) < per_mille
    }

    pub fn bytes(&mut self, count: usize) -> Vec<u8> {
        let mut bytes: Vec<u8> = (0..count.div_ceil(8)).flat_map(|_| self.next().to_le_bytes()).collect();
        bytes.truncate(count);
        bytes
    }
}

/// What happens on each leg. Chances are per mille and packet, times in milliseconds.
#[derive(Clone, Copy, Debug)]
pub struct Impairment {
    pub loss: u64,
    pub burst: Option<Burst>,
    /// Overtaken by what is sent in up to 30 ms after it.
    pub reorder: u64,
    /// Comes twice, up to 20 ms apart.
    pub duplicate: u64,
    /// Bits within one byte are flipped.
    pub corrupt: u64,
    pub delay: u64,
    /// Added to the delay, at most.
    pub jitter: u64,
}

/// Losses in bursts (Gilbert and Elliott): the chances of a good leg to turn bad, of a bad one to turn good, and of a
/// loss while it is bad.
#[derive(Clone, Copy, Debug)]
pub struct Burst {
    pub enter: u64,
    pub leave: u64,
    pub loss: u64,
}

/// One direction of one side's wire.
pub struct Leg {
    impairment: Impairment,
    rng: Rng,
    bad: bool,
    /// When the last packet arrives that is not to be overtaken.
    last: Instant,
}

impl Leg {
    pub fn new(impairment: Impairment, seed: u64, now: Instant) -> Leg {
        Leg { impairment, rng: Rng::new(seed), bad: false, last: now }
    }

    /// When copies of the packet arrive, and what they look like then.
    pub fn carry(&mut self, now: Instant, packet: &[u8]) -> Vec<(Instant, Vec<u8>)> {
        if self.is_lost() {
            return Vec::new();
        }
        let Impairment { reorder, duplicate, delay, jitter, .. } = self.impairment;
        let mut at = now + Duration::from_millis(delay + self.rng.below(jitter + 1));
        if self.rng.happens(reorder) {
            at += Duration::from_millis(1 + self.rng.below(30));
        } else {
            at = at.max(self.last);
            self.last = at;
        }
        let mut arrivals = vec![(at, self.copy(packet))];
        if self.rng.happens(duplicate) {
            at += Duration::from_millis(self.rng.below(21));
            arrivals.push((at, self.copy(packet)));
        }
        arrivals
    }

    fn is_lost(&mut self) -> bool {
        let mut chance = self.impairment.loss;
        if let Some(burst) = self.impairment.burst {
            self.bad = self.rng.happens(if self.bad { 1000 - burst.leave } else { burst.enter });
            chance = if self.bad { burst.loss } else { chance };
        }
        self.rng.happens(chance)
    }

    /// Flipped bits stay within one byte: there is no error of that kind that the checksums do not see.
    fn copy(&mut self, packet: &[u8]) -> Vec<u8> {
        let mut copy = packet.to_vec();
        if self.rng.happens(self.impairment.corrupt) {
            let at = self.rng.below(copy.len() as u64) as usize;
            copy[at] ^= 1 + self.rng.below(255) as u8;
        }
        copy
    }
}
