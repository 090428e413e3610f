//! ringmaster-broker's two programs around the proxy: agents send to the client, the client to the proxy, the server to the manager.

use std::ffi::OsString;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::path::{Path, PathBuf};

use codec::AgentId;

use crate::outage::account::Account;
use crate::outage::program::Program;
use crate::outage::subject::Datagrams;
use crate::outage::taken::Taken;

#[derive(Debug)]
pub(super) struct Broker {
    program: PathBuf,
    folder: tempfile::TempDir,
    is_gate: bool,
    server_address: SocketAddr,
    client_address: SocketAddr,
    pub(super) server: Program,
    /// There once the proxy is.
    pub(super) client: Option<Program>,
    /// Each agent's spool.
    lines: Vec<Line>,
}

#[derive(Debug)]
struct Line {
    taken: Taken,
    /// The event, if there is one, in each datagram that the client's socket took in this run of the client.
    accepted: Vec<Option<u32>>,
}

impl Broker {
    /// Starts the server beside the manager; both programs listen at the address `host`.
    ///
    /// # Errors
    /// If it can't be started.
    pub(super) fn start_server(
        program: &Path,
        is_gate: bool,
        host: Ipv4Addr,
        manager: SocketAddr,
        agents: impl Iterator<Item = AgentId>,
    ) -> Result<Broker, String> {
        let failed =
            |error: io::Error| format!("the broker's folder: {error}; set TMPDIR to one that is writable");
        let folder = tempfile::Builder::new().prefix("loadgen-").tempdir().map_err(failed)?;
        // Free at this moment; programs that find it taken are started again.
        let server_address =
            TcpListener::bind((host, 0)).and_then(|socket| socket.local_addr()).map_err(failed)?;
        let client_address =
            UdpSocket::bind((host, 0)).and_then(|socket| socket.local_addr()).map_err(failed)?;
        let at = |name: &str| folder.path().join(name);
        let words =
            ["server", "--listen", &server_address.to_string(), "--manager", &manager.to_string(), "--dir"];
        let words = words.map(OsString::from).into_iter().chain([at("server").into()]);
        let mut server = Program::new(program, words, at("server.log"), None);
        server.start()?;
        let line = |id: AgentId| {
            let spool = at("client").join("agents").join(id.as_str()).join("spool");
            Line { taken: Taken::new(spool), accepted: Vec::new() }
        };
        let lines = agents.map(line).collect();
        let program = program.to_owned();
        Ok(Broker { program, folder, is_gate, server_address, client_address, server, client: None, lines })
    }

    /// Where the client reaches the server, if there were no proxy.
    pub(super) fn server_address(&self) -> SocketAddr {
        self.server_address
    }

    /// Starts the client beside the agents; it knows server and manager by the proxy's address. Says where agents reach it.
    ///
    /// # Errors
    /// If it can't be started.
    pub(super) fn start_client(&mut self, proxy: SocketAddr) -> Result<SocketAddr, String> {
        let (listen, proxy) = (self.client_address.to_string(), proxy.to_string());
        let mut words = vec!["client", "--listen", &listen, "--server", &proxy, "--name", "site"];
        if self.is_gate {
            words.extend(["--mode", "gate", "--manager", &proxy]);
        }
        words.push("--dir");
        let at = |name: &str| self.folder.path().join(name);
        let words = words.into_iter().map(OsString::from).chain([at("client").into()]);
        let mut client = Program::new(&self.program, words, at("client.log"), None);
        client.start()?;
        self.client = Some(client);
        Ok(self.client_address)
    }

    /// Notes what became of an agent's datagrams: what nobody was there for was not taken.
    pub(super) fn note(&mut self, agent: u32, datagrams: Datagrams, account: &mut Account) {
        self.lines[agent as usize].accepted.extend(datagrams.accepted);
        for sequence in datagrams.refused {
            account.untake(agent, sequence);
        }
    }

    /// Takes out of the account what lay in the socket of a client that was killed: its spools did not have it. To be called while it
    /// is dead, and only for a relay, which keeps every datagram.
    ///
    /// # Errors
    /// If a spool can't be read.
    pub(super) fn sort_out_untaken(&mut self, account: &mut Account) -> Result<(), String> {
        for (agent, line) in self.lines.iter_mut().enumerate() {
            let taken = line.taken.since_start()?;
            for sequence in line.accepted.drain(..).skip(taken as usize).flatten() {
                account.untake(agent as u32, sequence);
            }
        }
        Ok(())
    }
}
