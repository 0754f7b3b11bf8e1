//! TCP clients: many on one thread. Each asks, waits for the whole answer, and asks again, on a connection of its own per
//! request or on one that is kept.
//!
//! Closed loop: each client asks again at once, which says how much can be had. Open loop: requests are due at a fixed
//! rate whatever becomes of those before; latency counts from when a request was due, also when no client was free. One
//! is due in each interval, at a random moment of it: work in step with the kernel's ticks would be measured wrong.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::time::Duration;

use hdrhistogram::Histogram;
use rustix::event::epoll::EventFlags;
use rustix::io::Errno;
use rustix::net::{self, RecvFlags, SendFlags, SocketType, sockopt};
use serde::Serialize;

use crate::system::{self, Poll, Processes, Used};
use crate::talk::{self, ANSWER, REQUEST};

/// How long answers may still come after the last request.
const PATIENCE: u64 = 1_000_000_000;
/// Of the random moments.
const SEED: u64 = 0x7765_6972;

/// What to do.
#[derive(Clone, Copy, Debug)]
pub struct Order {
    pub to: SocketAddr,
    pub clients: usize,
    /// One connection for all requests of a client.
    pub kept: bool,
    /// Requests per second of all clients together; `None`: closed loop.
    pub rate: Option<u64>,
    pub warm_up: Duration,
    pub window: Duration,
    /// The answer must be of the pool that was asked for.
    pub decides: bool,
    /// Whose CPU time is of interest.
    pub processes: Processes,
}

/// What went wrong.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Errors {
    /// Connections that did not come to be, or that a reset ended.
    pub failed: u64,
    /// Connections that ended before the answer was complete.
    pub closed: u64,
    /// Answers of the wrong pool.
    pub wrong: u64,
    /// Requests without an answer a second after the last one, or never sent because no client was free.
    pub unanswered: u64,
}

impl Errors {
    pub fn total(&self) -> u64 {
        self.failed + self.closed + self.wrong + self.unanswered
    }
}

/// What happened.
#[derive(Debug)]
pub struct Outcome {
    /// Answers in the window.
    pub answers: u64,
    pub seconds: f64,
    /// Nanoseconds.
    pub latency: Histogram<u64>,
    pub errors: Errors,
    /// CPU time in the window.
    pub used: Used,
}

/// Carries it out.
pub fn run(order: Order) -> anyhow::Result<Outcome> {
    let warm = system::now() + order.warm_up.as_nanos() as u64;
    let end = warm + order.window.as_nanos() as u64;
    let mut load = Load::new(order, [warm, end])?;
    let (mut begun, mut ended) = (None, None);
    loop {
        let now = system::now();
        if now >= warm && begun.is_none() {
            begun = Some((now, Used::read(order.processes)?));
        }
        if now >= end && ended.is_none() {
            ended = Some((now, Used::read(order.processes)?));
        }
        if now >= end && (load.is_quiet() || now >= end + PATIENCE) {
            break;
        }
        load.start(now.min(end - 1));
        let boundary = [warm, end, end + PATIENCE].into_iter().find(|time| *time > now).unwrap_or(now);
        let pause = load.pause(now).min(boundary - now);
        load.listen(pause)?;
    }
    let ((from, before), (to, after)) = (begun.unwrap_or_default(), ended.unwrap_or_default());
    load.errors.unanswered += load.outstanding();
    Ok(Outcome {
        answers: load.latency.len(),
        seconds: (to - from) as f64 / 1e9,
        latency: load.latency,
        errors: load.errors,
        used: after.since(before),
    })
}

/// One client. It always asks for the same pool.
struct Client {
    socket: Option<OwnedFd>,
    state: State,
    /// When its request was due.
    due: u64,
    answer: [u8; ANSWER],
    received: usize,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Idle,
    Connecting,
    Waiting,
}

struct Load {
    order: Order,
    poll: Poll,
    clients: Vec<Client>,
    idle: VecDeque<usize>,
    /// When the next request is due, the interval that it is due in, and the length of one: zero in a closed loop.
    next: u64,
    begin: u64,
    interval: u64,
    random: u64,
    /// First and last nanosecond that counts.
    window: [u64; 2],
    latency: Histogram<u64>,
    errors: Errors,
}

impl Load {
    fn new(order: Order, window: [u64; 2]) -> anyhow::Result<Self> {
        let client = || Client { socket: None, state: State::Idle, due: 0, answer: [0; ANSWER], received: 0 };
        Ok(Load {
            order,
            poll: Poll::new()?,
            clients: std::iter::repeat_with(client).take(order.clients).collect(),
            idle: (0..order.clients).collect(),
            next: system::now(),
            begin: system::now(),
            random: SEED,
            interval: order.rate.map_or(0, |rate| 1_000_000_000 / rate.max(1)),
            window,
            latency: Histogram::new_with_bounds(1, 60_000_000_000, 3)?,
            errors: Errors::default(),
        })
    }

    fn is_quiet(&self) -> bool {
        self.outstanding() == 0
    }

    /// Requests that were due and have no answer.
    fn outstanding(&self) -> u64 {
        let asked = self.clients.len() - self.idle.len();
        let unsent = if self.interval > 0 && self.next < self.window[1] {
            (self.window[1] - self.next).div_ceil(self.interval)
        } else {
            0
        };
        asked as u64 + unsent
    }

    /// Lets idle clients ask, as far as requests are due.
    fn start(&mut self, now: u64) {
        let over = system::now() >= self.window[1];
        while (self.interval > 0 && self.next <= now) || (self.interval == 0 && !over) {
            let Some(number) = self.idle.pop_front() else { return };
            let due = if self.interval > 0 { self.next } else { system::now() };
            self.begin += self.interval;
            self.next = self.begin + self.random(self.interval);
            self.ask(number, due);
        }
    }

    /// From 0 to `below`, the same numbers in every run.
    fn random(&mut self, below: u64) -> u64 {
        self.random = self.random.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
        ((self.random >> 32) * below) >> 32
    }

    /// Nanoseconds until there is something to do without an answer.
    fn pause(&self, now: u64) -> u64 {
        match self.interval > 0 && !self.idle.is_empty() && self.next < self.window[1] {
            true => self.next.saturating_sub(now),
            false => PATIENCE,
        }
    }

    fn ask(&mut self, number: usize, due: u64) {
        let Some(client) = self.clients.get_mut(number) else { return };
        (client.due, client.received) = (due, 0);
        if client.socket.is_some() {
            return self.send(number);
        }
        client.state = State::Connecting;
        let connected = system::connect(SocketType::STREAM, self.order.to).and_then(|socket| {
            sockopt::set_tcp_nodelay(&socket, true)?;
            self.poll.add(&socket, number, EventFlags::IN | EventFlags::OUT | EventFlags::ET)?;
            Ok(socket)
        });
        match connected {
            Ok(socket) => client.socket = Some(socket),
            Err(_) => self.fail(number, |errors| &mut errors.failed),
        }
    }

    fn send(&mut self, number: usize) {
        let Some(client) = self.clients.get_mut(number) else { return };
        client.state = State::Waiting;
        let request = talk::request(number);
        let sent = client.socket.as_ref().map(|socket| net::send(socket, &request, SendFlags::NOSIGNAL));
        if sent != Some(Ok(REQUEST)) {
            self.fail(number, |errors| &mut errors.failed);
        }
    }

    fn listen(&mut self, pause: u64) -> anyhow::Result<()> {
        for number in self.poll.wait(pause)? {
            let Some(Client { state, socket: Some(socket), .. }) = self.clients.get(number) else { continue };
            match state {
                State::Idle => {}
                State::Waiting => self.receive(number),
                State::Connecting => match sockopt::socket_error(socket) {
                    Ok(Ok(())) => self.send(number),
                    _ => self.fail(number, |errors| &mut errors.failed),
                },
            }
        }
        Ok(())
    }

    fn receive(&mut self, number: usize) {
        let Some(client) = self.clients.get_mut(number) else { return };
        let Client { socket: Some(socket), answer, received, .. } = client else { return };
        while let Some(room) = answer.get_mut(*received..).filter(|room| !room.is_empty()) {
            match net::recv(&*socket, room, RecvFlags::empty()) {
                Ok((0, _)) => return self.fail(number, |errors| &mut errors.closed),
                Ok((count, _)) => *received += count,
                Err(Errno::AGAIN | Errno::INTR) => return,
                Err(_) => return self.fail(number, |errors| &mut errors.failed),
            }
        }
        if !talk::is_from(answer, self.order.decides.then_some(number % talk::POOLS.len())) {
            return self.fail(number, |errors| &mut errors.wrong);
        }
        self.finish(number);
    }

    /// The answer is there. Without `kept` the client closes, and so it does first.
    fn finish(&mut self, number: usize) {
        let Some(client) = self.clients.get_mut(number) else { return };
        client.state = State::Idle;
        if !self.order.kept {
            client.socket = None;
        }
        let now = system::now();
        let [first, last] = self.window;
        let counts = if self.interval > 0 { client.due } else { now };
        if counts >= first && counts < last {
            self.latency.saturating_record(now - client.due);
        }
        self.idle.push_back(number);
    }

    fn fail(&mut self, number: usize, what: fn(&mut Errors) -> &mut u64) {
        let Some(client) = self.clients.get_mut(number) else { return };
        (client.socket, client.state) = (None, State::Idle);
        *what(&mut self.errors) += 1;
        self.idle.push_back(number);
    }
}
