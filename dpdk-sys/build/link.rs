//! What of DPDK is linked.

use crate::Dpdk;

/// Libraries whose functions the bindings name. Shared drivers are loaded by EAL at run time.
const SHARED: [&str; 6] = ["rte_eal", "rte_ethdev", "rte_mbuf", "rte_mempool", "rte_ring", "rte_net_ring"];

/// Drivers in a static binary: all virtual devices that weir is tested with and the common network cards that need no
/// library of their vendor. For others (mlx5, bnxt, ...) use shared linking. What a release of DPDK does not have is left out.
const STATIC_DRIVERS: [&str; 26] = [
    "common_iavf",
    "common_idpf",
    "bus_auxiliary",
    "bus_pci",
    "bus_vdev",
    "bus_vmbus",
    "mempool_ring",
    "net_af_packet",
    "net_af_xdp",
    "net_bond",
    "net_e1000",
    "net_ena",
    "net_i40e",
    "net_iavf",
    "net_ice",
    "net_igc",
    "net_ixgbe",
    "net_memif",
    "net_netvsc",
    "net_null",
    "net_pcap",
    "net_ring",
    "net_tap",
    "net_vhost",
    "net_virtio",
    "net_vmxnet3",
];

/// Libraries that these drivers and the bindings need; `log` and `argparse` since DPDK 23.11 and 24.11.
const STATIC_CORE: [&str; 19] = [
    "vhost",
    "security",
    "cryptodev",
    "dmadev",
    "gso",
    "timer",
    "hash",
    "rcu",
    "pci",
    "ethdev",
    "net",
    "mbuf",
    "mempool",
    "ring",
    "eal",
    "argparse",
    "log",
    "telemetry",
    "kvargs",
];

/// System libraries that the static archives refer to.
const STATIC_SYSTEM: [&str; 9] = ["numa", "fdt", "bsd", "pcap", "xdp", "bpf", "elf", "z", "jansson"];

/// Tells cargo. The shim has been printed before: it refers to DPDK.
pub fn print(dpdk: &Dpdk) -> Result<(), String> {
    println!("cargo::rustc-link-search=native={}", dpdk.libdir.display());
    println!("cargo::metadata=libdir={}", dpdk.libdir.display());
    if std::env::var_os("CARGO_FEATURE_STATIC").is_none() {
        for library in SHARED {
            println!("cargo::rustc-link-lib=dylib={library}");
        }
        return Ok(());
    }
    let archive = |name: &str| dpdk.libdir.join(format!("librte_{name}.a"));
    if !archive("eal").exists() {
        return Err(format!("the feature `static` needs librte_eal.a in {}", dpdk.libdir.display()));
    }
    for name in STATIC_DRIVERS.iter().chain(&STATIC_CORE).filter(|name| archive(name).exists()) {
        // Whole: drivers register themselves in constructors that nothing refers to. Not bundled: the archives stay
        // where they are until the binary is linked.
        println!("cargo::rustc-link-lib=static:+whole-archive,-bundle=rte_{name}");
    }
    for name in STATIC_SYSTEM {
        println!("cargo::rustc-link-lib=dylib={name}");
    }
    Ok(())
}
