//! `explain`: the words behind it, and whom they are for.

use std::net::SocketAddr;

use dataplane::address::FlowKey;
use dataplane::channel::{Answer, Query};
use dataplane::snapshot::{Protocol, ServiceId, Snapshot};
use dataplane::steering::{Seat, Steering};

use super::Admin;
use crate::explain::Question;

/// Entries of the service's tables that are copied: the worker does it between two bursts.
const MOST_ENTRIES: usize = 10_000;
/// How often a worker is asked while reloads follow each other.
const ATTEMPTS: usize = 3;
/// Longest payload: what a script may read at a time.
const MOST_BYTES: usize = 65_000;

impl Admin {
    /// What would become of a flow, as things are on the worker to which its packets come. It answers by the configuration that
    /// control has: a reload that is under way is waited for.
    pub(super) fn explain(&self, question: &Question) -> Result<String, String> {
        let explainer = self.explainer.as_ref().ok_or("this weir cannot explain")?;
        let mut late = String::new();
        for _ in 0..ATTEMPTS {
            self.reloader.wait()?;
            let snapshot = self.current.snapshot();
            let worker = self.worker_of(&snapshot, question);
            let service = service_of(&snapshot, question).unwrap_or(ServiceId(0));
            let Answer::Live(live) =
                self.workers.ask_one(worker, Query::Live { service, limit: MOST_ENTRIES })?
            else {
                return Err("the worker answered something else".to_owned());
            };
            if live.generation == snapshot.retired.generation {
                return explainer.answer(&snapshot, question, *live);
            }
            late = self.workers.name(worker);
        }
        Err(format!("{late} has not taken the last configuration yet; repeat this when it has"))
    }

    /// The worker that opens the flow.
    fn worker_of(&self, snapshot: &Snapshot, Question { protocol, client, vip, .. }: &Question) -> usize {
        let of = u8::try_from(self.workers.len()).unwrap_or(u8::MAX);
        let steering = Steering::of(Seat { number: 0, of }, snapshot);
        usize::from(steering.owner(&FlowKey::new(*protocol, *client, *vip)))
    }
}

fn service_of(snapshot: &Snapshot, question: &Question) -> Option<ServiceId> {
    let Question { protocol, vip, .. } = question;
    let services = (0u16..).map(ServiceId).zip(&snapshot.services);
    let mut found = services.filter(|(id, service)| {
        let port = service
            .ports
            .iter()
            .any(|range| range.protocol == *protocol && (range.first..=range.last).contains(&vip.port()));
        port && service.addresses.contains(&vip.ip()) && !snapshot.retired.services.contains(id)
    });
    found.next().map(|(id, _)| id)
}

/// Understands the words; the error is for the operator.
pub(super) fn parse(mut words: &[&str]) -> Result<Question, String> {
    let (mut client, mut vip, mut protocol, mut payload) = (None, None, Protocol::Tcp, None);
    let (mut lines, mut json) = (false, false);
    loop {
        words = match words {
            [] => break,
            ["json", rest @ ..] => {
                json = true;
                rest
            }
            ["lines", rest @ ..] => {
                lines = true;
                rest
            }
            ["client", value, rest @ ..] => {
                client = Some(socket(value)?);
                rest
            }
            ["vip", value, rest @ ..] => {
                vip = Some(socket(value)?);
                rest
            }
            ["protocol", "tcp", rest @ ..] => rest,
            ["protocol", "udp", rest @ ..] => {
                protocol = Protocol::Udp;
                rest
            }
            ["payload", value, rest @ ..] => {
                payload = Some(bytes(value)?);
                rest
            }
            [word, ..] => {
                return Err(format!(
                    "'{word}' is not understood, or has no value behind it; there are 'client ADDRESS:PORT', \
                     'vip ADDRESS:PORT', 'protocol tcp|udp', 'payload HEX', 'lines', 'json'"
                ));
            }
        };
    }
    match (client, vip) {
        (Some(client), Some(vip)) => Ok(Question { protocol, client, vip, payload, lines, json }),
        _ => Err("'client ADDRESS:PORT' and 'vip ADDRESS:PORT' are needed".to_owned()),
    }
}

fn socket(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| format!("'{text}' is not ADDRESS:PORT (an IPv6 address stands in brackets)"))
}

fn bytes(digits: &str) -> Result<Vec<u8>, String> {
    match crate::capture::bytes(digits) {
        Some(bytes) if bytes.len() <= MOST_BYTES => Ok(bytes),
        Some(bytes) => Err(format!("a payload of {} bytes is too long: at most {MOST_BYTES}", bytes.len())),
        None => Err("the payload is not made of pairs of hexadecimal digits".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Result<Question, String> {
        parse(&line.split_whitespace().collect::<Vec<_>>())
    }

    #[test]
    fn questions_are_understood() {
        let question =
            words("client 10.0.0.7:4242 vip 192.0.2.10:443 protocol udp payload 0aFF lines json").unwrap();
        let expected = Question {
            protocol: Protocol::Udp,
            client: "10.0.0.7:4242".parse().unwrap(),
            vip: "192.0.2.10:443".parse().unwrap(),
            payload: Some(vec![0x0a, 0xff]),
            lines: true,
            json: true,
        };
        assert_eq!(question, expected);
        let short = words("vip [2001:db8::1]:53 client [2001:db8::7]:1").unwrap();
        assert_eq!((short.protocol, short.payload, short.json), (Protocol::Tcp, None, false));
    }

    #[test]
    fn what_is_wrong_with_a_question_is_named() {
        for (line, expected) in [
            ("client 10.0.0.7:4242", "'client ADDRESS:PORT' and 'vip ADDRESS:PORT' are needed"),
            ("client 10.0.0.7 vip 192.0.2.10:443", "'10.0.0.7' is not ADDRESS:PORT"),
            ("client 10.0.0.7:1 vip 192.0.2.10:443 payload abc", "the payload is not made of pairs"),
            ("client 10.0.0.7:1 vip 192.0.2.10:443 protocol icmp", "'protocol' is not understood"),
        ] {
            let error = words(line).unwrap_err();
            assert!(error.starts_with(expected), "{line}: {error}");
        }
        let long = format!("client 10.0.0.7:1 vip 192.0.2.10:443 payload {}", "00".repeat(65_001));
        assert!(words(&long).unwrap_err().contains("65001 bytes is too long"));
    }
}
