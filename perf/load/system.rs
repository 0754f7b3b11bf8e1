//! Sockets that do not block, waiting for many of them, the clock, and what the kernel says about used CPU time.

use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};

use anyhow::Context;
use rustix::event::{Timespec, epoll};
use rustix::io::Errno;
use rustix::net::{self, AddressFamily, SocketFlags, SocketType, sockopt};
use rustix::time::{ClockId, clock_gettime};

/// Nanoseconds of a clock that only goes forward.
pub fn now() -> u64 {
    let time = clock_gettime(ClockId::Monotonic);
    time.tv_sec.unsigned_abs() * 1_000_000_000 + time.tv_nsec.unsigned_abs()
}

/// A socket that does not block. Its buffers are large where the process may have that (root).
pub fn socket(kind: SocketType) -> anyhow::Result<OwnedFd> {
    const BUFFER: usize = 8 << 20;
    let socket = net::socket_with(AddressFamily::INET, kind, SocketFlags::NONBLOCK, None)?;
    if kind == SocketType::DGRAM {
        // Without the right to do so the default size stays, and datagrams are lost earlier.
        let _ = sockopt::set_socket_recv_buffer_size_force(&socket, BUFFER);
        let _ = sockopt::set_socket_send_buffer_size_force(&socket, BUFFER);
    }
    Ok(socket)
}

/// Begins to connect.
pub fn connect(kind: SocketType, to: SocketAddr) -> anyhow::Result<OwnedFd> {
    let socket = socket(kind)?;
    match net::connect(&socket, &to) {
        Ok(()) | Err(Errno::INPROGRESS) => Ok(socket),
        Err(error) => Err(error).with_context(|| format!("cannot connect to {to}")),
    }
}

/// Waits for many sockets. Each has a number of the caller's.
pub struct Poll {
    epoll: OwnedFd,
    ready: Vec<epoll::Event>,
}

impl Poll {
    pub fn new() -> anyhow::Result<Self> {
        Ok(Poll { epoll: epoll::create(epoll::CreateFlags::CLOEXEC)?, ready: Vec::with_capacity(256) })
    }

    /// A socket leaves by being closed.
    pub fn add(&self, socket: &impl AsFd, number: usize, what: epoll::EventFlags) -> anyhow::Result<()> {
        Ok(epoll::add(&self.epoll, socket, epoll::EventData::new_u64(number as u64), what)?)
    }

    /// The numbers of the sockets that are ready, after at most so many nanoseconds.
    pub fn wait(&mut self, nanoseconds: u64) -> anyhow::Result<Vec<usize>> {
        let limit = Timespec {
            tv_sec: (nanoseconds / 1_000_000_000).cast_signed(),
            tv_nsec: (nanoseconds % 1_000_000_000).cast_signed(),
        };
        self.ready.clear();
        match epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut self.ready), Some(&limit)) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        Ok(self.ready.iter().map(|event| event.data.u64() as usize).collect())
    }
}

/// CPU time that was used until now, in seconds.
#[derive(Clone, Copy, Debug, Default)]
pub struct Used {
    /// Of all processes and of the kernel itself, on all CPUs; from an unknown beginning.
    ///
    /// It is the time that was not idle: the kernel measures idle time, while it only samples at its ticks what a busy CPU
    /// was busy with, which goes wrong for work that is shorter than a tick.
    pub machine: f64,
    /// What the host of a virtual machine took away.
    pub stolen: f64,
    /// Of the balancer's process.
    pub balancer: f64,
    /// Of this process, the clients, and the one of the servers.
    pub ends: f64,
}

/// Whose CPU time is asked for; 0: nobody's.
#[derive(Clone, Copy, Debug, Default)]
pub struct Processes {
    pub balancer: u32,
    pub servers: u32,
}

impl Used {
    pub fn read(processes: Processes) -> anyhow::Result<Self> {
        let elapsed = now() as f64 / 1e9;
        let (idle, stolen, cpus) = of_machine(&std::fs::read_to_string("/proc/stat")?)
            .context("/proc/stat is not as proc(5) describes it")?;
        let ends = process(std::process::id())? + process(processes.servers)?;
        let balancer = process(processes.balancer)?;
        Ok(Used { machine: elapsed * cpus - idle - stolen, stolen, balancer, ends })
    }

    pub fn since(self, before: Used) -> Used {
        Used {
            machine: self.machine - before.machine,
            stolen: self.stolen - before.stolen,
            balancer: self.balancer - before.balancer,
            ends: self.ends - before.ends,
        }
    }
}

/// What a process has used until now.
fn process(id: u32) -> anyhow::Result<f64> {
    if id == 0 {
        return Ok(0.0);
    }
    let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).context("a process has ended")?;
    of_process(&stat).context("/proc/PID/stat is not as proc(5) describes it")
}

/// `cpu user nice system idle iowait irq softirq steal …`: idle time and stolen time of all CPUs, and their number.
fn of_machine(stat: &str) -> Option<(f64, f64, f64)> {
    let line = stat.lines().next()?.strip_prefix("cpu ")?;
    let ticks: Vec<f64> = line.split_whitespace().map_while(|word| word.parse().ok()).collect();
    let [_user, _nice, _system, idle, iowait, _irq, _softirq, steal] = *ticks.first_chunk::<8>()?;
    let cpus = stat.lines().skip(1).take_while(|line| line.starts_with("cpu")).count();
    Some((seconds(idle + iowait), seconds(steal), cpus as f64))
}

/// `pid (name) state …`, of which utime and stime are the 14th and 15th field. The name may have blanks in it.
fn of_process(stat: &str) -> Option<f64> {
    let (_, fields) = stat.rsplit_once(") ")?;
    let mut times = fields.split(' ').skip(11).map_while(|word| word.parse::<f64>().ok());
    Some(seconds(times.next()? + times.next()?))
}

fn seconds(ticks: f64) -> f64 {
    ticks / rustix::param::clock_ticks_per_second() as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_of_the_machine() {
        let per_second = rustix::param::clock_ticks_per_second();
        let cpus = "cpu0 1 1 1 1 1 1 1 1 0 0\ncpu1 1 1 1 1 1 1 1 1 0 0\nintr 7 0 1\n";
        let stat = format!("cpu  7 1 2 {0} {0} 3 4 {0} 0 0\n{cpus}", per_second * 10);
        assert_eq!(of_machine(&stat), Some((20.0, 10.0, 2.0)));
        assert!(of_machine("cpu 1 2 3\n").is_none());
    }

    #[test]
    fn times_of_a_process_whose_name_is_odd() {
        let per_second = rustix::param::clock_ticks_per_second();
        let stat = format!("7 (a) b c) S 1 2 3 4 5 6 7 8 9 10 {per_second} {} 0 0\n", 2 * per_second);
        assert_eq!(of_process(&stat), Some(3.0));
    }

    #[test]
    fn this_process_uses_time() {
        let this = Processes { balancer: std::process::id(), servers: 0 };
        let before = Used::read(this).unwrap();
        let begin = now();
        while now() < begin + 100_000_000 {
            std::hint::spin_loop();
        }
        let used = Used::read(this).unwrap().since(before);
        // Somebody else may have the CPU meanwhile, so little is certain about a short time.
        assert!(used.balancer > 0.0 && used.balancer < 1.0 && used.ends > 0.0, "{used:?}");
        assert!(used.machine > 0.0, "{used:?}");
    }
}
