//! The servers of all pools, in one process on one thread: over TCP an answer for each request, over UDP each datagram
//! back to where it came from. It closes a connection when the client has.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;

use anyhow::Context;
use rustix::event::epoll::EventFlags;
use rustix::io::Errno;
use rustix::net::{self, RecvFlags, SendFlags, SocketFlags, SocketType, sockopt};

use crate::system::{self, Poll};
use crate::talk::{self, ANSWER, REQUEST};

/// The most that is taken from one socket before others have a turn.
const TURN: usize = 64;

enum Socket {
    Listener([u8; ANSWER]),
    Datagrams,
    /// Bytes of a request that is not complete yet.
    Connection([u8; ANSWER], usize),
}

/// Serves until the process is ended. `pools` are names and addresses.
pub fn serve(pools: &[(String, SocketAddr)]) -> anyhow::Result<()> {
    let mut server = Server { poll: Poll::new()?, sockets: Vec::new(), free: Vec::new() };
    for (pool, address) in pools {
        let listener = system::socket(SocketType::STREAM)?;
        sockopt::set_socket_reuseaddr(&listener, true)?;
        net::bind(&listener, address).with_context(|| format!("cannot serve at {address}"))?;
        net::listen(&listener, 4096)?;
        let datagrams = system::socket(SocketType::DGRAM)?;
        net::bind(&datagrams, address).with_context(|| format!("cannot serve at {address}"))?;
        server.take(listener, Socket::Listener(talk::answer(pool)))?;
        server.take(datagrams, Socket::Datagrams)?;
    }
    println!("ready");
    loop {
        for number in server.poll.wait(1_000_000_000)? {
            server.handle(number)?;
        }
    }
}

struct Server {
    poll: Poll,
    sockets: Vec<Option<(OwnedFd, Socket)>>,
    free: Vec<usize>,
}

impl Server {
    fn take(&mut self, socket: OwnedFd, kind: Socket) -> anyhow::Result<()> {
        let number = self.free.pop().unwrap_or(self.sockets.len());
        self.poll.add(&socket, number, EventFlags::IN)?;
        match self.sockets.get_mut(number) {
            Some(place) => *place = Some((socket, kind)),
            None => self.sockets.push(Some((socket, kind))),
        }
        Ok(())
    }

    fn handle(&mut self, number: usize) -> anyhow::Result<()> {
        let Some(Some((socket, kind))) = self.sockets.get_mut(number) else { return Ok(()) };
        match kind {
            Socket::Datagrams => echo(socket),
            Socket::Connection(answer, partial) => {
                if !converse(socket, answer, partial) {
                    self.sockets.get_mut(number).map(Option::take);
                    self.free.push(number);
                }
            }
            Socket::Listener(answer) => {
                let answer = *answer;
                let accept = |_| net::accept_with(&*socket, SocketFlags::NONBLOCK).ok();
                let accepted: Vec<OwnedFd> = (0..TURN).map_while(accept).collect();
                for connection in accepted {
                    sockopt::set_tcp_nodelay(&connection, true)?;
                    self.take(connection, Socket::Connection(answer, 0))?;
                }
            }
        }
        Ok(())
    }
}

/// Answers what has come; false when the connection is over.
fn converse(socket: &OwnedFd, answer: &[u8; ANSWER], partial: &mut usize) -> bool {
    let mut buffer = [0; REQUEST * 16];
    let count = match net::recv(socket, &mut buffer[..], RecvFlags::empty()) {
        Ok((0, _)) => return false,
        Ok((count, _)) => count,
        Err(Errno::AGAIN | Errno::INTR) => return true,
        Err(_) => return false,
    };
    let requests = (*partial + count) / REQUEST;
    *partial = (*partial + count) % REQUEST;
    // A client asks again when it has its answer, so there is always room for this one.
    (0..requests).all(|_| net::send(socket, answer, SendFlags::NOSIGNAL) == Ok(ANSWER))
}

fn echo(socket: &OwnedFd) {
    let mut buffer = [0; 2048];
    for _ in 0..TURN {
        let Ok((count, _, Some(from))) = net::recvfrom(socket, &mut buffer[..], RecvFlags::empty()) else {
            return;
        };
        // What does not fit is lost, and the client counts it.
        if let Some(datagram) = buffer.get(..count) {
            let _ = net::sendto(socket, datagram, SendFlags::empty(), &from);
        }
    }
}
