//! Who plays what: the agents of one generator, each with its settings and its way to the manager.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use agent::{Agent, AgentSettings, Profile, Transport};
use codec::Counter;

use crate::cli::Dialect;
use crate::fleet::FleetSpec;
use crate::links::Route;
use crate::pacing::Pacer;

/// One agent as a generator plays it.
pub(crate) struct Player {
    pub(crate) agent: Agent,
    /// Its position in the plan's order.
    pub(crate) position: u32,
    pub(crate) is_tcp: bool,
    /// Writes that are due, and of these those that were pushed.
    pub(crate) writes_due: u64,
    pub(crate) writes_pushed: u64,
    /// When the heap will give it its next timeout.
    pub(crate) timer: Option<Duration>,
    pub(crate) was_ready: bool,
    pub(crate) is_ready: bool,
}

/// The agents of a generator in the fleet's order, and their routes.
pub(crate) fn cast(spec: &FleetSpec, number: u32) -> (Vec<Player>, Vec<Route>) {
    let profiles = [Transport::Udp, Transport::Tcp].map(|transport| Arc::new(profile(spec, transport)));
    let mut players = Vec::new();
    let mut routes = Vec::new();
    for position in 0..spec.order.agents() {
        if !Pacer::plays_position(u64::from(position), number, spec.generators) {
            continue;
        }
        let index = spec.order.agent_at(u64::from(position));
        let is_tcp = spec.protocol.is_tcp(index);
        let route = route(spec, index, is_tcp);
        let profile = Arc::clone(&profiles[usize::from(is_tcp)]);
        players.push(player(spec, index, position, profile, route.source.ip()));
        routes.push(route);
    }
    (players, routes)
}

fn player(spec: &FleetSpec, index: u32, position: u32, profile: Arc<Profile>, address: IpAddr) -> Player {
    let member = &spec.members[index as usize];
    let settings = AgentSettings {
        profile,
        id: member.entry.id,
        key: Arc::clone(&member.cipher_key),
        sends_id: member.entry.address.agent_sends_id(),
        address,
        sent: spec.counters.first(),
        taken: Counter::ZERO,
    };
    Player {
        agent: Agent::new(settings, Duration::ZERO),
        position,
        is_tcp: spec.protocol.is_tcp(index),
        writes_due: 0,
        writes_pushed: 0,
        timer: None,
        was_ready: false,
        is_ready: false,
    }
}

fn profile(spec: &FleetSpec, transport: Transport) -> Profile {
    let product = match spec.dialect {
        Dialect::Ossec => Profile::ossec(transport, spec.method),
        Dialect::Wazuh => Profile::wazuh(transport, spec.method),
    };
    // An agent that keeps alive less often than it takes its manager for gone would never stay.
    let time_reconnect = product.time_reconnect.max(spec.notify_time * 3);
    Profile {
        notify_time: spec.notify_time,
        reconnect_interval: spec.reconnect_time,
        time_reconnect,
        ..product
    }
}

/// An agent whose line of client.keys names one host speaks from there; the others are spread over the sources.
fn route(spec: &FleetSpec, index: u32, is_tcp: bool) -> Route {
    let target = spec.target;
    let spread = match target.ip() {
        IpAddr::V4(address) if address.is_loopback() && spec.sources > 0 => {
            let source = index % spec.sources;
            IpAddr::V4(Ipv4Addr::new(127, 1, (source / 250) as u8, (source % 250 + 1) as u8))
        }
        IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    };
    let source = spec.members[index as usize].entry.address.single_host().unwrap_or(spread);
    Route { is_tcp, source: SocketAddr::new(source, 0), target }
}
