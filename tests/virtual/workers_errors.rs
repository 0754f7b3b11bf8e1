//! ICMP errors about the flows of several workers, from either side. They have no ports to hash, so they mostly come to a
//! worker that does not have the flow.

use std::net::SocketAddr;

use crate::icmp::{error, quoted};
use crate::inside::*;
use crate::wire::{self, Packet, Transport};
use crate::workers::{rss, total};
use crate::world::*;

const WORKERS: usize = 3;
const FLOWS: u16 = 30;
/// A client, a VIP and a server of each family.
const FAMILIES: [[&str; 3]; 2] = [
    ["192.0.2.100", "192.0.2.10:443", "10.0.0.22"],
    ["2001:db8:1::100", "[2001:db8:1::10]:443", "2001:db8:2::22"],
];

/// The hosts of a family, and the service between them.
struct Scene {
    client: HostId,
    server: HostId,
    vip: SocketAddr,
}

/// A flow that has carried something both ways: the last packets that weir has sent of it.
struct Carried {
    to_client: Packet,
    to_server: Packet,
}

/// A new flow of a client's port.
fn carried(world: &mut World, scene: &Scene, tcp: bool, port: u16) -> Carried {
    let &Scene { client, server, vip } = scene;
    if tcp {
        let (there, here) = (world.listen(server, 443), world.connect(client, port, &vip.to_string()));
        world.talk(here).say(b"request");
        world.settle();
        world.talk(there).say(b"answer");
        world.settle();
        assert_eq!(world.talk(here).received, b"answer");
    } else {
        world.datagram(client, port, vip.to_string(), b"request");
        world.settle();
        let request = world.inbox(server).remove(0);
        world.datagram(server, 443, request.source.to_string(), b"answer");
        world.settle();
        assert_eq!(world.payloads(client), [b"answer"]);
    }
    let ends =
        [(client, port), (server, 443)].map(|(host, port)| SocketAddr::new(world.at(host).address, port));
    let [to_client, to_server] =
        ends.map(|end| world.left.iter().rfind(|packet| packet.destination == end).unwrap().clone());
    Carried { to_client, to_server }
}

/// The packet that would come after this one, as somebody on its way sees it who cannot forward it.
fn next(packet: &Packet) -> Vec<u8> {
    let Packet { source, destination, transport, payload } = packet;
    let Transport::Tcp(header) = transport else { return wire::udp(*source, *destination, payload) };
    let mut header = (**header).clone();
    header.sequence_number = header.sequence_number.wrapping_add(payload.len() as u32);
    wire::tcp(*source, *destination, header, &[7; 100])
}

/// Its receiver's error about a packet comes to who sent it, in that host's own terms; `other` is the last packet the other way.
/// True if the error came to another worker than the flow's packets do.
fn report(world: &mut World, [from, to]: [HostId; 2], packet: &Packet, other: &Packet) -> bool {
    let message = error(packet.destination.ip(), packet.source.ip(), None, &next(packet));
    let queue = |frame: &[u8]| rss(frame, WORKERS);
    let answer = wire::udp(packet.destination, packet.source, b"");
    let astray = queue(&world.framed(from, &message)) != queue(&world.framed(from, &answer));
    world.at(from).outbox.push(message);
    world.settle();
    let errors = world.inbox(to);
    let [ref error] = errors[..] else { panic!("one error: {errors:?}") };
    let unreachable = Transport::Icmp(if packet.source.is_ipv4() { 3 } else { 1 });
    assert_eq!((&error.transport, error.source.ip()), (&unreachable, other.source.ip()));
    let (source, destination, seq) = quoted(error);
    assert_eq!((source, destination), (other.destination, other.source));
    if let Transport::Tcp(header) = &other.transport {
        assert_eq!(seq, header.acknowledgment_number, "its own number, and no other's");
    }
    astray
}

#[test]
fn errors_about_a_flow_reach_its_worker_from_either_side() {
    let pools = pools(&[("a", &["10.0.0.22:443", "[2001:db8:2::22]:443"])]);
    let service = scripted("tcp/443", "a", &["a"], "avi.vs.log(avi.l4.read(1))");
    let service = with_ipv6(&service.replace("\"tcp/443\"", "\"tcp/443\", \"udp/443\""));
    let toml = format!("{TWO_ARMS}{pools}{service}");
    let mut world = World::with_workers(&toml, WORKERS as u8, |frame| rss(frame, WORKERS));
    let mut all_astray = 0;
    for [client, vip, server] in FAMILIES {
        let (client, server) = (world.host(OUTSIDE, client), world.host(INSIDE, server));
        let scene = Scene { client, server, vip: socket(vip) };
        for tcp in [false, true] {
            let mut astray = [0, 0];
            for port in 5000..5000 + FLOWS {
                let Carried { to_client, to_server } = carried(&mut world, &scene, tcp, port);
                astray[0] += u64::from(report(&mut world, [server, client], &to_server, &to_client));
                astray[1] += u64::from(report(&mut world, [client, server], &to_client, &to_server));
            }
            assert!(astray.iter().all(|count| *count > 5), "TCP {tcp}, {vip}: {astray:?}");
            all_astray += astray.iter().sum::<u64>();
        }
    }
    let sum = total(&world);
    assert_eq!((sum.handed_over, sum.taken_over, sum.dropped_total()), (all_astray, all_astray, 0));
    world.finish();
}
