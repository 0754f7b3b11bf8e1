//! What a line of the log looks like.

use std::net::SocketAddr;
use std::time::SystemTime;

use serde::Serialize;
use smoltcp::time::Duration;

use dataplane::channel::ConnectionRecord;
use dataplane::snapshot::{Protocol, ServerId, Snapshot};

use crate::escape::escape;

/// The first time that RFC 3339 cannot express, since the epoch.
const YEAR_10000: std::time::Duration = std::time::Duration::from_secs(253_402_300_800);

/// An ended flow. Fields that do not apply are left out.
#[derive(Serialize)]
struct ConnectionLine<'a> {
    event: &'static str,
    time: String,
    service: &'a str,
    protocol: &'static str,
    client: SocketAddr,
    #[serde(skip_serializing_if = "Option::is_none")]
    peer: Option<SocketAddr>,
    vip: SocketAddr,
    #[serde(skip_serializing_if = "Option::is_none")]
    pool: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    server: Option<SocketAddr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    snat: Option<SocketAddr>,
    bytes_in: u64,
    bytes_out: u64,
    packets_in: u64,
    packets_out: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    handshake_ms: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    decision_ms: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    connect_ms: Option<f64>,
    duration_ms: f64,
    termination: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ds_log: Option<String>,
    significant: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a str>,
}

/// A server went up or down.
#[derive(Serialize)]
struct ServerLine<'a> {
    event: &'static str,
    time: String,
    pool: &'a str,
    server: SocketAddr,
    up: bool,
}

/// A worker began or ceased to stall.
#[derive(Serialize)]
struct WorkerLine {
    event: &'static str,
    time: String,
    worker: usize,
    stalled: bool,
}

/// The configuration was read again.
#[derive(Serialize)]
struct ReloadLine<'a> {
    event: &'static str,
    time: String,
    applied: bool,
    text: &'a str,
}

/// The line of a reload, without a line feed: what has changed, or why nothing has.
pub(crate) fn reload_line(applied: bool, text: &str, time: SystemTime) -> String {
    to_json(&ReloadLine { event: "reload", time: rfc3339(time), applied, text: text.trim_end() })
}

/// The line of a worker that begins or ceases to stall, without a line feed.
#[must_use]
pub fn worker_line(worker: usize, stalled: bool, time: SystemTime) -> String {
    to_json(&WorkerLine { event: "worker", time: rfc3339(time), worker, stalled })
}

/// The line of an ended flow, without a line feed. `ended` is the wall-clock time of [`ConnectionRecord::ended`]; the
/// line's `time` is when the flow started.
#[must_use]
pub fn connection_line(snapshot: &Snapshot, record: &ConnectionRecord, ended: SystemTime) -> String {
    let total = record.ended - record.started;
    let started = ended.checked_sub(total.into()).unwrap_or(ended);
    let server = record.server.and_then(|id| snapshot.servers.get(id.index()));
    let pool = server.and_then(|server| snapshot.pools.get(server.pool.index()));
    to_json(&ConnectionLine {
        event: "connection",
        time: rfc3339(started),
        service: snapshot.services.get(record.service.index()).map_or("", |service| &service.name),
        protocol: protocol_name(record.protocol),
        client: record.client,
        peer: record.peer,
        vip: record.vip,
        pool: pool.map(|pool| pool.name.as_str()),
        server: record.server_address,
        snat: record.snat,
        bytes_in: record.from_client.bytes,
        bytes_out: record.from_server.bytes,
        packets_in: record.from_client.packets,
        packets_out: record.from_server.packets,
        handshake_ms: record.handshake.map(millis),
        decision_ms: record.decision.map(millis),
        connect_ms: record.connect.map(millis),
        duration_ms: millis(total),
        termination: record.termination.to_string(),
        reason: record.reason.map(dataplane::counters::DropReason::label),
        ds_log: record.ds_log.as_deref().map(escape),
        significant: record.significant,
        error: record.error.as_deref(),
    })
}

/// The line of a server's change, without a line feed.
#[must_use]
pub fn server_line(snapshot: &Snapshot, server: ServerId, up: bool, now: SystemTime) -> Option<String> {
    let member = snapshot.servers.get(server.index())?;
    let pool = snapshot.pools.get(member.pool.index())?;
    let address = SocketAddr::new(member.address, member.port);
    Some(to_json(&ServerLine { event: "server", time: rfc3339(now), pool: &pool.name, server: address, up }))
}

/// The name in logs and answers.
pub(crate) fn protocol_name(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Tcp => "tcp",
        Protocol::Udp => "udp",
    }
}

/// Milliseconds with microseconds as decimals.
fn millis(duration: Duration) -> f64 {
    duration.total_micros() as f64 / 1000.0
}

/// UTC with milliseconds; a time that the calendar cannot express is shown as the epoch.
fn rfc3339(time: SystemTime) -> String {
    let expressible = time.duration_since(SystemTime::UNIX_EPOCH).is_ok_and(|age| age < YEAR_10000);
    let time = if expressible { time } else { SystemTime::UNIX_EPOCH };
    humantime::format_rfc3339_millis(time).to_string()
}

fn to_json(line: &impl Serialize) -> String {
    // Structs of strings and numbers always serialize.
    serde_json::to_string(line).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture;
    use dataplane::channel::{EndedBy, Phase, Termination, Traffic};
    use dataplane::counters::DropReason;
    use dataplane::snapshot::ServiceId;
    use smoltcp::time::Instant;

    fn wall(millis: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + std::time::Duration::from_millis(millis)
    }

    #[test]
    fn a_spliced_connection() {
        let record = fixture::record();
        assert_eq!(
            connection_line(&fixture::snapshot(), &record, wall(1_700_000_001_500)),
            concat!(
                r#"{"event":"connection","time":"2023-11-14T22:13:20.000Z","service":"tls","protocol":"tcp","#,
                r#""client":"192.0.2.10:40000","vip":"198.51.100.1:443","pool":"web","server":"10.0.0.11:8443","#,
                r#""snat":"10.0.0.1:1024","bytes_in":517,"bytes_out":4096,"packets_in":6,"packets_out":5,"#,
                r#""handshake_ms":0.21,"decision_ms":0.035,"connect_ms":0.4,"duration_ms":1500.0,"#,
                r#""termination":"--","ds_log":"sni=a.example \\x00\\xff","significant":true}"#
            )
        );
    }

    #[test]
    fn a_client_that_somebody_else_names() {
        let peer = "203.0.113.1:7000".parse().ok();
        let record = ConnectionRecord { peer, ..fixture::record() };
        let line = connection_line(&fixture::snapshot(), &record, wall(1_700_000_001_500));
        assert!(line.contains(r#""client":"192.0.2.10:40000","peer":"203.0.113.1:7000","vip":"#), "{line}");
    }

    #[test]
    fn a_refused_datagram_over_ipv6() {
        let record = ConnectionRecord {
            service: ServiceId(1),
            protocol: Protocol::Udp,
            client: "[2001:db8::10]:5353".parse().unwrap(),
            peer: None,
            vip: "[2001:db8::1]:53".parse().unwrap(),
            server: None,
            server_address: None,
            snat: None,
            started: Instant::from_micros(7),
            ended: Instant::from_micros(7),
            handshake: None,
            decision: Some(Duration::from_micros(12)),
            connect: None,
            from_client: Traffic { packets: 1, bytes: 33 },
            from_server: Traffic::default(),
            termination: Termination::new(EndedBy::Refused, Phase::Deciding),
            reason: Some(DropReason::NoServer),
            ds_log: None,
            significant: false,
            error: Some("dns.lua:3: no \"thing\"".into()),
        };
        assert_eq!(
            connection_line(&fixture::snapshot(), &record, wall(1_700_000_000_001)),
            concat!(
                r#"{"event":"connection","time":"2023-11-14T22:13:20.001Z","service":"dns","protocol":"udp","#,
                r#""client":"[2001:db8::10]:5353","vip":"[2001:db8::1]:53","bytes_in":33,"bytes_out":0,"#,
                r#""packets_in":1,"packets_out":0,"decision_ms":0.012,"duration_ms":0.0,"#,
                r#""termination":"RP","reason":"no_server","significant":false,"#,
                r#""error":"dns.lua:3: no \"thing\""}"#
            )
        );
    }

    #[test]
    fn a_server_that_went_down() {
        assert_eq!(
            server_line(&fixture::snapshot(), ServerId(1), false, wall(1_700_000_000_000)).unwrap(),
            concat!(
                r#"{"event":"server","time":"2023-11-14T22:13:20.000Z","pool":"web","#,
                r#""server":"10.0.0.12:8443","up":false}"#
            )
        );
        assert_eq!(server_line(&fixture::snapshot(), ServerId(99), false, wall(0)), None);
    }

    #[test]
    fn a_clock_far_off_does_no_harm() {
        let before = SystemTime::UNIX_EPOCH - std::time::Duration::from_secs(5);
        assert_eq!(rfc3339(before), "1970-01-01T00:00:00.000Z");
        assert_eq!(rfc3339(wall(253_402_300_799_999)), "9999-12-31T23:59:59.999Z");
        assert_eq!(rfc3339(wall(253_402_300_800_000)), "1970-01-01T00:00:00.000Z");
    }
}
