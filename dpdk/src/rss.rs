//! RSS as weir wants it: the key and the indirection table that [`dataplane::steering`] computes with.

use dataplane::rss::KEY_LEN;
use dataplane::steering::by_client::Spread;
use dataplane::steering::{INDIRECTION, queue};
use dpdk_sys::{rte_eth_conf, rte_eth_dev_info, rte_eth_rss_reta_entry64};

/// Longest key of a device. What lies behind our 40 bytes is never reached by the longest input, two IPv6 addresses and
/// two ports.
const MOST_KEY: usize = 64;

/// A key as long as a device wants it.
pub(crate) type Key = [u8; MOST_KEY];

/// weir's key for a port, and zeros.
pub(crate) fn key(spread: Spread) -> Key {
    let mut key = [0; MOST_KEY];
    key.iter_mut().zip(spread.key()).for_each(|(place, byte)| *place = *byte);
    key
}

/// Entries of a group of the table.
pub(crate) const GROUP: usize = dpdk_sys::RTE_ETH_RETA_GROUP_SIZE as usize;

/// Packets that are spread by addresses and ports, and those by addresses alone.
const WITH_PORTS: u64 = dpdk_sys::RTE_ETH_RSS_NONFRAG_IPV4_TCP
    | dpdk_sys::RTE_ETH_RSS_NONFRAG_IPV4_UDP
    | dpdk_sys::RTE_ETH_RSS_NONFRAG_IPV6_TCP
    | dpdk_sys::RTE_ETH_RSS_NONFRAG_IPV6_UDP;
const LEAST_ADDRESSES: u64 = dpdk_sys::RTE_ETH_RSS_IPV4 | dpdk_sys::RTE_ETH_RSS_IPV6;
const ADDRESSES: u64 = dpdk_sys::RTE_ETH_RSS_IPV4
    | dpdk_sys::RTE_ETH_RSS_FRAG_IPV4
    | dpdk_sys::RTE_ETH_RSS_NONFRAG_IPV4_OTHER
    | dpdk_sys::RTE_ETH_RSS_IPV6
    | dpdk_sys::RTE_ETH_RSS_FRAG_IPV6
    | dpdk_sys::RTE_ETH_RSS_NONFRAG_IPV6_OTHER;

/// Source addresses alone, and destination addresses alone.
const SOURCE_ONLY: u64 = 1 << dpdk_sys::WEIR_RSS_L3_SRC_ONLY_BIT;
const DESTINATION_ONLY: u64 = dpdk_sys::RTE_ETH_RSS_L3_DST_ONLY;
const ONE_ADDRESS: u64 = SOURCE_ONLY | DESTINATION_ONLY;

/// Asks for RSS if the device can do it in weir's way; `conf` points to `key` then, which has to live until it was used. True if
/// it spreads packets exactly as this port is to: one that cannot tell source from destination is asked to spread by addresses and
/// ports all the same, so that all workers have their share of what is to be handed over.
pub(crate) fn configure(
    conf: &mut rte_eth_conf,
    info: &rte_eth_dev_info,
    key: &mut Key,
    spread: Spread,
) -> bool {
    let size = usize::from(info.reta_size);
    let repeats = size >= INDIRECTION && size.is_power_of_two();
    let (Some(len), Some((types, exact)), true) = (key_len(info), types(info, spread), repeats) else {
        return false;
    };
    conf.rxmode.mq_mode = dpdk_sys::rte_eth_rx_mq_mode_RTE_ETH_MQ_RX_RSS;
    let rss = &mut conf.rx_adv_conf.rss_conf;
    (rss.rss_key, rss.rss_key_len) = (key.as_mut_ptr(), len);
    rss.rss_hf = types;
    exact
}

/// What is hashed, and whether that is what the port is to be spread by.
pub(crate) fn types(info: &rte_eth_dev_info, spread: Spread) -> Option<(u64, bool)> {
    let offered = info.flow_type_rss_offloads;
    let only = match spread {
        Spread::Flow | Spread::Both => 0,
        Spread::Source => SOURCE_ONLY,
        Spread::Destination => DESTINATION_ONLY,
    };
    let wanted = LEAST_ADDRESSES | only;
    if only != 0 && offered & wanted == wanted {
        return Some((offered & ADDRESSES | only, true));
    }
    let by_flow = offered & WITH_PORTS == WITH_PORTS;
    by_flow.then_some((offered & (WITH_PORTS | ADDRESSES), spread == Spread::Flow))
}

/// Whether a device that was asked for `types` and says that it hashes `read` spreads packets as it was asked to: with ports or
/// without, both addresses or one. Of fragments and other protocols it may do as it likes, which costs a hand-over each.
pub(crate) fn keeps(types: u64, read: u64) -> bool {
    let addresses = if types & ONE_ADDRESS == 0 { 0 } else { LEAST_ADDRESSES };
    let decisive = WITH_PORTS | ONE_ADDRESS | addresses;
    read & decisive == types & decisive
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
        let (hashed, exact) = asked_for(info, Spread::Flow);
        exact.then_some(hashed)
    }

    fn asked_for(info: &rte_eth_dev_info, spread: Spread) -> (u64, bool) {
        // SAFETY: as above.
        let mut conf: rte_eth_conf = unsafe { std::mem::zeroed() };
        let exact = configure(&mut conf, info, &mut key(spread), spread);
        (conf.rx_adv_conf.rss_conf.rss_hf, exact)
    }

    #[test]
    fn where_clients_are_preserved_one_address_alone_is_hashed_if_the_device_can() {
        let all = info(u64::MAX, 512, 40);
        assert_eq!(asked_for(&all, Spread::Source), (ADDRESSES | SOURCE_ONLY, true));
        assert_eq!(asked_for(&all, Spread::Destination), (ADDRESSES | DESTINATION_ONLY, true));
        assert_eq!(asked_for(&all, Spread::Both), (ADDRESSES | WITH_PORTS, false), "on one arm");
        let few = info(LEAST_ADDRESSES | SOURCE_ONLY, 128, 40);
        assert_eq!(asked_for(&few, Spread::Source), (LEAST_ADDRESSES | SOURCE_ONLY, true));
        assert_eq!(asked_for(&few, Spread::Destination), (0, false), "neither one nor the other");
        let usual = info(WITH_PORTS | ADDRESSES, 128, 40);
        assert_eq!(asked_for(&usual, Spread::Destination), (ADDRESSES | WITH_PORTS, false), "handed over");
        assert_eq!(key(Spread::Source)[..40], dataplane::rss::CLIENT_KEY);
        assert_eq!(key(Spread::Flow)[..40], dataplane::rss::DEFAULT_KEY);
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
    fn a_device_that_hashes_something_else_than_it_was_asked_to_is_noticed() {
        let flow = WITH_PORTS | ADDRESSES;
        assert!(keeps(flow, flow) && keeps(flow, WITH_PORTS), "fragments may come as they like");
        for kind in [
            dpdk_sys::RTE_ETH_RSS_NONFRAG_IPV4_TCP,
            dpdk_sys::RTE_ETH_RSS_NONFRAG_IPV4_UDP,
            dpdk_sys::RTE_ETH_RSS_NONFRAG_IPV6_TCP,
            dpdk_sys::RTE_ETH_RSS_NONFRAG_IPV6_UDP,
        ] {
            assert!(!keeps(flow, flow & !kind), "{kind:x} is hashed without ports");
            assert!(!keeps(ADDRESSES | SOURCE_ONLY, ADDRESSES | SOURCE_ONLY | kind), "{kind:x} with them");
        }
        assert!(!keeps(flow, flow | SOURCE_ONLY) && !keeps(flow, 0));
        for (only, other) in [(SOURCE_ONLY, DESTINATION_ONLY), (DESTINATION_ONLY, SOURCE_ONLY)] {
            let types = LEAST_ADDRESSES | only;
            assert!(keeps(types, types) && keeps(types, ADDRESSES | only));
            for read in [LEAST_ADDRESSES, LEAST_ADDRESSES | other, types | other, only, 0] {
                assert!(!keeps(types, read), "{types:x}, {read:x}");
            }
            assert!(!keeps(types, types & !dpdk_sys::RTE_ETH_RSS_IPV6), "clients of IPv6 anywhere");
        }
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
