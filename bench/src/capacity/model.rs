//! The model: a table of figures in, a plan out. CAPACITY.md states it in words; nothing here reads a file or a clock.

use serde::Serialize;

use super::demand::{Cipher, Demand, Protocol};
use super::figures::{Figure, Figures};
use super::needed::{FLEETS, Missing, TEXTS, agents_of, figure, hand_over, receive, turn};

/// Events a segment that a plan is made for: frames of one TCP segment, or datagrams of one agent after one another.
pub const SEGMENTS: [u64; 4] = [1, 4, 16, 64];

/// How long a shard may be held up without losing a datagram, in seconds.
pub(super) const STALL_SECONDS: f64 = 0.2;
/// What the kernel takes of a receive buffer for one short datagram.
pub(super) const DATAGRAM_BUFFER_BYTES: u64 = 1_290;
/// Up to here a message's socket buffer is of the short kind: 1,024 bytes, less the kernel's share of 320 and headers.
const SHORT_MESSAGE_BYTES: u64 = 600;

/// Ethernet's frame, check sum, preamble and gap.
const ETHERNET_BYTES: u64 = 38;
const IPV4_BYTES: u64 = 20;
const UDP_BYTES: u64 = 8;
/// With its time stamps.
const TCP_BYTES: u64 = 32;
/// What one packet carries of a stream.
const SEGMENT_BYTES_MAX: u64 = 1_448;
const FRAME_LENGTH_BYTES: u64 = 4;

/// The program itself, its control plane and its libraries.
pub(super) const PROGRAM_BYTES: u64 = 16 << 20;
/// A shard's buffers by default: 1,024 of streams; 1,024 of datagrams, of which two pages each are touched; the sinks' hard
/// bound; what a batch grows to.
pub(super) const SHARD_BYTES: u64 = (16 + 8 + 32 + 4) << 20;
/// An agent: its entry, names, key and state, and its places in the table's maps.
pub(super) const AGENT_BYTES: u64 = 600;
/// Its Blowfish tables, once it has used them.
pub(super) const BLOWFISH_BYTES: u64 = 4_224;
/// A connection: the program's share, and the kernel's for an idle socket.
pub(super) const CONNECTION_BYTES: u64 = 1_200 + 4_600;

/// What the fleet needs.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Plan {
    /// What was asked.
    pub demand: Demand,
    /// Events a second of the whole fleet.
    pub events_a_second: f64,
    /// For each protocol and number of events a segment, UDP first.
    pub lines: Vec<Line>,
}

/// What it needs with one protocol and one number of events a segment.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Line {
    /// The protocol.
    pub protocol: Protocol,
    /// Events a segment.
    pub events_a_segment: u64,
    /// Processor time of an event.
    pub cpu: Cpu,
    /// The highest rate of one core without a margin, in events a second.
    pub one_core_events_a_second: f64,
    /// Cores' worth of work, without a margin.
    pub load_cores: f64,
    /// Whole cores, with the margin.
    pub cores: u64,
    /// Memory.
    pub memory: Memory,
    /// Receive buffers.
    pub receive_buffer: ReceiveBuffer,
    /// The network.
    pub network: Network,
}

/// Processor time of one event in nanoseconds, and where each part comes from.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Cpu {
    /// Out of the kernel.
    pub receive: Figure,
    /// Decode, decision, form.
    pub turn: Figure,
    /// Into the sink's reader.
    pub hand_over: Figure,
    /// Together.
    pub total: Figure,
    /// The benches, and what each said.
    pub from: Vec<Used>,
}

/// A bench that a figure was computed from.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Used {
    /// Its name.
    pub bench: String,
    /// What it said of one event.
    pub figure: Figure,
}

/// Memory in bytes.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
pub struct Memory {
    /// The program and its shards.
    pub base: u64,
    /// Agents' keys and states.
    pub agents: u64,
    /// Connections, the kernel's share included.
    pub connections: u64,
    /// The kernel's receive buffers when they are full.
    pub receive_buffers: u64,
    /// Together.
    pub total: u64,
}

/// Receive buffers.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct ReceiveBuffer {
    /// Bytes that the kernel must be able to keep during a stall: of each shard's socket, or of all connections.
    pub bytes: u64,
    /// The setting that allows it, and its value.
    pub sysctl: String,
}

/// Bits a second on the wire, Ethernet's included.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Network {
    /// From the agents.
    pub received_bits: f64,
    /// To them: TCP's acknowledgements.
    pub sent_bits: f64,
}

/// What a fleet needs, by the figures of a machine.
///
/// # Errors
/// The benches that it needs and that were not run.
pub fn plan(figures: &Figures, demand: &Demand) -> Result<Plan, Missing> {
    if let Some(missing) = Missing::of(figures, demand.cipher, demand.sink) {
        return Err(missing);
    }
    let lines = Protocol::ALL.into_iter().flat_map(|protocol| {
        SEGMENTS.into_iter().map(move |segment| line(figures, demand, protocol, segment))
    });
    Ok(Plan { demand: demand.clone(), events_a_second: demand.events_a_second(), lines: lines.collect() })
}

fn line(figures: &Figures, demand: &Demand, protocol: Protocol, segment: u64) -> Line {
    let rate = demand.events_a_second();
    let cpu = cpu(figures, demand, protocol, segment);
    let load_cores = rate * cpu.total.ns / 1e9;
    let cores = (load_cores / (1.0 - demand.margin)).ceil().max(1.0) as u64;
    let receive_buffer = receive_buffer(demand, protocol, segment, cores);
    Line {
        protocol,
        events_a_segment: segment,
        one_core_events_a_second: 1e9 / cpu.total.ns,
        load_cores,
        cores,
        memory: memory(demand, protocol, cores, &receive_buffer),
        receive_buffer,
        network: network(demand, protocol, segment),
        cpu,
    }
}

/// cpu = receive(events a segment) + turn(cipher, agents, events a segment) + hand-over(sink), each at the text's length.
fn cpu(figures: &Figures, demand: &Demand, protocol: Protocol, segment: u64) -> Cpu {
    let mut from = Vec::new();
    let mut at_length = |bench: String| {
        let [short, long] = TEXTS.map(|text| {
            let bench = format!("{bench}/{text}");
            let figure = figure(figures, &bench);
            from.push(Used { bench, figure });
            figure
        });
        short.plus(long.plus(short.times(-1.0)).not_negative().times(beyond_short(demand.text_bytes)))
    };
    let receive = at_length(receive(protocol, segment));
    let hand_over = at_length(hand_over(demand.sink));
    let turn = at_length(turn(protocol, segment, demand.cipher, agents_of(protocol)));
    // What a fleet of another size costs more or less, once for each segment: its other events find everything near.
    let sizes = FLEETS.map(|agents| {
        let bench = format!("{}/200", self::turn(Protocol::Udp, 1, demand.cipher, agents));
        let figure = figure(figures, &bench);
        from.push(Used { bench, figure });
        (agents, figure.ns)
    });
    let more = at_size(&sizes, demand.agents) - at_size(&sizes, agents_of(protocol));
    let turn = turn.shifted(more / segment as f64);
    from.dedup();
    Cpu { receive, turn, hand_over, total: receive.plus(turn).plus(hand_over), from }
}

/// How far a text is beyond the short one, in steps to the long one.
fn beyond_short(text_bytes: u64) -> f64 {
    let [short, long] = TEXTS.map(|text| text as f64);
    (text_bytes as f64 - short) / (long - short)
}

/// A cost at a number of agents, between the measured ones on a logarithmic scale; as at the last one outside.
fn at_size(sizes: &[(u64, f64)], agents: u64) -> f64 {
    let [first, .., last] = sizes else { panic!("several sizes are measured") };
    if agents <= first.0 {
        return first.1;
    }
    let above = sizes.windows(2).find(|pair| agents <= pair[1].0);
    let Some([(low, cost), (high, cost_high)]) = above else { return last.1 };
    let part = (agents as f64 / *low as f64).ln() / (*high as f64 / *low as f64).ln();
    cost + part * (cost_high - cost)
}

/// memory = program + shards + agents x (entry + table) + connections + receive buffers.
fn memory(demand: &Demand, protocol: Protocol, cores: u64, buffer: &ReceiveBuffer) -> Memory {
    let base = PROGRAM_BYTES + cores * SHARD_BYTES;
    let table = match demand.cipher {
        Cipher::Aes => 0,
        Cipher::Blowfish => BLOWFISH_BYTES,
    };
    let agents = demand.agents * (AGENT_BYTES + table);
    let (connections, receive_buffers) = match protocol {
        Protocol::Tcp => (demand.agents * CONNECTION_BYTES, buffer.bytes),
        Protocol::Udp => (0, buffer.bytes * cores),
    };
    let total = base + agents + connections + receive_buffers;
    Memory { base, agents, connections, receive_buffers, total }
}

/// What comes while a shard is held up.
fn receive_buffer(demand: &Demand, protocol: Protocol, segment: u64, cores: u64) -> ReceiveBuffer {
    let rate = demand.events_a_second();
    match protocol {
        Protocol::Tcp => {
            let segment_bytes = kept_bytes(segment * (FRAME_LENGTH_BYTES + demand.message_bytes));
            let bytes = (rate / segment as f64 * STALL_SECONDS * segment_bytes as f64).ceil() as u64;
            let pages = bytes.div_ceil(4_096);
            ReceiveBuffer { bytes, sysctl: format!("net.ipv4.tcp_mem (its last value) >= {pages} pages") }
        }
        Protocol::Udp => {
            let datagrams = rate / cores as f64 * STALL_SECONDS;
            let bytes = (datagrams * kept_bytes(demand.message_bytes) as f64).ceil() as u64;
            // The kernel doubles what a program asks for.
            ReceiveBuffer { bytes, sysctl: format!("net.core.rmem_max >= {}", bytes.div_ceil(2)) }
        }
    }
}

/// What the kernel takes of a receive buffer for a packet, or several, of this many bytes.
fn kept_bytes(bytes: u64) -> u64 {
    if bytes <= SHORT_MESSAGE_BYTES { DATAGRAM_BUFFER_BYTES } else { bytes.next_power_of_two() + 1_280 }
}

fn network(demand: &Demand, protocol: Protocol, segment: u64) -> Network {
    let rate = demand.events_a_second();
    match protocol {
        Protocol::Tcp => {
            let payload = segment * (FRAME_LENGTH_BYTES + demand.message_bytes);
            let packets = payload.div_ceil(SEGMENT_BYTES_MAX);
            let headers = ETHERNET_BYTES + IPV4_BYTES + TCP_BYTES;
            let segments = rate / segment as f64;
            // An acknowledgement for every second packet of a segment, and for its last one.
            let acknowledgements = packets.div_ceil(2) * headers;
            Network {
                received_bits: segments * (payload + packets * headers) as f64 * 8.0,
                sent_bits: segments * acknowledgements as f64 * 8.0,
            }
        }
        Protocol::Udp => {
            let packet = demand.message_bytes + UDP_BYTES + IPV4_BYTES + ETHERNET_BYTES;
            Network { received_bits: rate * packet as f64 * 8.0, sent_bits: 0.0 }
        }
    }
}

impl Figure {
    fn plus(self, other: Figure) -> Figure {
        Figure {
            ns: self.ns + other.ns,
            low_ns: self.low_ns + other.low_ns,
            high_ns: self.high_ns + other.high_ns,
        }
    }

    fn times(self, factor: f64) -> Figure {
        Figure { ns: self.ns * factor, low_ns: self.low_ns * factor, high_ns: self.high_ns * factor }
    }

    fn shifted(self, by: f64) -> Figure {
        self.plus(Figure { ns: by, low_ns: by, high_ns: by })
    }

    fn not_negative(self) -> Figure {
        let [ns, low_ns, high_ns] = [self.ns, self.low_ns, self.high_ns].map(|ns| ns.max(0.0));
        Figure { ns, low_ns, high_ns }
    }
}

#[cfg(test)]
mod tests;
