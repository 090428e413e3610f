//! The way to a manager: servers in turn, names resolved anew before each attempt, and waits that no two agents share.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpSocket, lookup_host};
use tokio::time::timeout;

use super::settings::Server;

/// How long one name may take to be resolved, and one address to be reached.
const ATTEMPT_MAX: Duration = Duration::from_secs(10);
/// Addresses of one name that are tried.
const ADDRESSES_MAX: usize = 8;

/// A connection to a manager. tokio-uring's sockets block: the ring waits, not the thread.
pub(crate) enum Link {
    Tcp(tokio_uring::net::TcpStream),
    Udp(tokio_uring::net::UdpSocket),
}

/// Gives the addresses of a name.
trait LookUp: AsyncFn(&str, u16) -> io::Result<Vec<SocketAddr>> {}

impl<F: AsyncFn(&str, u16) -> io::Result<Vec<SocketAddr>>> LookUp for F {}

/// How to reach them.
#[derive(Clone, Debug)]
pub(crate) struct Way {
    pub(crate) servers: Vec<Server>,
    pub(crate) is_tcp: bool,
    pub(crate) local: Option<IpAddr>,
    pub(crate) lost_after: Duration,
}

/// A connection that was made.
pub(crate) struct Reached {
    pub(crate) link: Link,
    /// Which of the servers.
    pub(crate) server: usize,
    pub(crate) address: SocketAddr,
}

impl Way {
    /// Tries all servers once, from `first` on.
    ///
    /// # Errors
    /// Why each could not be reached, in one line.
    pub(crate) async fn reach(&self, first: usize) -> Result<Reached, String> {
        let look_up = async |host: &str, port: u16| Ok(lookup_host((host, port)).await?.collect());
        self.reach_by(&look_up, first).await
    }

    /// The same, with names resolved by `look_up`.
    async fn reach_by(&self, look_up: &impl LookUp, first: usize) -> Result<Reached, String> {
        let mut reasons = Vec::new();
        for offset in 0..self.servers.len() {
            let index = (first + offset) % self.servers.len();
            let server = &self.servers[index];
            match self.reach_one(look_up, server).await {
                Ok((link, address)) => return Ok(Reached { link, server: index, address }),
                Err(error) => reasons.push(format!("{server}: {error}")),
            }
        }
        Err(reasons.join("; "))
    }

    async fn reach_one(&self, look_up: &impl LookUp, server: &Server) -> io::Result<(Link, SocketAddr)> {
        let late = |_| io::Error::from(io::ErrorKind::TimedOut);
        let resolved = look_up(&server.host, server.port);
        let addresses: Vec<SocketAddr> = timeout(ATTEMPT_MAX, resolved).await.map_err(late)??;
        let fits = |address: &SocketAddr| self.local.is_none_or(|local| local.is_ipv4() == address.is_ipv4());
        let mut failed = io::Error::new(io::ErrorKind::NotFound, "the name has no address that can be used");
        for address in addresses.into_iter().filter(fits).take(ADDRESSES_MAX) {
            let made = if self.is_tcp {
                let stream = timeout(ATTEMPT_MAX, self.tcp(address)).await;
                let stream = stream.unwrap_or_else(|late_by| Err(late(late_by)));
                stream.map(|stream| Link::Tcp(tokio_uring::net::TcpStream::from_std(stream)))
            } else {
                self.udp(address)
            };
            match made {
                Ok(link) => return Ok((link, address)),
                Err(error) => failed = error,
            }
        }
        Err(failed)
    }

    /// A lost connection must be noticed: by keep-alive probes when nothing is on its way, by the user timeout otherwise.
    async fn tcp(&self, address: SocketAddr) -> io::Result<std::net::TcpStream> {
        let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        if let Some(local) = self.local {
            socket.bind(SocketAddr::new(local, 0))?;
        }
        let stream = socket.connect(address).await?.into_std()?;
        stream.set_nonblocking(false)?;
        stream.set_nodelay(true)?;
        let options = SockRef::from(&stream);
        let third = (self.lost_after / 3).max(Duration::from_secs(1));
        options
            .set_tcp_keepalive(&TcpKeepalive::new().with_time(third).with_interval(third).with_retries(2))?;
        options.set_tcp_user_timeout(Some(self.lost_after))?;
        Ok(stream)
    }

    fn udp(&self, address: SocketAddr) -> io::Result<Link> {
        let any = if address.is_ipv4() { IpAddr::from([0; 4]) } else { IpAddr::from([0; 16]) };
        let socket = std::net::UdpSocket::bind(SocketAddr::new(self.local.unwrap_or(any), 0))?;
        socket.connect(address)?;
        Ok(Link::Udp(tokio_uring::net::UdpSocket::from_std(socket)))
    }
}

/// How long to wait before the next attempt: a random part of a bound that doubles, so that a fleet does not come back as
/// one wave. The first attempt after a loss waits as well, if less: a manager that is restarted loses all agents at once.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BackOff {
    min: Duration,
    max: Duration,
    failures: u32,
}

impl BackOff {
    pub(crate) fn new(min: Duration, max: Duration) -> BackOff {
        BackOff { min, max, failures: 0 }
    }

    /// The wait before the next attempt; `random` is any number.
    pub(crate) fn next(&mut self, random: u64) -> Duration {
        let bound = self.min.saturating_mul(1 << self.failures.min(20)).min(self.max);
        self.failures += 1;
        let milliseconds = u64::try_from(bound.as_millis()).unwrap_or(u64::MAX).max(1);
        Duration::from_millis(random % milliseconds)
    }

    /// A manager has acknowledged the start-up.
    pub(crate) fn reset(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use std::cell::{Cell, RefCell};
    use std::net::TcpListener;

    use super::*;

    fn way(names: &[&str]) -> Way {
        let server = |name: &&str| Server { host: (*name).to_owned(), port: 1_514 };
        Way {
            servers: names.iter().map(server).collect(),
            is_tcp: true,
            local: None,
            lost_after: Duration::from_secs(30),
        }
    }

    /// Somebody who listens, and an address where nobody does, since its socket never will.
    fn listener_and_nobody() -> (TcpListener, SocketAddr, socket2::Socket, SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let silent = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        silent.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
        let nobody = silent.local_addr().unwrap().as_socket().unwrap();
        (listener, address, silent, nobody)
    }

    #[test]
    fn names_are_resolved_again_before_each_attempt() {
        let (_listener, there, _silent, nobody) = listener_and_nobody();
        let asked = Cell::new(0);
        let look_up = async |host: &str, port: u16| {
            assert_eq!((host, port), ("moves.example", 1_514));
            asked.set(asked.get() + 1);
            // It has moved by the second time, to the second of two addresses.
            Ok(if asked.get() == 1 { vec![nobody] } else { vec![nobody, there] })
        };
        tokio_uring::start(async {
            let way = way(&["moves.example"]);
            let error = way.reach_by(&look_up, 0).await.err().unwrap();
            assert!(error.starts_with("moves.example, port 1514: ") && error.contains("refused"), "{error}");
            let reached = way.reach_by(&look_up, 0).await.ok().unwrap();
            assert_eq!((reached.server, reached.address), (0, there));
            assert!(way.reach_by(&look_up, 0).await.is_ok());
        });
        assert_eq!(asked.get(), 3, "once an attempt: nothing is remembered");
    }

    #[test]
    fn servers_have_their_turn_from_the_wanted_one_on() {
        let (_listener, there, _silent, nobody) = listener_and_nobody();
        let asked = RefCell::new(String::new());
        let look_up = async |host: &str, _: u16| {
            asked.borrow_mut().push_str(host);
            match host {
                "c" => Ok(vec![there]),
                "b" => Err(io::Error::other("no such name")),
                _ => Ok(vec![nobody]),
            }
        };
        let turn = |names: &[&str], first| {
            asked.take();
            let reached = tokio_uring::start(async { way(names).reach_by(&look_up, first).await });
            (reached.map(|reached| reached.server), asked.take())
        };
        assert_eq!(turn(&["a", "b", "c", "d"], 0), (Ok(2), "abc".to_owned()));
        assert_eq!(turn(&["a", "b", "c", "d"], 2), (Ok(2), "c".to_owned()));
        assert_eq!(turn(&["a", "b", "c", "d"], 3), (Ok(2), "dabc".to_owned()), "after the last, the first");
        let (error, all) = turn(&["a", "b"], 1);
        assert_eq!(all, "ba");
        let error = error.unwrap_err();
        assert!(error.starts_with("b, port 1514: no such name; a, port 1514: "), "{error}");
    }

    #[test]
    fn a_connection_has_the_options_by_which_its_loss_is_noticed() {
        let (_listener, there, _silent, _) = listener_and_nobody();
        let stream = tokio_uring::start(async { way(&["a"]).tcp(there).await }).unwrap();
        let options = SockRef::from(&stream);
        assert!(options.keepalive().unwrap() && options.tcp_nodelay().unwrap());
        assert_eq!(options.tcp_user_timeout().unwrap(), Some(Duration::from_secs(30)));
        let ten = Duration::from_secs(10);
        let times = (options.tcp_keepalive_time().unwrap(), options.tcp_keepalive_interval().unwrap());
        assert_eq!(times, (ten, ten));
        assert_eq!(options.tcp_keepalive_retries().unwrap(), 2, "30 s of silence in all");
    }

    #[test]
    fn waits_double_to_their_bound_and_spread_over_all_of_it() {
        let mut back_off = BackOff::new(Duration::from_secs(1), Duration::from_secs(60));
        let waits: Vec<u64> = (0..8).map(|_| back_off.next(479_999).as_millis() as u64).collect();
        assert_eq!(waits, [999, 1_999, 3_999, 7_999, 15_999, 31_999, 59_999, 59_999]);
        back_off.reset();
        let waits: Vec<u64> = (0..1_000)
            .map(|agent| {
                back_off.reset();
                back_off.next(agent).as_millis() as u64
            })
            .collect();
        assert_eq!((waits[0], waits[999]), (0, 999), "a fleet spreads over the whole second");
    }
}
