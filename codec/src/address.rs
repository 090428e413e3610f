//! The address column of client.keys, and of allow and deny lists.

use crate::text::Escaped;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// From which addresses an agent may come: `any`, an address, a network (`/24`, or IPv4's `/255.255.255.0`), each with a
/// leading `!` for the opposite.
///
/// Source: ossec-hids 4.3.0 `shared/validate_op.c`, `OS_IsValidIP` and `OS_IPFound`; the mask form is wazuh v4.14.7's.
#[derive(Clone, PartialEq, Eq)]
pub struct AddressRule {
    written: Box<str>,
    negated: bool,
    network: Network,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Network {
    Any,
    V4 { address: u32, prefix_bits: u8 },
    V6 { address: u128, prefix_bits: u8 },
}

impl AddressRule {
    /// The rule that admits everything: `any`.
    pub fn any() -> AddressRule {
        AddressRule { written: "any".into(), negated: false, network: Network::Any }
    }

    /// Whether the rule admits `address`. An IPv6 address that maps an IPv4 one counts as that. As in the C programs, a
    /// network of no bits (`/0`) admits the other family too.
    pub fn matches(&self, address: IpAddr) -> bool {
        let inside = match (self.network, address.to_canonical()) {
            (Network::Any, _)
            | (Network::V4 { prefix_bits: 0, .. } | Network::V6 { prefix_bits: 0, .. }, _) => true,
            (Network::V4 { address, prefix_bits }, IpAddr::V4(peer)) => {
                (address ^ peer.to_bits()) >> (32 - prefix_bits) == 0
            }
            (Network::V6 { address, prefix_bits }, IpAddr::V6(peer)) => {
                (address ^ peer.to_bits()) >> (128 - prefix_bits) == 0
            }
            (Network::V4 { .. }, IpAddr::V6(_)) | (Network::V6 { .. }, IpAddr::V4(_)) => false,
        };
        inside != self.negated
    }

    /// The address by which an agent without id prefix is known: the only one that the rule admits.
    pub fn single_host(&self) -> Option<IpAddr> {
        match (self.negated, self.network) {
            (false, Network::V4 { address, prefix_bits: 32 }) => Some(Ipv4Addr::from_bits(address).into()),
            (false, Network::V6 { address, prefix_bits: 128 }) => Some(Ipv6Addr::from_bits(address).into()),
            (true, _) | (false, Network::Any | Network::V4 { .. } | Network::V6 { .. }) => None,
        }
    }

    /// Whether an OSSEC agent with this rule in its client.keys writes its id in front of a message. Wazuh's agents do so
    /// for every IPv6 address too ([`AddressRule::is_ipv6`]).
    ///
    /// Source: ossec-hids 4.3.0 `headers/validate_op.h`, `isSingleHost`.
    pub fn agent_sends_id(&self) -> bool {
        match self.network {
            Network::Any => true,
            Network::V4 { prefix_bits, .. } => prefix_bits != 32,
            Network::V6 { prefix_bits, .. } => prefix_bits != 128,
        }
    }

    /// Whether the rule is an IPv6 address or network.
    pub fn is_ipv6(&self) -> bool {
        match self.network {
            Network::Any | Network::V4 { .. } => false,
            Network::V6 { .. } => true,
        }
    }

    /// The rule as a location names it: as written, less the `/n`.
    ///
    /// Source: ossec-hids 4.3.0 `os_crypto/shared/keys.c`, `__chash`.
    pub fn location_text(&self) -> &str {
        self.written.split('/').next().unwrap_or(&self.written)
    }

    /// The rule as it was written.
    pub fn as_str(&self) -> &str {
        &self.written
    }
}

impl FromStr for AddressRule {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<AddressRule, AddressError> {
        let (negated, rest) = match text.strip_prefix('!') {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        let network = network(rest).ok_or_else(|| AddressError { written: text.into() })?;
        Ok(AddressRule { written: text.into(), negated, network })
    }
}

fn network(text: &str) -> Option<Network> {
    if text == "any" {
        return Some(Network::Any);
    }
    let (address, length) = match text.split_once('/') {
        Some((address, length)) => (address, Some(length)),
        None => (text, None),
    };
    match address.parse::<IpAddr>().ok()? {
        IpAddr::V4(address) => {
            let prefix_bits =
                length.map_or(Some(32), |length| prefix(length, 32).or_else(|| mask(length)))?;
            Some(Network::V4 { address: address.to_bits(), prefix_bits })
        }
        IpAddr::V6(address) => {
            let prefix_bits = length.map_or(Some(128), |length| prefix(length, 128))?;
            match (address.to_ipv4_mapped(), prefix_bits) {
                (Some(mapped), 96..=128) => {
                    Some(Network::V4 { address: mapped.to_bits(), prefix_bits: prefix_bits - 96 })
                }
                (Some(_) | None, _) => Some(Network::V6 { address: address.to_bits(), prefix_bits }),
            }
        }
    }
}

fn prefix(length: &str, bits_max: u8) -> Option<u8> {
    let digits_only = crate::text::all_digits(length.as_bytes());
    length.parse().ok().filter(|bits| digits_only && *bits <= bits_max)
}

fn mask(length: &str) -> Option<u8> {
    let mask = length.parse::<Ipv4Addr>().ok()?.to_bits();
    (mask.count_ones() == mask.leading_ones()).then_some(mask.leading_ones() as u8)
}

impl fmt::Display for AddressRule {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(&self.written)
    }
}

impl fmt::Debug for AddressRule {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "AddressRule({})", self.written)
    }
}

/// A text that is no address rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddressError {
    written: Box<str>,
}

impl fmt::Display for AddressError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let written = Escaped(self.written.as_bytes());
        write!(
            formatter,
            "'{written}' is no address; write any, an IPv4 or IPv6 address, or a network such as 10.1.0.0/16"
        )
    }
}

impl std::error::Error for AddressError {}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn rule(text: &str) -> AddressRule {
        text.parse().unwrap()
    }

    #[test]
    fn rules_match_as_in_c() {
        let check = |text: &str, peer: &str, expected: bool| {
            assert_eq!(rule(text).matches(peer.parse().unwrap()), expected, "{text} {peer}");
        };
        check("any", "1.2.3.4", true);
        check("any", "::1", true);
        check("!any", "1.2.3.4", false);
        check("127.0.0.3", "127.0.0.3", true);
        check("127.0.0.3", "127.0.0.4", false);
        check("127.0.0.3", "::ffff:127.0.0.3", true);
        check("::ffff:127.0.0.3", "127.0.0.3", true);
        check("!127.0.0.3", "127.0.0.3", false);
        check("!127.0.0.3", "9.9.9.9", true);
        check("127.0.4.0/24", "127.0.4.255", true);
        check("127.0.4.0/24", "127.0.5.0", false);
        check("127.0.4.77/24", "127.0.4.1", true);
        check("10.1.0.0/255.255.0.0", "10.1.200.3", true);
        check("10.1.0.0/255.255.0.0", "10.2.0.0", false);
        check("fd00::/8", "fd12::9", true);
        check("fd00::/8", "fe80::1", false);
        check("fd00::/8", "1.2.3.4", false);
        check("::1", "::1", true);
        check("0.0.0.0/0", "::1", true);
        check("::/0", "1.2.3.4", true);
        check("1.2.3.4/0", "9.9.9.9", true);
    }

    #[test]
    fn who_sends_an_id() {
        let check = |text: &str, sends: bool, single: bool| {
            assert_eq!(
                (rule(text).agent_sends_id(), rule(text).single_host().is_some()),
                (sends, single),
                "{text}"
            );
        };
        check("any", true, false);
        check("127.0.4.0/24", true, false);
        check("127.0.0.3", false, true);
        check("127.0.0.3/32", false, true);
        check("!127.0.0.3", false, false);
        check("::1", false, true);
        check("fd00::/8", true, false);
        check("fd00::1/128", false, true);
    }

    #[test]
    fn shown_as_written() {
        assert_eq!(rule("127.0.4.0/24").to_string(), "127.0.4.0/24");
        assert_eq!(rule("127.0.4.0/24").location_text(), "127.0.4.0");
        assert_eq!(rule("!10.1.0.0/255.255.0.0").location_text(), "!10.1.0.0");
        assert_eq!(rule("any").location_text(), "any");
        assert_eq!(rule("any"), AddressRule::any());
    }

    #[test]
    fn refused() {
        for text in [
            "",
            "!",
            "ANY",
            "1.2.3",
            "1.2.3.4/33",
            "1.2.3.4/",
            "1.2.3.4/+8",
            "::1/129",
            "1.2.3.4/255.0.255.0",
            "host",
            "1.2.3.4 ",
            "!!1.2.3.4",
            "fe80::1%eth0",
            "01.2.3.4",
        ] {
            assert!(text.parse::<AddressRule>().is_err(), "{text}");
        }
        assert_eq!(
            "a\nb".parse::<AddressRule>().unwrap_err().to_string(),
            "'a\\nb' is no address; write any, an IPv4 or IPv6 address, or a network such as 10.1.0.0/16"
        );
    }

    proptest! {
        #[test]
        fn networks_end_at_their_last_bit(v4: u32, bits4 in 1_u8..=32, v6: u128, bits6 in 1_u8..=128) {
            let host = Ipv4Addr::from_bits(v4);
            let network = rule(&format!("{host}/{bits4}"));
            prop_assert_eq!(network.to_string().parse::<AddressRule>(), Ok(network.clone()));
            prop_assert!(network.matches(host.into()));
            prop_assert!(!network.matches(Ipv4Addr::from_bits(v4 ^ (1 << (32 - bits4))).into()));
            let mask = Ipv4Addr::from_bits(u32::MAX << (32 - bits4));
            prop_assert_eq!(rule(&format!("{host}/{mask}")).network, network.network);
            let host = Ipv6Addr::from_bits(v6 | 1 << 127);
            let network = rule(&format!("{host}/{bits6}"));
            prop_assert!(network.matches(host.into()));
            prop_assert!(!network.matches(Ipv6Addr::from_bits(host.to_bits() ^ (1 << (128 - bits6))).into()));
        }
    }
}
