//! The meter at the manager: what /proc says of it over the run, through restarts of its process.

use std::net::SocketAddr;

use crate::proc::{CpuTime, Memory, UdpDrops, cpu_time, memory};

/// What the kernel says of one manager.
#[derive(Debug)]
pub struct Meter {
    pid: Option<i32>,
    port: u16,
    /// At the start of the run, or of the process that came later.
    first: Option<CpuTime>,
    last: Option<CpuTime>,
    /// Of processes that are gone.
    before: CpuTime,
    memory: Option<Memory>,
    drops: UdpDrops,
    drops_first: u64,
    drops_last: u64,
}

impl Meter {
    /// Begins to count what the UDP sockets of a manager's port drop, and takes note of its process, if it is known.
    ///
    /// To be called before there is a fleet: /proc/net/udp has a line for each of its sockets, too.
    pub fn new(pid: Option<i32>, address: SocketAddr) -> Meter {
        let mut drops = UdpDrops::default();
        let drops_first = drops.read(address.port());
        Meter {
            pid,
            port: address.port(),
            first: None,
            last: None,
            before: CpuTime::default(),
            memory: None,
            drops,
            drops_first,
            drops_last: drops_first,
        }
    }

    /// Begins to count CPU time, and drops since the last sample of them.
    pub fn start(&mut self) {
        self.drops_first = self.drops_last;
        self.first = self.pid.and_then(|pid| cpu_time(pid).ok());
        self.last = self.first;
    }

    /// Reads CPU time and memory again; what can't be read any more keeps its last value.
    pub fn sample(&mut self) {
        if let Some(pid) = self.pid {
            self.last = cpu_time(pid).ok().or(self.last);
            self.memory = memory(pid).ok().filter(|memory| memory.resident_bytes > 0).or(self.memory);
        }
    }

    /// Reads the drops of the UDP sockets again; with a large fleet that takes long.
    pub fn sample_drops(&mut self) {
        self.drops_last = self.drops.read(self.port);
    }

    /// The manager is another process now.
    pub fn follow(&mut self, pid: i32) {
        self.before = self.used();
        self.pid = Some(pid);
        self.first = Some(CpuTime::default());
        self.last = cpu_time(pid).ok().or(self.first);
    }

    /// CPU time from the start to the last sample; `None` if the process was never seen.
    pub fn cpu_time(&self) -> Option<CpuTime> {
        self.first.map(|_| self.used())
    }

    /// Memory at the last sample; `None` if the process was never seen.
    pub fn memory(&self) -> Option<Memory> {
        self.memory
    }

    /// Datagrams dropped at the manager's sockets from the start to the last sample.
    pub fn udp_drops(&self) -> u64 {
        self.drops_last - self.drops_first
    }

    fn used(&self) -> CpuTime {
        let now = self.last.unwrap_or_default().since(self.first.unwrap_or_default());
        self.before.plus(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manager_that_nobody_names_has_no_figures_but_its_port() {
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let mut meter = Meter::new(None, socket.local_addr().unwrap());
        meter.start();
        meter.sample();
        assert_eq!((meter.cpu_time(), meter.memory(), meter.udp_drops()), (None, None, 0));
    }

    #[test]
    fn drops_at_the_port_are_counted_from_the_start() {
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap();
        let sender = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let flood = |count: usize| {
            for _ in 0..count {
                sender.send_to(&[0; 1_000], address).unwrap();
            }
        };
        flood(5_000);
        let mut meter = Meter::new(None, address);
        flood(100);
        meter.sample_drops();
        assert_eq!(meter.udp_drops(), 100, "the buffer was full before");
    }

    #[test]
    fn a_restarted_process_adds_to_the_one_before() {
        let own = std::process::id() as i32;
        let mut meter = Meter::new(Some(own), "127.0.0.1:9".parse().unwrap());
        meter.start();
        meter.sample();
        let before = meter.cpu_time().unwrap();
        meter.follow(own);
        meter.sample();
        let after = meter.cpu_time().unwrap();
        assert!(
            after.user_nanoseconds + after.system_nanoseconds
                > before.user_nanoseconds + before.system_nanoseconds
        );
        assert!(meter.memory().unwrap().resident_bytes > 0);
    }
}
