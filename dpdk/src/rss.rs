//! RSS as weir wants it: the key and the indirection table that [`dataplane::steering`] computes with.

use dataplane::rss::{DEFAULT_KEY, KEY_LEN};
use dataplane::steering::{INDIRECTION, queue};
use dpdk_sys::{rte_eth_conf, rte_eth_dev_info, rte_eth_rss_reta_entry64};

/// Longest key of a device. What lies behind our 40 bytes is never reached by the longest input, two IPv6 addresses and
/// two ports.
const MOST_KEY: usize = 64;

/// A key as long as a device wants it.
pub(crate) type Key = [u8; MOST_KEY];

/// Our key, and zeros.
pub(crate) fn key() -> Key {
    let mut key = [0; MOST_KEY];
    key.iter_mut().zip(DEFAULT_KEY).for_each(|(place, byte)| *place = byte);
    key
}

/// Entries of a group of the table.
pub(crate) const GROUP: usize = dpdk_sys::RTE_ETH_RETA_GROUP_SIZE as usize;

/// Packets that are spread by addresses and ports, and those by addresses alone.
const WITH_PORTS: u64 = dpdk_sys::RTE_ETH_RSS_NONFRAG_IPV4_TCP
    | dpdk_sys::RTE_ETH_RSS_NONFRAG_IPV4_UDP
    | dpdk_sys::RTE_ETH_RSS_NONFRAG_IPV6_TCP
    | dpdk_sys::RTE_ETH_RSS_NONFRAG_IPV6_UDP;
const ADDRESSES: u64 = dpdk_sys::RTE_ETH_RSS_IPV4
    | dpdk_sys::RTE_ETH_RSS_FRAG_IPV4
    | dpdk_sys::RTE_ETH_RSS_NONFRAG_IPV4_OTHER
    | dpdk_sys::RTE_ETH_RSS_IPV6
    | dpdk_sys::RTE_ETH_RSS_FRAG_IPV6
    | dpdk_sys::RTE_ETH_RSS_NONFRAG_IPV6_OTHER;

/// Asks for RSS if the device can do it in weir's way; `conf` points to `key` then, which has to live until it was used.
pub(crate) fn configure(conf: &mut rte_eth_conf, info: &rte_eth_dev_info, key: &mut Key) -> bool {
    let offered = info.flow_type_rss_offloads;
    let size = usize::from(info.reta_size);
    let repeats = size >= INDIRECTION && size.is_power_of_two();
    let Some(len) = key_len(info).filter(|_| offered & WITH_PORTS == WITH_PORTS && repeats) else {
        return false;
    };
    conf.rxmode.mq_mode = dpdk_sys::rte_eth_rx_mq_mode_RTE_ETH_MQ_RX_RSS;
    let rss = &mut conf.rx_adv_conf.rss_conf;
    (rss.rss_key, rss.rss_key_len) = (key.as_mut_ptr(), len);
    rss.rss_hf = offered & (WITH_PORTS | ADDRESSES);
    true
}

/// Length of the device's key. One that does not tell may take ours: reading it back shows whether it did.
pub(crate) fn key_len(info: &rte_eth_dev_info) -> Option<u8> {
    match usize::from(info.hash_key_size) {
        0 => Some(KEY_LEN as u8),
        KEY_LEN..=MOST_KEY => Some(info.hash_key_size),
        _ => None,
    }
}

/// The whole table of a device, by groups.
pub(crate) fn indirection(size: u16, queues: u16) -> Vec<rte_eth_rss_reta_entry64> {
    let queues = u8::try_from(queues).unwrap_or(u8::MAX);
    let groups = usize::from(size).div_ceil(GROUP);
    let group = |group: usize| rte_eth_rss_reta_entry64 {
        mask: u64::MAX,
        reta: std::array::from_fn(|place| u16::from(queue(group * GROUP + place, queues))),
    };
    (0..groups).map(group).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(offered: u64, reta_size: u16, hash_key_size: u8) -> rte_eth_dev_info {
        // SAFETY: a plain C struct of numbers and pointers.
        let mut info: rte_eth_dev_info = unsafe { std::mem::zeroed() };
        (info.flow_type_rss_offloads, info.reta_size, info.hash_key_size) =
            (offered, reta_size, hash_key_size);
        info
    }

    fn asked(info: &rte_eth_dev_info) -> Option<u64> {
        // SAFETY: as above.
        let mut conf: rte_eth_conf = unsafe { std::mem::zeroed() };
        let mut key = key();
        configure(&mut conf, info, &mut key).then_some(conf.rx_adv_conf.rss_conf.rss_hf)
    }

    #[test]
    fn only_a_device_that_can_do_all_of_it_is_asked() {
        assert_eq!(asked(&info(u64::MAX, 512, 40)), Some(WITH_PORTS | ADDRESSES));
        assert_eq!(asked(&info(WITH_PORTS, 128, 40)), Some(WITH_PORTS));
        assert_eq!(asked(&info(u64::MAX, 0, 40)), None, "net_tap has no table");
        assert_eq!(asked(&info(u64::MAX, 64, 40)), None, "too small");
        assert_eq!(asked(&info(WITH_PORTS, 512, 52)), Some(WITH_PORTS), "i40e has a longer key");
        assert_eq!(asked(&info(WITH_PORTS, 128, 0)), Some(WITH_PORTS), "net_null does not tell");
        assert_eq!(asked(&info(u64::MAX, 512, 16)), None, "too short for IPv6");
        assert_eq!(asked(&info(WITH_PORTS & !dpdk_sys::RTE_ETH_RSS_NONFRAG_IPV6_UDP, 128, 40)), None);
    }

    #[test]
    fn the_table_names_the_queues_in_turn() {
        let table = indirection(256, 3);
        assert_eq!(table.len(), 4);
        let flat: Vec<u16> = table.iter().flat_map(|group| group.reta).collect();
        assert_eq!(flat[..5], [0, 1, 2, 0, 1]);
        assert_eq!(flat[126..130], [0, 1, 0, 1], "the second half repeats the first");
        assert!(table.iter().all(|group| group.mask == u64::MAX));
    }
}
