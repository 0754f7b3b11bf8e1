//! One port: one receive and one transmit queue of one device.

use std::ffi::{CStr, c_int};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use dataplane::io::PortStats;
use dataplane::steering::by_client::Spread;
use dpdk_sys::{RTE_ETHER_CRC_LEN, RTE_ETHER_HDR_LEN, rte_eth_conf, rte_eth_dev_info, rte_eth_stats};

use crate::eal::Core;
use crate::ring::Rings;
use crate::{Error, Mempool, rss};

/// Bytes of an 802.1Q tag, which a frame may carry beyond its MTU.
const VLAN_TAG: u32 = 4;

/// What the user may decide about a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortConfig {
    /// Receive descriptors; the device's limits are applied.
    pub rx_descriptors: u16,
    /// Transmit descriptors; the device's limits are applied.
    pub tx_descriptors: u16,
    /// The largest IP packet, bytes.
    pub mtu: u16,
    /// Also receive frames for other MAC addresses.
    pub promiscuous: bool,
    /// Transmit queues, and as many receive queues if the device has them: one of each for each worker.
    pub queues: u16,
    /// By what received frames are to be spread over them.
    pub spread: Spread,
}

impl Default for PortConfig {
    /// 1,024 descriptors each way, an MTU of 1,500, not promiscuous, one queue pair.
    fn default() -> Self {
        Self {
            rx_descriptors: 1024,
            tx_descriptors: 1024,
            mtu: 1500,
            promiscuous: false,
            queues: 1,
            spread: Spread::Flow,
        }
    }
}

/// How multicast frames, which neighbour discovery needs, reach weir.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MulticastReception {
    /// The device passes all multicast frames.
    AllMulticast,
    /// The device can only do that by passing everything.
    Promiscuous,
    /// The device has no filter that could be opened, so it is taken not to have one at all.
    NoFilter,
}

/// How received frames are spread over several queues.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spreading {
    /// There is one receive queue.
    OneQueue,
    /// By RSS, with weir's key and its indirection table: flows come to the worker that has them.
    Rss,
    /// In the device's own way; workers hand over to each other what came to the wrong one.
    Device,
}

/// State of the link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link {
    /// Whether it is up.
    pub up: bool,
    /// Mbit/s, if the device knows.
    pub speed_mbps: Option<u32>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    New,
    Configured,
    Started,
}

impl State {
    fn name(self) -> &'static str {
        match self {
            State::New => "not configured",
            State::Configured => "stopped",
            State::Started => "started",
        }
    }
}

/// A port, from [`crate::Eal::port`]. Order of calls: [`configure`](Port::configure), [`start`](Port::start),
/// [`stop`](Port::stop), from there again. Dropping it stops and closes the device; virtual devices such as a tap
/// interface disappear with that.
///
/// Offloads: none. Checksums are computed and verified by the pipeline, and a frame is one buffer.
pub struct Port {
    id: u16,
    device: String,
    state: State,
    multicast: MulticastReception,
    rx_queues: u16,
    tx_queues: u16,
    tx_descriptors: u16,
    spread: Spread,
    spreading: Spreading,
    /// Frames in several pieces, dropped on receiving.
    chained: AtomicU64,
    /// The MTU that the device came with, bytes.
    native_mtu: Option<u16>,
    // Dropped in this order, after the device was closed: rings give the buffers in them back to the pool.
    rings: Option<Arc<Rings>>,
    pool: Option<Mempool>,
    eal: Arc<Core>,
}

impl Port {
    pub(crate) fn new(eal: Arc<Core>, id: u16, device: String) -> Self {
        Self {
            id,
            device,
            state: State::New,
            multicast: MulticastReception::NoFilter,
            rx_queues: 0,
            tx_queues: 0,
            tx_descriptors: 0,
            spread: Spread::Flow,
            spreading: Spreading::OneQueue,
            chained: AtomicU64::new(0),
            native_mtu: None,
            rings: None,
            pool: None,
            eal,
        }
    }

    /// Transmit descriptors of each queue; 0 before the port is configured.
    #[must_use]
    pub fn tx_descriptors(&self) -> u16 {
        self.tx_descriptors
    }

    /// Keeps the rings that the device works on until it is closed.
    pub(crate) fn with_rings(mut self, rings: Arc<Rings>) -> Self {
        self.rings = Some(rings);
        self
    }

    /// Sets the device up: its queues, RSS if it has that and several queues, the MTU, which frames it receives. Buffers for received frames come from
    /// `pool`, which the port keeps.
    ///
    /// # Errors
    /// [`Error::Mtu`] and [`Error::Queues`] with the largest possible value, [`Error::State`] while the port is started, [`Error::Call`].
    pub fn configure(&mut self, config: &PortConfig, pool: &Mempool) -> Result<(), Error> {
        if self.state == State::Started {
            return Err(self.wrong_state("stopped"));
        }
        let info = self.info()?;
        let max = max_mtu(&info).min(pool_mtu(pool));
        if config.mtu > max {
            return Err(Error::Mtu { port: self.device.clone(), requested: config.mtu, max });
        }
        let mtu = self.mtu()?;
        let native_mtu = *self.native_mtu.get_or_insert(mtu);
        // Until all is done it cannot be started, and from here on the queues may refer to either pool.
        self.state = State::New;
        self.configure_device(config, &info)?;
        if config.mtu != mtu {
            self.set_mtu(config.mtu, native_mtu)?;
        }
        let earlier_pool = self.pool.replace(pool.clone());
        self.set_up_queues(config, pool)?;
        drop(earlier_pool);
        self.multicast = self.set_reception(config.promiscuous)?;
        self.state = State::Configured;
        Ok(())
    }

    fn configure_device(&mut self, config: &PortConfig, info: &rte_eth_dev_info) -> Result<(), Error> {
        let (wanted, max) = (config.queues.max(1), info.max_tx_queues);
        if wanted > max {
            return Err(Error::Queues { port: self.device.clone(), wanted, max });
        }
        (self.rx_queues, self.tx_queues) = (wanted.min(info.max_rx_queues), wanted);
        // SAFETY: a plain C struct of numbers, enums that have a variant 0, and pointers that may be null. All zero is
        // DPDK's own default: no RSS, no offload, no interrupt.
        let mut conf: rte_eth_conf = unsafe { std::mem::zeroed() };
        conf.rxmode.mtu = u32::from(config.mtu);
        let mut key = rss::key(config.spread);
        let rss = self.rx_queues > 1 && rss::configure(&mut conf, info, &mut key, config.spread);
        self.spread = config.spread;
        self.spreading = match self.rx_queues {
            0 | 1 => Spreading::OneQueue,
            _ if rss => Spreading::Rss,
            _ => Spreading::Device,
        };
        // SAFETY: the port is ours and stopped; `conf` is copied, and the key that it points to lives.
        let result = unsafe {
            dpdk_sys::rte_eth_dev_configure(self.id, self.rx_queues, self.tx_queues, &raw const conf)
        };
        Error::check("rte_eth_dev_configure", &self.device, result)
    }

    /// A device that cannot change its MTU still serves one that is no larger: it is the pipeline that sends no larger packets.
    fn set_mtu(&self, requested: u16, native: u16) -> Result<(), Error> {
        // SAFETY: the port is ours and configured.
        let result = unsafe { dpdk_sys::rte_eth_dev_set_mtu(self.id, requested) };
        let fixed = result.unsigned_abs() == dpdk_sys::ENOTSUP;
        if result == 0 || (fixed && requested <= native) {
            return Ok(());
        }
        Err(Error::Mtu { port: self.device.clone(), requested, max: native })
    }

    fn set_up_queues(&mut self, config: &PortConfig, pool: &Mempool) -> Result<(), Error> {
        let (mut rx, mut tx) = (config.rx_descriptors, config.tx_descriptors);
        // SAFETY: the port is ours; two numbers are read and written.
        let result = unsafe { dpdk_sys::rte_eth_dev_adjust_nb_rx_tx_desc(self.id, &raw mut rx, &raw mut tx) };
        Error::check("rte_eth_dev_adjust_nb_rx_tx_desc", &self.device, result)?;
        self.tx_descriptors = tx;
        // SAFETY: the port is ours.
        let socket = unsafe { dpdk_sys::rte_eth_dev_socket_id(self.id) }.cast_unsigned();
        let defaults = std::ptr::null();
        for queue in 0..self.rx_queues {
            // SAFETY: the port is configured with these queues; a null configuration means the device's default; the pool
            // lives as long as the port: `configure` keeps a handle on it.
            let result =
                unsafe { dpdk_sys::rte_eth_rx_queue_setup(self.id, queue, rx, socket, defaults, pool.raw()) };
            Error::check("rte_eth_rx_queue_setup", &self.device, result)?;
        }
        for queue in 0..self.tx_queues {
            // SAFETY: as above.
            let result =
                unsafe { dpdk_sys::rte_eth_tx_queue_setup(self.id, queue, tx, socket, std::ptr::null()) };
            Error::check("rte_eth_tx_queue_setup", &self.device, result)?;
        }
        Ok(())
    }

    /// Opens the filter for multicast, and for everything if asked.
    fn set_reception(&self, promiscuous: bool) -> Result<MulticastReception, Error> {
        if promiscuous {
            self.supported("rte_eth_promiscuous_enable", dpdk_sys::rte_eth_promiscuous_enable)?;
        }
        if self.supported("rte_eth_allmulticast_enable", dpdk_sys::rte_eth_allmulticast_enable)? {
            return Ok(MulticastReception::AllMulticast);
        }
        if self.supported("rte_eth_promiscuous_enable", dpdk_sys::rte_eth_promiscuous_enable)? {
            return Ok(MulticastReception::Promiscuous);
        }
        Ok(MulticastReception::NoFilter)
    }

    /// Calls a switch of the device; `false` when the device does not have it.
    fn supported(
        &self,
        call: &'static str,
        switch: unsafe extern "C" fn(u16) -> c_int,
    ) -> Result<bool, Error> {
        // SAFETY: the switches of this file take a port that is configured, which ours is.
        let result = unsafe { switch(self.id) };
        if result.unsigned_abs() == dpdk_sys::ENOTSUP {
            return Ok(false);
        }
        Error::check(call, &self.device, result).map(|()| true)
    }

    /// Starts receiving and sending.
    ///
    /// # Errors
    /// [`Error::State`] unless the port is configured and stopped, [`Error::Call`].
    pub fn start(&mut self) -> Result<(), Error> {
        if self.state != State::Configured {
            return Err(self.wrong_state(State::Configured.name()));
        }
        // SAFETY: the port is ours, configured, and its queues are set up.
        let result = unsafe { dpdk_sys::rte_eth_dev_start(self.id) };
        Error::check("rte_eth_dev_start", &self.device, result)?;
        self.state = State::Started;
        if self.spreading == Spreading::Rss && !self.set_indirection()? {
            self.spreading = Spreading::Device;
        }
        Ok(())
    }

    /// Gives the device weir's indirection table, and reads table, key and what is hashed back: `false` when they are not what was
    /// set.
    fn set_indirection(&self) -> Result<bool, Error> {
        let info = self.info()?;
        let size = info.reta_size;
        let wanted = rss::indirection(size, self.rx_queues);
        let mut table = wanted.clone();
        // SAFETY: the port is ours and started; the table has as many groups as its size asks for, and is copied.
        let result = unsafe { dpdk_sys::rte_eth_dev_rss_reta_update(self.id, table.as_mut_ptr(), size) };
        if result < 0 {
            return Ok(false);
        }
        table.iter_mut().for_each(|group| group.reta = [0; rss::GROUP]);
        // SAFETY: as above; the table is filled in.
        let queried = unsafe { dpdk_sys::rte_eth_dev_rss_reta_query(self.id, table.as_mut_ptr(), size) };
        let table_kept = queried == 0 && table.iter().zip(&wanted).all(|(read, set)| read.reta == set.reta);
        let mut key: rss::Key = std::array::from_fn(|_| 0);
        // SAFETY: a plain C struct of numbers and a pointer.
        let mut conf: dpdk_sys::rte_eth_rss_conf = unsafe { std::mem::zeroed() };
        (conf.rss_key, conf.rss_key_len) = (key.as_mut_ptr(), rss::key_len(&info).unwrap_or(0));
        // SAFETY: the port is ours; the key has room for as many bytes as it says.
        let read = unsafe { dpdk_sys::rte_eth_dev_rss_hash_conf_get(self.id, &raw mut conf) };
        let kept = rss::types(&info, self.spread).is_some_and(|(types, _)| rss::keeps(types, conf.rss_hf));
        Ok(table_kept && read == 0 && key == rss::key(self.spread) && kept)
    }

    /// How received frames are spread over the queues, since [`Port::start`].
    #[must_use]
    pub fn spreading(&self) -> Spreading {
        self.spreading
    }

    /// Queue pairs that the device has: one for each worker.
    ///
    /// # Errors
    /// [`Error::Call`].
    pub fn queues(&self) -> Result<u16, Error> {
        self.info().map(|info| info.max_tx_queues)
    }

    pub(crate) fn rx_queues(&self) -> u16 {
        self.rx_queues
    }

    pub(crate) fn tx_queues(&self) -> u16 {
        self.tx_queues
    }

    /// Frames in several pieces were dropped on receiving.
    pub(crate) fn count_chained(&self, frames: usize) {
        self.chained.fetch_add(frames as u64, Ordering::Relaxed);
    }

    /// Stops receiving and sending. A port that is not started stays as it is.
    ///
    /// # Errors
    /// [`Error::Call`].
    pub fn stop(&mut self) -> Result<(), Error> {
        if self.state != State::Started {
            return Ok(());
        }
        // SAFETY: the port is ours, and nobody is in one of its bursts: whoever has one of its queues shares the port.
        let result = unsafe { dpdk_sys::rte_eth_dev_stop(self.id) };
        Error::check("rte_eth_dev_stop", &self.device, result)?;
        self.state = State::Configured;
        Ok(())
    }

    /// Stops the port and closes its device, as dropping does, and says whether that worked.
    ///
    /// # Errors
    /// [`Error::Call`].
    pub fn close(mut self) -> Result<(), Error> {
        let stopped = self.stop();
        let closed = self.close_device();
        stopped.and(closed)
    }

    fn close_device(&mut self) -> Result<(), Error> {
        if !self.eal.forget_port(self.id) {
            return Ok(());
        }
        // SAFETY: the port is ours, stopped, and closed once: EAL's list of taken ports has just lost it.
        let result = unsafe { dpdk_sys::rte_eth_dev_close(self.id) };
        Error::check("rte_eth_dev_close", &self.device, result)
    }

    pub(crate) fn id(&self) -> u16 {
        self.id
    }

    /// `Ok` when the port is started.
    pub(crate) fn require_started(&self) -> Result<(), Error> {
        if self.state == State::Started { Ok(()) } else { Err(self.wrong_state(State::Started.name())) }
    }

    fn wrong_state(&self, wanted: &'static str) -> Error {
        Error::State { port: self.device.clone(), found: self.state.name(), wanted }
    }

    fn info(&self) -> Result<rte_eth_dev_info, Error> {
        // SAFETY: a plain C struct of numbers and pointers, filled in by the call.
        let mut info: rte_eth_dev_info = unsafe { std::mem::zeroed() };
        // SAFETY: the port is ours.
        let result = unsafe { dpdk_sys::rte_eth_dev_info_get(self.id, &raw mut info) };
        Error::check("rte_eth_dev_info_get", &self.device, result).map(|()| info)
    }

    /// The device's name, as the user wrote it.
    #[must_use]
    pub fn device(&self) -> &str {
        &self.device
    }

    /// The driver's name, such as `net_tap`.
    ///
    /// # Errors
    /// [`Error::Call`].
    pub fn driver(&self) -> Result<String, Error> {
        let name = self.info()?.driver_name;
        if name.is_null() {
            return Ok(String::new());
        }
        // SAFETY: a string that belongs to the driver, which stays loaded while the port exists; copied at once.
        Ok(unsafe { CStr::from_ptr(name) }.to_string_lossy().into_owned())
    }

    /// The MAC address.
    ///
    /// # Errors
    /// [`Error::Call`].
    pub fn mac(&self) -> Result<[u8; 6], Error> {
        let mut address = dpdk_sys::rte_ether_addr { addr_bytes: [0; 6] };
        // SAFETY: the port is ours; six bytes are written.
        let result = unsafe { dpdk_sys::rte_eth_macaddr_get(self.id, &raw mut address) };
        Error::check("rte_eth_macaddr_get", &self.device, result).map(|()| address.addr_bytes)
    }

    /// The link, without waiting for it.
    ///
    /// # Errors
    /// [`Error::Call`].
    pub fn link(&self) -> Result<Link, Error> {
        let (mut up, mut speed) = (0, 0);
        // SAFETY: the port is ours; two numbers are written.
        let result = unsafe { dpdk_sys::weir_link(self.id, &raw mut up, &raw mut speed) };
        Error::check("rte_eth_link_get_nowait", &self.device, result)?;
        Ok(Link { up: up != 0, speed_mbps: (speed != 0).then_some(speed) })
    }

    /// The MTU now, bytes.
    ///
    /// # Errors
    /// [`Error::Call`].
    pub fn mtu(&self) -> Result<u16, Error> {
        let mut mtu = 0;
        // SAFETY: the port is ours; one number is written.
        let result = unsafe { dpdk_sys::rte_eth_dev_get_mtu(self.id, &raw mut mtu) };
        Error::check("rte_eth_dev_get_mtu", &self.device, result).map(|()| mtu)
    }

    /// How multicast frames are received, since [`Port::configure`].
    #[must_use]
    pub fn multicast(&self) -> MulticastReception {
        self.multicast
    }

    /// Whether frames for other MAC addresses are received.
    #[must_use]
    pub fn is_promiscuous(&self) -> bool {
        // SAFETY: the port is ours.
        unsafe { dpdk_sys::rte_eth_promiscuous_get(self.id) == 1 }
    }

    /// The device's counters; zero for a device that has none.
    #[must_use]
    pub fn stats(&self) -> PortStats {
        // SAFETY: a plain C struct of numbers.
        let mut stats: rte_eth_stats = unsafe { std::mem::zeroed() };
        // SAFETY: the port is ours; the struct is filled in, or left as it is on an error.
        unsafe { dpdk_sys::rte_eth_stats_get(self.id, &raw mut stats) };
        let chained = self.chained.load(Ordering::Relaxed);
        PortStats {
            rx_packets: stats.ipackets.saturating_sub(chained),
            tx_packets: stats.opackets,
            rx_missed: stats.imissed.saturating_add(stats.rx_nombuf),
            rx_errors: stats.ierrors.saturating_add(chained),
            tx_errors: stats.oerrors,
        }
    }
}

impl Drop for Port {
    fn drop(&mut self) {
        // Nobody is there to hear of an error; `close` is for those who want to.
        let _ = self.stop();
        let _ = self.close_device();
    }
}

/// The largest MTU that the device takes: its own limit, and that of its frames less what surrounds an IP packet.
fn max_mtu(info: &rte_eth_dev_info) -> u16 {
    let mtu = u32::from(info.max_mtu);
    let around = RTE_ETHER_HDR_LEN + RTE_ETHER_CRC_LEN;
    let around =
        if info.max_mtu != u16::MAX && info.max_rx_pktlen > mtu { info.max_rx_pktlen - mtu } else { around };
    u16::try_from(info.max_rx_pktlen.saturating_sub(around).min(mtu)).unwrap_or(u16::MAX)
}

/// The largest MTU for which a tagged frame fits into a buffer.
fn pool_mtu(pool: &Mempool) -> u16 {
    let around = RTE_ETHER_HDR_LEN + RTE_ETHER_CRC_LEN + VLAN_TAG;
    u16::try_from(u32::from(pool.frame()).saturating_sub(around)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_mtu_follows_from_both_limits() {
        let max = |max_mtu: u16, max_rx_pktlen: u32| {
            // SAFETY: a plain C struct of numbers and pointers.
            let mut info: rte_eth_dev_info = unsafe { std::mem::zeroed() };
            (info.max_mtu, info.max_rx_pktlen) = (max_mtu, max_rx_pktlen);
            super::max_mtu(&info)
        };
        assert_eq!(max(u16::MAX, 1522), 1504, "net_tap says nothing of the MTU");
        assert_eq!(max(9702, 9728), 9702, "ixgbe");
        assert_eq!(max(u16::MAX, u32::MAX), u16::MAX, "net_pcap says nothing at all");
        assert_eq!(max(1500, 1500), 1482, "no room left around the packet");
        assert_eq!(max(u16::MAX, 0), 0);
    }
}
