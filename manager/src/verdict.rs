//! What became of a message, and why: one verdict each, with names that stay the same on /metrics.

use std::fmt;

/// Declares an enum whose variants have a stable name and an index into an array of counters.
macro_rules! named {
    ($(#[$about:meta])* $name:ident { $($(#[$doc:meta])* $variant:ident = $text:literal,)+ }) => {
        $(#[$about])*
        #[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
        pub enum $name { $($(#[$doc])* $variant,)+ }

        impl $name {
            /// Every variant, in the order of their indices.
            pub const ALL: [$name; [$($text),+].len()] = [$($name::$variant),+];

            /// How many there are: the length of an array of counters.
            pub const COUNT: usize = $name::ALL.len();

            /// The stable name, as metrics and logs write it.
            pub const fn name(self) -> &'static str {
                match self { $($name::$variant => $text,)+ }
            }

            /// The place of this variant's counter in an array of [`Self::COUNT`].
            pub const fn index(self) -> usize {
                self as usize
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str(self.name())
            }
        }
    };
}

/// What became of one received message.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Verdict {
    /// A control message: answered at once if its kind asks for an answer.
    Control(ControlKind),
    /// Not used, for this reason.
    Dropped(Reason),
    /// An event that the sink took over.
    Event,
}

named! {
    /// The kinds of messages that are for the manager itself.
    ControlKind {
        /// The number of an agent's next event, where delivery is acknowledged.
        DeliveryNext = "delivery_next",
        /// An agent's description of itself; acknowledged.
        KeepAlive = "keep_alive",
        /// An unsealed `#ping`; answered with `#pong`.
        Ping = "ping",
        /// An agent's answer to a request of the manager.
        RequestAnswer = "request_answer",
        /// The agent says that it goes away.
        Shutdown = "shutdown",
        /// The first message of an agent; acknowledged.
        Startup = "startup",
        /// Begins as a control message and is none that is known; not answered.
        Unknown = "unknown",
    }
}

named! {
    /// Why a message was dropped.
    Reason {
        /// The listener's rules do not allow its source.
        AddressDenied = "address_denied",
        /// No id in it, and its source address is no agent's.
        AddressUnknown = "address_unknown",
        /// The digest does not match.
        Checksum = "checksum",
        /// It came over a connection that carried another agent's messages before.
        ConnectionAgent = "connection_agent",
        /// It came over a connection that the manager had closed already.
        ConnectionClosed = "connection_closed",
        /// A control message that cannot be read, such as a keep-alive without its newline.
        ControlMalformed = "control_malformed",
        /// Its counter was used before.
        CounterDuplicate = "counter_duplicate",
        /// Its counter is too far behind.
        CounterOld = "counter_old",
        /// Its number says that every sink has it: the agent gave it again after a break.
        DeliveredBefore = "delivered_before",
        /// An event of a connection whose agent delivers over a newer one; the connection was closed.
        DeliveryLost = "delivery_lost",
        /// An event before the agent said which number it has, or a message behind one that never arrived; the connection was
        /// closed.
        DeliveryUnnumbered = "delivery_unnumbered",
        /// An event without a queue byte and a colon, or empty.
        EventMalformed = "event_malformed",
        /// An event for a queue that is none for events: an agent must never reach another local socket.
        EventQueue = "event_queue",
        /// A frame's length is over the limit; the connection was closed.
        FrameLength = "frame_length",
        /// The id is known, and its key does not allow the source address.
        IdAddress = "id_address",
        /// No agent has this id.
        IdUnknown = "id_unknown",
        /// The compressed part is damaged.
        Inflate = "inflate",
        /// An event that is only an agent's filler (`keepalive`), as analysisd never gets to see it.
        KeepAliveFiller = "keep_alive_filler",
        /// The kernel's receive buffer was full.
        Kernel = "kernel",
        /// It does not have the form of a message.
        Malformed = "malformed",
        /// Sealed with a method that this listener does not accept.
        MethodNotAccepted = "method_not_accepted",
        /// An agent sent more events than `agents.events_per_second_max`, and a datagram cannot be pushed back. Its counter is
        /// used up.
        RateLimited = "rate_limited",
        /// The sink was full, and a datagram cannot be pushed back. Its counter is used up.
        SinkFull = "sink_full",
        /// Larger than the largest message, sealed or inflated.
        TooLarge = "too_large",
        /// The datagram did not fit into its buffer.
        Truncated = "truncated",
        /// Not sealed with this agent's key.
        WrongKey = "wrong_key",
    }
}

impl Reason {
    /// The number under which OSSEC logs this condition, where it has one; operators search for it.
    pub const fn log_number(self) -> Option<u16> {
        match self {
            Reason::AddressDenied | Reason::AddressUnknown => Some(1213),
            Reason::FrameLength | Reason::Malformed => Some(1403),
            Reason::CounterOld | Reason::WrongKey => Some(1404),
            Reason::Checksum => Some(1406),
            Reason::CounterDuplicate => Some(1407),
            Reason::IdAddress | Reason::IdUnknown => Some(1408),
            Reason::Inflate | Reason::TooLarge => Some(2202),
            Reason::ConnectionAgent
            | Reason::ConnectionClosed
            | Reason::ControlMalformed
            | Reason::DeliveredBefore
            | Reason::DeliveryLost
            | Reason::DeliveryUnnumbered
            | Reason::EventMalformed
            | Reason::EventQueue
            | Reason::KeepAliveFiller
            | Reason::Kernel
            | Reason::MethodNotAccepted
            | Reason::RateLimited
            | Reason::SinkFull
            | Reason::Truncated => None,
        }
    }

    /// Whether an agent's message that is dropped for this has been counted as an event, where delivery is acknowledged.
    pub(crate) const fn keeps_count(self) -> bool {
        match self {
            Reason::DeliveredBefore
            | Reason::EventMalformed
            | Reason::EventQueue
            | Reason::KeepAliveFiller => true,
            Reason::AddressDenied
            | Reason::AddressUnknown
            | Reason::Checksum
            | Reason::ConnectionAgent
            | Reason::ConnectionClosed
            | Reason::ControlMalformed
            | Reason::CounterDuplicate
            | Reason::CounterOld
            | Reason::DeliveryLost
            | Reason::DeliveryUnnumbered
            | Reason::FrameLength
            | Reason::IdAddress
            | Reason::IdUnknown
            | Reason::Inflate
            | Reason::Kernel
            | Reason::Malformed
            | Reason::MethodNotAccepted
            | Reason::RateLimited
            | Reason::SinkFull
            | Reason::TooLarge
            | Reason::Truncated
            | Reason::WrongKey => false,
        }
    }
}

named! {
    /// Why a connection ended.
    CloseReason {
        /// A frame's length was over the limit.
        BadFrame = "bad_frame",
        /// Its agent numbers its events, and a message was lost or out of place: the agent gives again what was not confirmed.
        Delivery = "delivery",
        /// The agent's key was removed, or is another one now.
        KeyRemoved = "key_removed",
        /// The agent has a newer connection.
        Overtaken = "overtaken",
        /// The peer closed it, or the daemon did for a reason of its own.
        Peer = "peer",
        /// Nothing was heard for longer than an agent may be silent.
        Silent = "silent",
        /// No genuine message within the deadline.
        Unauthenticated = "unauthenticated",
    }
}

impl Refusal {
    /// The number under which OSSEC logs this condition, where it has one.
    pub const fn log_number(self) -> Option<u16> {
        match self {
            Refusal::AddressDenied => Some(1213),
            Refusal::Connections
            | Refusal::ProxyHeader
            | Refusal::ProxyPeer
            | Refusal::Syslog
            | Refusal::SyslogAddress
            | Refusal::Unauthenticated
            | Refusal::UnauthenticatedAddress => None,
        }
    }
}

named! {
    /// Why a connection was not admitted.
    Refusal {
        /// The listener's rules do not allow its source.
        AddressDenied = "address_denied",
        /// As many connections as this shard may hold.
        Connections = "connections",
        /// A load balancer did not say where it came from, or in no way that can be read.
        ProxyHeader = "proxy_header",
        /// It did not come from a load balancer, and the listener serves nobody else.
        ProxyPeer = "proxy_peer",
        /// As many syslog connections as this shard may hold.
        Syslog = "syslog",
        /// As many syslog connections as one source address may have.
        SyslogAddress = "syslog_address",
        /// As many unauthenticated connections as this shard may hold.
        Unauthenticated = "unauthenticated",
        /// As many unauthenticated connections as one source address may have.
        UnauthenticatedAddress = "unauthenticated_address",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn indices_follow_all() {
        for (index, reason) in Reason::ALL.into_iter().enumerate() {
            assert_eq!(reason.index(), index);
        }
        assert_eq!(CloseReason::ALL.len(), CloseReason::COUNT);
    }

    #[test]
    fn names_are_in_order_and_distinct() {
        let names: Vec<_> = Reason::ALL.iter().map(|reason| reason.name()).collect();
        assert!(names.is_sorted_by(|a, b| a < b), "{names:?}");
    }
}
