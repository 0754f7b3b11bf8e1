//! Source ports of several workers: together they have each once, and each worker those whose replies come to it.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use dataplane::counters::DropReason;

use crate::inside::*;
use crate::wire::{self, Packet};
use crate::workers::{rss, total};
use crate::world::*;

const PORTS: std::ops::RangeInclusive<u16> = 20_000..=20_049;
/// Numbers of workers, each with a card's choice among their queues.
const BY_RSS: [(u8, Choice); 3] =
    [(2, |frame| rss(frame, 2)), (3, |frame| rss(frame, 3)), (5, |frame| rss(frame, 5))];

type Choice = fn(&[u8]) -> usize;

/// A client sends the first packet of one flow after another until long after all ports are used up: what the server got.
fn first_packets(
    world: &mut World,
    client: HostId,
    server: HostId,
    vip: &str,
    tcp: bool,
) -> Vec<(u16, Packet)> {
    let mut seen = Vec::new();
    for port in 1024..1424 {
        let source = SocketAddr::new(world.at(client).address, port);
        let packet = match tcp {
            true => wire::tcp(source, socket(vip), wire::flags("S", 7, 0), b""),
            false => wire::udp(source, socket(vip), b"request"),
        };
        world.at(client).outbox.push(packet);
        world.settle();
        seen.extend(world.inbox(server).into_iter().map(|packet| (port, packet)));
    }
    seen
}

#[test]
fn each_source_port_is_handed_out_once_by_the_worker_to_which_replies_come() {
    let network = TWO_ARMS.replace("20000-29999", &format!("{}-{}", PORTS.start(), PORTS.end()));
    let pools = pools(&[("a", &["10.0.0.22:443", "[2001:db8:2::22]:443"])]);
    let service = with_ipv6(&plain("tcp/443", "a").replace("\"tcp/443\"", "\"tcp/443\", \"udp/443\""));
    let toml = format!("{network}{pools}{service}[virtual_service.tcp]\nprofile = \"fast_path\"\n");
    for (workers, queue) in BY_RSS {
        let mut world = World::with_workers(&toml, workers, queue);
        world.scrutinize = false;
        for (client, vip, server, snat) in [
            ("192.0.2.100", "192.0.2.10:443", "10.0.0.22", "10.0.0.2"),
            ("2001:db8:1::100", "[2001:db8:1::10]:443", "2001:db8:2::22", "2001:db8:2::2"),
        ] {
            let at = address(client);
            let (client, server) = (world.silent(OUTSIDE, client), world.silent(INSIDE, server));
            for tcp in [false, true] {
                let refused = total(&world).dropped_for(DropReason::SnatExhausted);
                let seen = first_packets(&mut world, client, server, vip, tcp);
                let given: BTreeSet<SocketAddr> = seen.iter().map(|(_, packet)| packet.source).collect();
                let all = PORTS.map(|port| SocketAddr::new(address(snat), port)).collect();
                assert_eq!(given, all, "{workers} workers, {vip}, TCP {tcp}");
                assert_eq!(seen.len(), given.len(), "none twice");
                let refused = total(&world).dropped_for(DropReason::SnatExhausted) - refused;
                assert_eq!(refused, 400 - seen.len() as u64);
                for (port, packet) in seen {
                    let request = wire::udp(SocketAddr::new(at, port), socket(vip), b"");
                    let reply = wire::udp(packet.destination, packet.source, b"");
                    let (request, reply) = (world.framed(client, &request), world.framed(server, &reply));
                    assert_eq!(queue(&request), queue(&reply), "{port}, {packet:?}");
                }
            }
        }
        assert_eq!(total(&world).handed_over, 0);
        world.seconds(700);
        world.assert_empty();
    }
}
