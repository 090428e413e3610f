//! Who may speak at a listener with rules, and what stands in front of it: allowed and denied addresses, load balancers.
//!
//! A listener for agents without any of that never comes here.

use std::net::SocketAddr;

use codec::{ProxyCutter, ProxySource};
use manager::{Admission, ConnectionId, Reason, Refusal, Time};
use uring::Lease;

use super::Shard;
use super::batch::Ending;
use super::connections::Role;
use super::lines::LineStream;
use crate::settings::ListenerKind;

impl Shard {
    /// A datagram of a listener that has rules, or that takes lines.
    #[cold]
    pub(super) fn guard_datagram(
        &mut self,
        listener: usize,
        from: SocketAddr,
        ring: usize,
        lease: Lease,
        bytes: usize,
    ) {
        let settings = &self.listeners[listener].settings;
        if !settings.admits(from.ip()) {
            self.manager.record_dropped_from(Reason::AddressDenied, from);
            self.rings[ring].ring.give_back(lease);
            return;
        }
        match settings.kind {
            ListenerKind::Secure => self.batch.add_datagram(listener, from, ring, lease, bytes),
            ListenerKind::Syslog => self.take_line_datagram(from, ring, lease, bytes),
        }
    }

    /// Whether a connection may stay that came to a listener that has rules, or that takes lines.
    #[cold]
    pub(super) fn guard_connection(
        &mut self,
        now: Time,
        id: ConnectionId,
        listener: usize,
        from: SocketAddr,
    ) -> bool {
        let settings = &self.listeners[listener].settings;
        let kind = settings.kind;
        let proxied = !settings.proxy_protocol_from.is_empty();
        let refusal = match proxied {
            true if !settings.is_proxy(from.ip()) => Some(Refusal::ProxyPeer),
            false if !settings.admits(from.ip()) => Some(Refusal::AddressDenied),
            true | false => None,
        };
        if let Some(refusal) = refusal {
            self.manager.record_refused(refusal, from);
            return false;
        }
        let admitted = match kind {
            ListenerKind::Secure => return self.guard_agent(now, id, from, proxied),
            ListenerKind::Syslog if proxied => self.devices.admit_proxied(now, id, from.ip()),
            ListenerKind::Syslog => self.devices.admit(now, id, from.ip()),
        };
        let role = match proxied {
            true => Role::Proxied { cutter: Box::new(ProxyCutter::new()), from },
            false => Role::Lines(Box::new(LineStream::new(from.ip(), self.lines.bytes_max))),
        };
        match admitted {
            Ok(()) => self.connections.find(id).expect("it was just accepted").role = role,
            Err(refusal) => self.manager.record_refused(refusal, from),
        }
        admitted.is_ok()
    }

    fn guard_agent(&mut self, now: Time, id: ConnectionId, from: SocketAddr, proxied: bool) -> bool {
        if self.manager.on_connected(now, id, from) != Admission::Admit {
            return false;
        }
        if proxied {
            let role = Role::Proxied { cutter: Box::new(ProxyCutter::new()), from };
            self.connections.find(id).expect("it was just accepted").role = role;
        }
        true
    }

    /// Bytes of a connection that is no agent's, or not yet known to be one.
    #[cold]
    pub(super) fn guard_bytes(&mut self, now: Time, id: ConnectionId, ring: usize, lease: Lease) {
        let connection = self.connections.find(id).expect("the caller has just found it");
        let (outcome, from) = match &mut connection.role {
            Role::Agent => unreachable!("an agent's bytes are cut where they are"),
            Role::Lines(_) => return self.take_line_bytes(now, id, ring, lease),
            Role::Proxied { cutter, from } => {
                let bytes = self.rings[ring].ring.bytes(&lease);
                let outcome = cutter.push(bytes);
                if let Ok(Some(header)) = outcome {
                    connection.held.append(&bytes[header.bytes..]);
                }
                (outcome, *from)
            }
        };
        self.rings[ring].ring.give_back(lease);
        match outcome {
            Ok(None) => {}
            Ok(Some(header)) => {
                let from = match header.source {
                    ProxySource::Own => from,
                    ProxySource::Real(source) => source,
                };
                self.on_source(now, id, from);
            }
            Err(_) => self.refuse_open(id, Refusal::ProxyHeader, from),
        }
    }

    /// A load balancer has said where a connection comes from: the rules are for that address.
    fn on_source(&mut self, now: Time, id: ConnectionId, from: SocketAddr) {
        let listener = self.connections.find(id).expect("the caller has just found it").listener;
        let settings = &self.listeners[usize::from(listener)].settings;
        if !settings.admits(from.ip()) {
            return self.refuse_open(id, Refusal::AddressDenied, from);
        }
        let role = match settings.kind {
            ListenerKind::Secure => match self.manager.on_source(id, from) {
                Admission::Admit => Role::Agent,
                Admission::Refuse(_) => return self.end_refused(id),
            },
            ListenerKind::Syslog => match self.devices.rename(now, id, from.ip()) {
                Ok(()) => Role::Lines(Box::new(LineStream::new(from.ip(), self.lines.bytes_max))),
                Err(refusal) => return self.refuse_open(id, refusal, from),
            },
        };
        self.connections.find(id).expect("it was found a moment ago").role = role;
        self.queue_backlog(id);
    }

    fn refuse_open(&mut self, id: ConnectionId, refusal: Refusal, from: SocketAddr) {
        self.manager.record_refused(refusal, from);
        self.end_refused(id);
    }

    /// Nothing more is taken from a connection; it is closed once the turn's messages are decided on.
    fn end_refused(&mut self, id: ConnectionId) {
        let connection = self.connections.find(id).expect("the caller has just found it");
        connection.ended = true;
        // No message of anybody's: it is not known who is behind the load balancer, or he is not wanted.
        connection.held.clear();
        self.batch.endings.push(Ending::Closed(id));
    }
}
