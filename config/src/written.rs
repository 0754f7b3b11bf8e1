//! The file as written: one struct per table, one field per key. The keys and their bounds are here and nowhere else.

use std::net::IpAddr;

use dataplane::snapshot::{Algorithm, Fallback, SynCookies, TcpProfile};

use crate::process::{Device, Hugepages, Idle, LogDestination, Workers};
use crate::read::{Given, List, Part, Required, Tables, section};
use crate::value::choice::{FailActionWritten, MonitorType, ProxyHeader, Run, WindowScale};
use crate::value::network::{Network, OwnAddress, Ports, ServicePorts};
use crate::value::quantity::{H, Int, MS, S, Size, Time};
use crate::value::text::{Name, Payload, SocketPath};

/// A port of TCP or UDP.
pub(crate) type Port = Int<1, 65535>;
/// Idle times.
pub(crate) type IdleTime = Time<S, { 24 * H }>;
/// Times that somebody waits for something.
pub(crate) type WaitTime = Time<{ 10 * MS }, { H }>;
/// Health monitor times.
pub(crate) type MonitorTime = Time<{ 10 * MS }, { 24 * H }>;
/// Payload held per flow.
pub(crate) type Buffer = Size<2048, { 1 << 20 }>;
/// Flows, and parts of them.
pub(crate) type Flows = Int<64, { 1 << 30 }>;
/// Flows that a server may have.
pub(crate) type Connections = Int<1, { 1 << 30 }>;
/// Descriptors of a queue: two short bursts at least.
pub(crate) type Descriptors = Int<128, 16384>;

section! {
    /// The whole file.
    File, "the file" {
        interface: Tables<Interface>,
        route: Tables<Route>,
        snat: Part<Snat>,
        pool: Tables<Pool>,
        pool_group: Tables<PoolGroup>,
        parser: Tables<Parser>,
        datascript_set: Tables<DatascriptSet>,
        virtual_service: Tables<VirtualService>,
        limits: Part<Limits>,
        dpdk: Part<Dpdk>,
        log: Part<Log>,
        admin: Part<Admin>,
    }
}

section! {
    Interface, "[[interface]]" {
        name: Required<Name>,
        device: Required<Device>,
        addresses: List<OwnAddress>,
        vlan: Given<Int<1, 4094>>,
        mtu: Given<Int<576, 9216>>,
    }
}

section! {
    Route, "[[route]]" {
        to: Required<Network>,
        via: Required<IpAddr>,
    }
}

section! {
    Snat, "[snat]" {
        addresses: List<IpAddr>,
        ports: Given<Ports>,
        monitor_ports: Given<Ports>,
    }
}

section! {
    Pool, "[[pool]]" {
        name: Required<Name>,
        algorithm: Given<Algorithm>,
        servers: Tables<Server>,
        fail_action: FailActionWritten,
        port_translation: Given<bool>,
        max_connections_per_server: Given<Connections>,
        health_monitor: Tables<HealthMonitor>,
        tcp: Part<PoolTcp>,
    }
}

section! {
    Server, "an element of `servers`" {
        address: Required<IpAddr>,
        port: Required<Port>,
        weight: Given<Int<1, 256>>,
        hostname: Given<Name>,
        enabled: Given<bool>,
        max_connections: Given<Connections>,
    }
}

section! {
    HealthMonitor, "[[pool.health_monitor]]" {
        kind as "type": Required<MonitorType>,
        interval: Given<MonitorTime>,
        timeout: Given<MonitorTime>,
        rise: Given<Int<1, 255>>,
        fall: Given<Int<1, 255>>,
        port: Given<Port>,
        send: Given<Payload>,
        expect: Given<Payload>,
    }
}

section! {
    PoolTcp, "[pool.tcp]" {
        mss: Given<Int<88, 9176>>,
        window_scale: Given<WindowScale>,
        sack: Given<bool>,
        timestamps: Given<bool>,
        connect_timeout: Given<WaitTime>,
        connect_retries: Given<Int<0, 255>>,
        proxy_protocol: Given<ProxyHeader>,
    }
}

section! {
    PoolGroup, "[[pool_group]]" {
        name: Required<Name>,
        members: Tables<PoolGroupMember>,
    }
}

section! {
    PoolGroupMember, "an element of `members`" {
        pool: Required<Name>,
        priority: Given<Int<0, 65535>>,
        ratio: Given<Int<0, 1000>>,
    }
}

section! {
    Parser, "[[parser]]" {
        name: Required<Name>,
        file: Required<String>,
    }
}

section! {
    DatascriptSet, "[[datascript_set]]" {
        name: Required<Name>,
        request: Given<String>,
        request_inline: Given<String>,
        response: Given<String>,
        response_inline: Given<String>,
        pools: List<Name>,
        pool_groups: List<Name>,
        parsers: List<Name>,
    }
}

section! {
    VirtualService, "[[virtual_service]]" {
        name: Required<Name>,
        addresses: List<IpAddr>,
        ports: List<ServicePorts>,
        pool: Given<Name>,
        pool_group: Given<Name>,
        datascript_sets: List<Name>,
        log_connections: Given<bool>,
        preserve_client_ip: Given<bool>,
        tcp: Part<ServiceTcp>,
        udp: Part<ServiceUdp>,
        datascript: Part<ServiceDatascript>,
        tables: Part<TableSizes>,
    }
}

section! {
    ServiceTcp, "[virtual_service.tcp]" {
        profile: Given<TcpProfile>,
        idle_timeout: Given<IdleTime>,
        handshake_timeout: Given<WaitTime>,
        first_payload_timeout: Given<WaitTime>,
        on_first_payload_timeout: Given<Fallback>,
        reset_on_idle: Given<bool>,
        mss: Given<Int<88, 9176>>,
        syn_cookies: Given<SynCookies>,
        accept_proxy_from: List<Network>,
        buffer: Given<Buffer>,
    }
}

section! {
    ServiceUdp, "[virtual_service.udp]" {
        per_packet: Given<bool>,
        idle_timeout: Given<IdleTime>,
        first_payload_timeout: Given<WaitTime>,
        on_first_payload_timeout: Given<Fallback>,
        buffer: Given<Buffer>,
    }
}

section! {
    ServiceDatascript, "[virtual_service.datascript]" {
        run: Given<Run>,
        on_script_error: Given<Fallback>,
        debug_log: Given<bool>,
    }
}

section! {
    TableSizes, "[virtual_service.tables]" {
        entries: Given<Int<0, 16_777_216>>,
        key_bytes: Given<Size<1, 65536>>,
        value_bytes: Given<Size<1, { 1 << 20 }>>,
        bytes: Given<Size<0, { 64 << 30 }>>,
    }
}

section! {
    Limits, "[limits]" {
        flows: Given<Flows>,
        embryonic: Given<Flows>,
        syn_cookies_above: Given<Int<0, { 1 << 30 }>>,
        waiting: Given<Flows>,
        spliced: Given<Flows>,
        neighbors: Given<Int<16, 65535>>,
        fragment_memory: Given<Size<0, { 1 << 30 }>>,
        script_budget: Given<Time<10, { S }>>,
        script_memory: Given<Size<{ 1 << 20 }, { 1 << 30 }>>,
    }
}

section! {
    Dpdk, "[dpdk]" {
        eal_args: List<String>,
        rx_descriptors: Given<Descriptors>,
        tx_descriptors: Given<Descriptors>,
        mbufs: Given<Int<1024, 16_777_215>>,
        hugepages: Given<Hugepages>,
        workers: Given<Workers>,
        cpus: List<Int<0, 1023>>,
        idle: Given<Idle>,
    }
}

section! {
    Log, "[log]" {
        connections: Given<LogDestination>,
    }
}

section! {
    Admin, "[admin]" {
        socket: Given<SocketPath>,
    }
}
