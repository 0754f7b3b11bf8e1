//! `weir explain` against a configuration: what would become of a client that comes now.

use std::net::SocketAddr;

use dataplane::snapshot::{Protocol, Snapshot};
use etherparse::TcpHeader;

use super::capture::{Capture, Captured, RAW};
use super::{ReplayError, Replayed, Settings, play, service};
use crate::packet;

/// The client's first sequence number.
const ISN: u32 = 1000;
/// Bytes of payload in a segment.
const SEGMENT: usize = 1200;
/// Nanoseconds between two packets.
const STEP: i128 = 1_000_000;

/// Who comes, and with what.
#[derive(Clone, Debug)]
pub struct Question {
    /// TCP or UDP.
    pub protocol: Protocol,
    /// The client.
    pub client: SocketAddr,
    /// Whom it comes to.
    pub vip: SocketAddr,
    /// Its first bytes, or its datagram; `None`: it says nothing.
    pub payload: Option<Vec<u8>>,
}

/// What weir would do: a replay of one flow. No packet is sent but in a lab, in which all servers are up and have no flows, and all tables are
/// empty.
///
/// # Errors
/// As a replay's. [`ReplayError::Nobody`]: no service has this VIP and port; its text names those that there are.
pub fn explain(snapshot: &Snapshot, question: &Question) -> Result<Replayed, ReplayError> {
    if service(snapshot, question.protocol, question.vip).is_none() {
        return Err(ReplayError::Unserved(unserved(snapshot, question)));
    }
    let capture = Capture { packets: packets(question), notes: Vec::new() };
    let settings = Settings { stop_at_once: true, ..Settings::default() };
    let mut replayed = play(snapshot, &capture, &settings)?;
    let routes = replayed.report.notes.iter().filter(|note| note.contains("no route")).cloned();
    let notes: Vec<String> = routes.collect();
    for flow in &mut replayed.report.flows {
        flow.notes.extend(notes.iter().cloned());
        if question.payload.is_none() && flow.scripts.is_empty() && flow.servers.is_empty() {
            let note = "a server is chosen on the first payload: give one with --payload or --hex";
            flow.notes.push(note.to_owned());
        }
        if flow.end == "open" {
            "the flow goes on".clone_into(&mut flow.meaning);
        }
    }
    Ok(replayed)
}

fn unserved(snapshot: &Snapshot, question: &Question) -> String {
    let Question { protocol, vip, .. } = question;
    let services = snapshot.services.iter().map(|service| {
        let addresses = service.addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        let ports = service.ports.iter().map(|range| {
            let ports = if range.first == range.last {
                range.first.to_string()
            } else {
                format!("{}-{}", range.first, range.last)
            };
            format!("{}/{ports}", super::report::name(range.protocol))
        });
        format!("'{}' has {addresses} {}", service.name, ports.collect::<Vec<_>>().join(" "))
    });
    format!(
        "no virtual service has {}/{} at {}: {}",
        super::report::name(*protocol),
        vip.port(),
        vip.ip(),
        services.collect::<Vec<_>>().join("; ")
    )
}

/// The client's packets.
fn packets(question: &Question) -> Vec<Captured> {
    let Question { protocol, client, vip, payload } = question;
    let payload = payload.as_deref();
    let mut made: Vec<Vec<u8>> = Vec::new();
    match protocol {
        Protocol::Udp => made.extend(packet::udp(*client, *vip, payload.unwrap_or_default())),
        Protocol::Tcp => {
            let mut syn = TcpHeader::new(0, 0, ISN, u16::MAX);
            syn.syn = true;
            let options = [etherparse::TcpOptionElement::MaximumSegmentSize(1460)];
            let _ = syn.set_options(&options);
            made.extend(packet::tcp(*client, *vip, syn, &[]));
            let mut ack = TcpHeader::new(0, 0, ISN + 1, u16::MAX);
            ack.ack = true;
            made.extend(packet::tcp(*client, *vip, ack.clone(), &[]));
            for (index, chunk) in payload.unwrap_or_default().chunks(SEGMENT).enumerate() {
                ack.sequence_number = (ISN + 1).wrapping_add((index * SEGMENT) as u32);
                ack.psh = true;
                made.extend(packet::tcp(*client, *vip, ack.clone(), chunk));
            }
        }
    }
    let [_, _, raw, ..] = RAW;
    let captured = made.into_iter().enumerate().map(|(index, data)| Captured {
        number: index + 1,
        nanoseconds: index as i128 * STEP,
        link: raw,
        original: data.len(),
        data,
    });
    captured.collect()
}
