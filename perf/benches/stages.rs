//! What each stage of a packet's way costs, for itself: `cargo bench -p weir-perf`.
//!
//! What is "the long way" is what packets take that are no plain ones of an established flow. Those take a shortcut, whose stages
//! work on bursts and on each other's results: it is measured as a whole.
//!
//! Everything is warm and predictable here; among other stages, and with more flows than the caches hold, each costs more.
//! `weir-perf` measures that.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a bench that cannot be set up ends")]

use std::hint::black_box;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use dataplane::address::{Address, FlowKey};
use dataplane::balance::Balancer;
use dataplane::glance::{UNTAGGED, glance};
use dataplane::io::BURST;
use dataplane::parse::{Headers, Packet, parse};
use dataplane::policy::{Context, Event, FlowFacts, Outcome, Policy, Record};
use dataplane::rewrite::{Translation, apply};
use dataplane::snapshot::{Protocol, ServiceId, Snapshot};
use dataplane::steering::Seat;
use dataplane::table::TableStore;
use scripting::LuaPolicy;
use smoltcp::time::Instant;
use weir_perf::frame::{Family, PEER_MAC, endpoint};
use weir_perf::icount::{MAC, prepared};
use weir_perf::scenario::Scenario;
use weir_perf::tsc;

fn scenario(name: &str) -> Scenario {
    Scenario::named(name).unwrap()
}

/// Datagrams of the first flows of a scenario that is prepared.
fn datagrams(count: u32) -> Vec<Vec<u8>> {
    let mut bench = prepared(scenario("udp-1")).unwrap();
    (0..count).map(|number| bench.peers_mut().datagram(number).unwrap().to_vec()).collect()
}

fn headers(frame: &[u8]) -> Headers {
    match parse(frame, None) {
        Ok(Packet::Transport(headers)) => headers,
        other => panic!("not UDP: {other:?}"),
    }
}

fn recognise(c: &mut Criterion) {
    let frames = datagrams(BURST as u32);
    let mut group = c.benchmark_group("recognise");
    group.throughput(Throughput::Elements(BURST as u64));
    group.bench_function("glance, for the shortcut", |b| {
        b.iter(|| {
            for frame in &frames {
                black_box(glance::<UNTAGGED>(black_box(frame), MAC, 0));
            }
        });
    });
    group.bench_function("parse, the long way", |b| {
        b.iter(|| {
            for frame in &frames {
                let _ = black_box(parse(black_box(frame), None));
            }
        });
    });
    group.finish();
}

fn find(c: &mut Criterion) {
    let mut group = c.benchmark_group("hash and find, the long way");
    group.throughput(Throughput::Elements(BURST as u64));
    for name in ["udp-10k", "udp-1m"] {
        let flows = scenario(name).flows;
        let mut bench = prepared(scenario(name)).unwrap();
        let number = |n: u32| ((u64::from(n) * 0x9e37_79b9) % u64::from(flows)) as u32;
        let keys: Vec<FlowKey> =
            (0..1 << 16).map(|n| headers(bench.peers_mut().datagram(number(n)).unwrap()).key).collect();
        let table = bench.worker().pipeline().flows();
        let mut bursts = keys.chunks_exact(BURST).cycle();
        group.bench_function(BenchmarkId::from_parameter(format!("{flows} flows")), |b| {
            b.iter(|| {
                let burst = bursts.next().unwrap_or_default();
                let mut hashes = [0; BURST];
                for (hash, key) in hashes.iter_mut().zip(burst) {
                    *hash = table.hash(key);
                    table.prefetch_bucket(*hash);
                }
                hashes.iter().for_each(|hash| table.prefetch_entry(*hash));
                let found = hashes.iter().zip(burst).filter(|(hash, key)| table.find(**hash, key).is_some());
                assert_eq!(found.count(), BURST);
            });
        });
    }
    group.finish();
}

fn rewrite(c: &mut Criterion) {
    let frames = datagrams(BURST as u32);
    let known: Vec<Headers> = frames.iter().map(|frame| headers(frame)).collect();
    let address = |socket: SocketAddr| Address::from(socket.ip());
    let translation = Translation {
        source: address(endpoint(Family::V4, 0xc000_0264, 0)),
        destination: address(endpoint(Family::V4, 0xc000_0214, 0)),
        source_port: 40_000,
        destination_port: 8080,
        source_mac: MAC,
        destination_mac: PEER_MAC,
        vlan: None,
    };
    let mut group = c.benchmark_group("rewrite, the long way");
    group.throughput(Throughput::Elements(BURST as u64));
    // A copy each time: the TTL would be used up.
    group.bench_function("a datagram, with a copy of it", |b| {
        let mut to = [0; 60];
        b.iter(|| {
            for (frame, headers) in frames.iter().zip(&known) {
                to.iter_mut().zip(frame).for_each(|(to, byte)| *to = *byte);
                assert!(apply(black_box(&mut to), headers, &translation).is_ok());
            }
        });
    });
    group.finish();
}

fn snapshot(of: &str) -> Arc<Snapshot> {
    let text = scenario(of).config();
    config::parse(&text, "scenario", Path::new("."))
        .unwrap_or_else(|errors| panic!("{}", errors.render(false)))
        .snapshot
}

fn script(c: &mut Criterion) {
    let mut group = c.benchmark_group("script run");
    for (name, of, payload) in [
        ("port, select", "udp-new", &b"datagram"[..]),
        ("collect, table_lookup, select", "tcp-life", b"request!"),
    ] {
        let snapshot = snapshot(of);
        let mut policy = LuaPolicy::new(&snapshot, tsc::nanoseconds).unwrap();
        let (mut balancer, mut tables) = (Balancer::new(&snapshot), TableStore::new(&snapshot, Seat::ALONE));
        let protocol = if of == "udp-new" { Protocol::Udp } else { Protocol::Tcp };
        let key = FlowKey::new(protocol, endpoint(Family::V4, 0x0a00_0007, 50_001), scenario(of).vip());
        group.bench_function(name, |b| {
            b.iter(|| {
                let mut record = Record::default();
                let mut context = Context {
                    now: Instant::from_secs(1000),
                    event: Event::Request,
                    snapshot: &snapshot,
                    facts: FlowFacts { service: ServiceId(0), key, server: None },
                    client_payload: payload,
                    server_payload: &[],
                    can_wait: true,
                    balancer: &mut balancer,
                    tables: &mut tables,
                    record: &mut record,
                };
                assert!(matches!(policy.start(&mut context), Outcome::Done));
                policy.idle();
                record
            });
        });
    }
    group.finish();
}

fn table(c: &mut Criterion) {
    const ENTRIES: u32 = 10_000;
    let mut tables = TableStore::new(&snapshot("tcp-life"), Seat::ALONE);
    let (now, service) = (Instant::from_secs(1000), ServiceId(0));
    let key = |n: u32| endpoint(Family::V4, 0x0a00_0000 + n, 0).ip().to_string();
    let keys: Vec<String> = (0..2 * ENTRIES).map(key).collect();
    for key in keys.iter().take(ENTRIES as usize) {
        assert!(tables.insert(now, service, None, key.as_bytes(), b"value", 3600).stored());
    }
    let mut group = c.benchmark_group("table lookup");
    let (there, absent) = keys.split_at(ENTRIES as usize);
    for (name, keys, found) in [("an entry", there, true), ("no entry", absent, false)] {
        let mut keys = keys.iter().cycle();
        group.bench_function(name, |b| {
            b.iter(|| {
                let key = keys.next().map_or(&b""[..], |key| key.as_bytes());
                assert_eq!(tables.lookup(now, service, None, key, 0).is_some(), found);
            });
        });
    }
    group.finish();
}

/// The measured parts of whole windows, as in `weir-perf`, over memory: what came in, what it became, what expired.
fn whole(c: &mut Criterion) {
    let hertz = tsc::hertz();
    let mut group = c.benchmark_group("whole");
    for (name, of) in [
        ("a datagram of an established flow, by the shortcut", "udp-10k"),
        ("a segment of a splice, by the shortcut", "tcp-10k"),
        ("a new flow with its script, and its end", "udp-new"),
        ("a connection from SYN to the last ACK", "tcp-life"),
    ] {
        let mut bench = prepared(scenario(of)).unwrap();
        group.bench_function(name, |b| {
            b.iter_custom(|wanted| {
                let (mut units, mut ticks) = (0, 0);
                while units < wanted {
                    let sample = bench.work().unwrap();
                    units += sample.units;
                    ticks += sample.ticks;
                }
                Duration::from_secs_f64(ticks as f64 / hertz * wanted as f64 / units as f64)
            });
        });
    }
    group.finish();
}

criterion_group! {
    name = stages;
    config = Criterion::default().warm_up_time(Duration::from_secs(1)).measurement_time(Duration::from_secs(3));
    targets = recognise, rewrite, script, table, whole, find
}
criterion_main!(stages);
