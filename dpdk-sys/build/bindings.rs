//! What of DPDK the bindings hold.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;

use bindgen::callbacks::{IntKind, ParseCallbacks};

use crate::Dpdk;

const FUNCTIONS: &str = "rte_eal_(init|cleanup|hotplug_add|hotplug_remove|get_runtime_dir|remote_launch|wait_lcore)|rte_strerror|rte_version\
    |rte_eth_dev_(configure|start|stop|close|info_get|get_port_by_name|get_name_by_port|get_mtu|set_mtu)\
    |rte_eth_dev_adjust_nb_rx_tx_desc|rte_eth_dev_rss_(reta_update|reta_query|hash_conf_get|hash_update)|rte_get_main_lcore|rte_lcore_count|rte_eth_dev_socket_id|rte_eth_(rx|tx)_queue_setup\
    |rte_eth_promiscuous_(enable|disable|get)|rte_eth_allmulticast_(enable|get)|rte_eth_macaddr_get\
    |rte_eth_stats_(get|reset)|rte_eth_call_(rx|tx)_callbacks|rte_eth_(add|remove)_(rx|tx)_callback\
    |rte_pktmbuf_pool_create|rte_mempool_(free|avail_count|in_use_count)\
    |rte_ring_(create|free)|rte_eth_from_rings|weir_.*";
const VARIABLES: &str = "rte_eth_fp_ops|WEIR_.*|RTE_(MAX_ETHPORTS|PKTMBUF_HEADROOM|MEMPOOL_.*|ETHER_.*)|MEMPOOL_.*\
    |RING_F_.*|RTE_RING_.*|SOCKET_ID_ANY|RTE_ETH_(RETA_GROUP_SIZE|NAME_MAX_LEN|LINK_.*|SPEED_.*|DEV_.*)\
    |RTE_ETH_(RX|TX)_OFFLOAD_.*|RTE_ETH_RSS_.*|RTE_MBUF_.*|EALREADY|ENOTSUP";
/// Types whose layout Rust cannot express (packed with an aligned member), and the mbuf: see shim.h.
const OPAQUE: &str = "rte_l2tpv2_combined_msg_hdr|rte_arp_hdr|rte_arp_ipv4|rte_mbuf";

/// Flags of 64 bits, which bindgen would give the smallest type that holds the value.
const WIDE: [&str; 5] =
    ["RTE_MBUF_F_", "RTE_ETH_RX_OFFLOAD_", "RTE_ETH_TX_OFFLOAD_", "RTE_ETH_RSS_", "RTE_ETH_DEV_CAPA_"];

#[derive(Debug)]
struct WideFlags;

impl ParseCallbacks for WideFlags {
    fn int_macro(&self, name: &str, _value: i64) -> Option<IntKind> {
        WIDE.iter().any(|prefix| name.starts_with(prefix)).then_some(IntKind::U64)
    }
}

/// Writes `bindings.rs` to cargo's output directory.
pub fn generate(dpdk: &Dpdk) -> Result<(), String> {
    let directory = PathBuf::from(std::env::var_os("OUT_DIR").ok_or("cargo did not set OUT_DIR")?);
    let builder = bindgen::Builder::default()
        .header("shim/shim.h")
        .clang_args(dpdk.include_paths.iter().map(|path| format!("-I{}", path.display())))
        .clang_args(&dpdk.other_flags)
        .allowlist_function(FUNCTIONS)
        .allowlist_var(VARIABLES)
        .opaque_type(OPAQUE)
        .no_copy("rte_mbuf|rte_mempool|rte_ring")
        // Macros such as RTE_BIT64(3) are only visible when clang evaluates them.
        .clang_macro_fallback()
        .clang_macro_fallback_build_dir(&directory)
        .parse_callbacks(Box::new(WideFlags))
        .derive_debug(false)
        .generate_comments(false)
        .wrap_unsafe_ops(true);
    // bindgen panics when it cannot load libclang.
    let generated = catch_unwind(AssertUnwindSafe(move || builder.generate())).map_err(|_| {
        "libclang could not be used to read DPDK's headers: on Debian, install the package libclang-dev \
         (apt-get install libclang-dev)"
    })?;
    let generated = generated.map_err(|error| format!("DPDK's headers cannot be read: {error}"))?;
    generated.write_to_file(directory.join("bindings.rs")).map_err(|error| format!("bindings.rs: {error}"))
}
