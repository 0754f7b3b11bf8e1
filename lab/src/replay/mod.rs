//! Captures played against a configuration: [`replay`].
//!
//! The client packets of a capture come to weir at their own, virtual, times. Link layer, checksums and what a client says
//! about the other side (acknowledgements, echoed timestamps, SACK blocks) are made anew for the weir that answers
//! here; sequence numbers, options, sizes, order and repetitions of the client's packets are those of the capture. Servers are simulated:
//! they take every connection, and say what the servers of the capture said, as far as it is there.

mod capture;
mod client;
mod expect;
mod flow;
mod link;
mod output;
mod player;
mod question;
mod report;
mod server;
mod sources;
mod text;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use dataplane::script_trace::Detail;
use dataplane::snapshot::{Prefix, Protocol, Route, ServiceId, Snapshot};

use crate::error::LabError;
use crate::options::{Blueprint, Options, Tracing};
use crate::world::Frame;

pub use capture::{Capture, CaptureError, Captured, read};
pub use expect::{Difference, compare};
pub use output::pcapng;
pub use question::{Question, explain};
pub use report::{FlowReport, Report, ScriptReport, Step};

use player::Player;

/// Most flows of a replay at a time.
const FLOWS: u32 = 1 << 16;
/// Room for flows in the lab of a small capture.
const LEAST_FLOWS: u32 = 256;
/// Steps of a run that are kept.
const STEPS: usize = 20_000;

/// An address of the capture that stands for one of the configuration, with ports or without.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mapping {
    /// In the capture.
    pub from: (IpAddr, Option<u16>),
    /// In the configuration.
    pub to: (IpAddr, Option<u16>),
}

impl Mapping {
    fn apply(&self, address: SocketAddr) -> Option<SocketAddr> {
        let fits = address.ip() == self.from.0 && self.from.1.is_none_or(|port| port == address.port());
        fits.then(|| SocketAddr::new(self.to.0, self.to.1.unwrap_or(address.port())))
    }
}

/// `ADDRESS[:PORT]=ADDRESS[:PORT]`.
impl std::str::FromStr for Mapping {
    type Err = String;

    fn from_str(text: &str) -> Result<Mapping, String> {
        let (from, to) =
            text.split_once('=').ok_or("an address of the capture and one of the configuration: A=B")?;
        let (from, to) = (end(from)?, end(to)?);
        if from.0.is_ipv4() != to.0.is_ipv4() {
            return Err(format!("{text}: one is IPv4, the other IPv6"));
        }
        Ok(Mapping { from, to })
    }
}

fn end(text: &str) -> Result<(IpAddr, Option<u16>), String> {
    if let Ok(address) = text.parse::<IpAddr>() {
        return Ok((address, None));
    }
    let socket: Result<SocketAddr, _> = text.parse();
    socket.map(|socket| (socket.ip(), Some(socket.port()))).map_err(|_| format!("{text} is no address"))
}

/// How a capture is played.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// Addresses of the capture that stand for VIPs.
    pub vips: Vec<Mapping>,
    /// A clock for the time that scripts take.
    pub stopwatch: Option<fn() -> u64>,
    /// The world ends with the last packet, instead of some seconds later.
    pub stop_at_once: bool,
}

/// Why nothing was played.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// The file is no capture.
    #[error(transparent)]
    Capture(#[from] CaptureError),
    /// No lab.
    #[error(transparent)]
    Lab(#[from] LabError),
    /// The capture has another link type.
    #[error(
        "the capture's link type {0} is not understood: Ethernet (1), raw IP (12, 14, 101, 228, 229), null and loop (0, 108), Linux cooked (113, 276) are"
    )]
    Link(i32),
    /// No service has what was asked for.
    #[error("{0}")]
    Unserved(String),
    /// No packet is for a VIP.
    #[error("no packet of the capture goes to a VIP of the configuration{0}")]
    Nobody(String),
}

/// What came of it.
pub struct Replayed {
    /// What happened to each flow.
    pub report: Report,
    /// Every frame to and from weir, with the capture's times: those of the lab begin at `epoch` nanoseconds after 1970.
    pub frames: Vec<Frame>,
    /// See `frames`.
    pub epoch: i128,
    /// Names of the interfaces.
    pub interfaces: Vec<String>,
}

/// Plays the client packets of a capture.
///
/// # Errors
/// [`ReplayError`].
pub fn replay(snapshot: &Snapshot, file: &[u8], settings: &Settings) -> Result<Replayed, ReplayError> {
    play(snapshot, &read(file)?, settings)
}

/// As [`replay`], for packets that come from somewhere else.
///
/// # Errors
/// [`ReplayError`].
pub fn play(snapshot: &Snapshot, capture: &Capture, settings: &Settings) -> Result<Replayed, ReplayError> {
    let snapshot = prepared(snapshot, capture, settings);
    let tracing = Tracing { detail: Detail::Lines, steps: STEPS };
    let flows = u32::try_from(capture.packets.len()).unwrap_or(FLOWS).clamp(LEAST_FLOWS, FLOWS);
    let options = Options { flows, explain: true, keep_frames: true, ..Options::default() };
    let traced = Options { trace: Some(tracing), ..options };
    let mut player = Player::new(Blueprint::new(&snapshot.0, traced).lab()?, capture, settings);
    player.notes.extend(snapshot.1);
    let mut replayed = player.play(capture)?;
    if settings.stopwatch.is_some() {
        // Once more without traces, which take most of the time.
        let timed = Options { stopwatch: settings.stopwatch, keep_frames: false, ..options };
        let mut player = Player::new(Blueprint::new(&snapshot.0, timed).lab()?, capture, settings);
        player.timed = true;
        replayed.report.take_times(&player.play(capture)?.report);
    }
    Ok(replayed)
}

/// The configuration as a replay needs it: every connection has a record, and there is a way back to every client.
fn prepared(snapshot: &Snapshot, capture: &Capture, settings: &Settings) -> (Snapshot, Vec<String>) {
    let mut snapshot = snapshot.clone();
    snapshot.services.iter_mut().for_each(|service| service.log_connections = true);
    let mut notes = Vec::new();
    for (address, network) in strangers(&snapshot, capture, settings) {
        let Some(via) = gateway(&snapshot, address) else { continue };
        snapshot.routes.push(Route { to: network, via });
        notes.push(format!(
            "the configuration has no route to clients such as {address}: one over {via} is assumed"
        ));
    }
    (snapshot, notes)
}

/// A client of each family to which no route leads, with the network of all.
fn strangers(snapshot: &Snapshot, capture: &Capture, settings: &Settings) -> Vec<(IpAddr, Prefix)> {
    let routes = dataplane::route::Routes::new(snapshot);
    let mut joiner = crate::packet::Joiner::default();
    let mut found: Vec<(IpAddr, Prefix)> = Vec::new();
    for packet in &capture.packets {
        let link::Content::Seen(seen) = link::content(packet, &mut joiner) else { continue };
        let address = seen.source.ip();
        let is_client = service(snapshot, protocol(&seen), mapped(seen.destination, settings)).is_some();
        let known = found.iter().any(|(other, _)| other.is_ipv4() == address.is_ipv4());
        if is_client && !known && routes.lookup(address.into()).is_none() {
            let all: IpAddr = match address {
                IpAddr::V4(_) => std::net::Ipv4Addr::UNSPECIFIED.into(),
                IpAddr::V6(_) => std::net::Ipv6Addr::UNSPECIFIED.into(),
            };
            found.push((address, Prefix { address: all, length: 0 }));
        }
    }
    found
}

/// A neighbour that weir could have: on the subnet of a VIP if there is one, else on any.
fn gateway(snapshot: &Snapshot, address: IpAddr) -> Option<IpAddr> {
    let vips = snapshot.services.iter().flat_map(|service| &service.addresses);
    let near = vips.filter(|vip| vip.is_ipv4() == address.is_ipv4()).find_map(|vip| snapshot.connected(*vip));
    let subnets = || snapshot.interfaces.iter().flat_map(|interface| &interface.addresses);
    let own = near.map(|(_, own)| own);
    let prefix = subnets()
        .find(|prefix| own == Some(prefix.address))
        .or_else(|| subnets().find(|prefix| prefix.address.is_ipv4() == address.is_ipv4()))?;
    let beside = |step: u8| match prefix.address {
        IpAddr::V4(own) => IpAddr::from(std::net::Ipv4Addr::from_bits(own.to_bits() ^ u32::from(step))),
        IpAddr::V6(own) => IpAddr::from(std::net::Ipv6Addr::from_bits(own.to_bits() ^ u128::from(step))),
    };
    let taken = |address: &IpAddr| {
        let mut servers = snapshot.servers.iter().map(|server| server.address);
        let mut vips = snapshot.services.iter().flat_map(|service| service.addresses.iter().copied());
        snapshot.snat.addresses.contains(address)
            || servers.any(|server| server == *address)
            || vips.any(|vip| vip == *address)
    };
    (1..=255).rev().map(beside).find(|address| prefix.contains(*address) && !taken(address))
}

fn protocol(seen: &link::Seen) -> Protocol {
    if seen.tcp.is_some() { Protocol::Tcp } else { Protocol::Udp }
}

fn mapped(address: SocketAddr, settings: &Settings) -> SocketAddr {
    settings.vips.iter().find_map(|mapping| mapping.apply(address)).unwrap_or(address)
}

/// The service that has this VIP and port.
fn service(snapshot: &Snapshot, protocol: Protocol, vip: SocketAddr) -> Option<ServiceId> {
    let place = snapshot.services.iter().position(|service| {
        let ports = &service.ports;
        service.addresses.contains(&vip.ip())
            && ports.iter().any(|p| p.protocol == protocol && (p.first..=p.last).contains(&vip.port()))
    })?;
    u16::try_from(place).ok().map(ServiceId)
}

/// The names of a configuration's interfaces.
fn interface_names(snapshot: &Arc<Snapshot>) -> Vec<String> {
    snapshot.interfaces.iter().map(|interface| interface.name.clone()).collect()
}
