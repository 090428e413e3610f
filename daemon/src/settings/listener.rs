//! Where is listened, and who may speak there: `<remote>` of ossec.conf, `[listen]` and `[[listener]]` of
//! ringmaster.toml, `--listen`, all in one form.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
};

use codec::AddressRule;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::{CryptoAccept, Settings, value::listen_address};

/// How many listeners there may be: each has its sockets in every shard.
pub const LISTENERS_MAX: usize = 64;

/// One address that is listened on, and the rules for who may speak there.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Listener {
    /// What is spoken there.
    pub kind: ListenerKind,
    /// Over what; at least one.
    pub transports: Transports,
    /// Where. Port 0: the kernel chooses one port for all transports.
    pub address: SocketAddr,
    /// Who may speak. Empty: everyone, which only a secure listener has.
    pub allowed: Vec<AddressRule>,
    /// Who may not, although `allowed` says so.
    pub denied: Vec<AddressRule>,
    /// Which ciphers agents may use here.
    pub crypto_accept: CryptoAccept,
    /// Who sends a PROXY protocol header before anything else. Empty: nobody.
    pub proxy_protocol_from: Vec<AddressRule>,
    /// Which line asked for it, as `etc/ossec.conf:12`; or `default`.
    pub origin: String,
}

/// What is spoken at a listener: OSSEC's `<connection>`.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ListenerKind {
    /// The agent channel.
    #[default]
    Secure,
    /// Lines of syslog.
    Syslog,
}

/// Over which transports is listened.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Transports {
    /// Datagrams.
    pub udp: bool,
    /// Connections.
    pub tcp: bool,
}

impl Listener {
    /// A listener of agents without rules, over both transports.
    pub fn secure(address: SocketAddr, origin: impl Into<String>) -> Listener {
        Listener {
            kind: ListenerKind::Secure,
            transports: Transports::BOTH,
            address,
            allowed: Vec::new(),
            denied: Vec::new(),
            crypto_accept: CryptoAccept::Both,
            proxy_protocol_from: Vec::new(),
            origin: origin.into(),
        }
    }

    /// Whether `source` may speak here.
    ///
    /// Source: ossec-hids 4.3.0 `remoted/syslog.c`, `OS_IPNotAllowed`.
    pub fn admits(&self, source: IpAddr) -> bool {
        !lists(&self.denied, source) && (self.allowed.is_empty() || lists(&self.allowed, source))
    }

    /// Whether `peer` may say on whose behalf it speaks here.
    pub fn is_proxy(&self, peer: IpAddr) -> bool {
        lists(&self.proxy_protocol_from, peer)
    }

    /// Whether whatever comes to both would be treated alike.
    fn agrees_with(&self, other: &Listener) -> bool {
        self.kind == other.kind
            && self.allowed == other.allowed
            && self.denied == other.denied
            && self.crypto_accept == other.crypto_accept
            && self.proxy_protocol_from == other.proxy_protocol_from
    }

    /// Whether something could come to both.
    fn meets(&self, other: &Listener) -> bool {
        let (one, two) = (self.address.ip(), other.address.ip());
        let covers =
            |wide: IpAddr, narrow: IpAddr| wide.is_unspecified() && (wide.is_ipv6() || narrow.is_ipv4());
        self.address.port() == other.address.port()
            && self.address.port() != 0
            && self.transports.meets(other.transports)
            && (one == two || covers(one, two) || covers(two, one))
    }
}

/// Whether a list of addresses names `source`: the first rule whose network has it decides; if none has, the last rule
/// says so by being a `!`.
///
/// Source: ossec-hids 4.3.0 `shared/validate_op.c`, `OS_IPFoundList`.
fn lists(rules: &[AddressRule], source: IpAddr) -> bool {
    let negated = |rule: &AddressRule| rule.as_str().starts_with('!');
    match rules.iter().find(|rule| rule.matches(source) != negated(rule)) {
        Some(rule) => !negated(rule),
        None => rules.last().is_some_and(negated),
    }
}

impl fmt::Display for Listener {
    /// As `ringmaster check` shows it: `secure udp+tcp [::]:1514 crypto_accept=both`.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            ListenerKind::Secure => "secure",
            ListenerKind::Syslog => "syslog",
        };
        write!(formatter, "{kind} {} {} {}", self.transports, self.address, self.rules())
    }
}

impl Listener {
    /// Who may speak, and how: what a reload can change.
    pub fn rules(&self) -> String {
        let mut parts = Vec::new();
        for (name, rules) in [
            ("allowed", &self.allowed),
            ("denied", &self.denied),
            ("proxy_protocol_from", &self.proxy_protocol_from),
        ] {
            if !rules.is_empty() {
                let rules: Vec<&str> = rules.iter().map(AddressRule::as_str).collect();
                parts.push(format!("{name}={}", rules.join(",")));
            }
        }
        match self.kind {
            ListenerKind::Secure => parts.push(format!("crypto_accept={}", self.crypto_accept)),
            ListenerKind::Syslog => {}
        }
        parts.join(" ")
    }
}

impl Transports {
    /// UDP and TCP.
    pub const BOTH: Transports = Transports { udp: true, tcp: true };
    /// UDP alone.
    pub const UDP: Transports = Transports { udp: true, tcp: false };
    /// TCP alone.
    pub const TCP: Transports = Transports { udp: false, tcp: true };

    fn meets(self, other: Transports) -> bool {
        self.udp && other.udp || self.tcp && other.tcp
    }

    fn and(self, other: Transports) -> Transports {
        Transports { udp: self.udp || other.udp, tcp: self.tcp || other.tcp }
    }

    fn words(self) -> Vec<&'static str> {
        [(self.udp, "udp"), (self.tcp, "tcp")]
            .into_iter()
            .filter(|(on, _)| *on)
            .map(|(_, word)| word)
            .collect()
    }
}

impl fmt::Display for Transports {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.words().join("+"))
    }
}

impl Serialize for Transports {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.words().serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Transports {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Transports, D::Error> {
        let mut transports = Transports { udp: false, tcp: false };
        for word in Vec::<String>::deserialize(deserializer)? {
            match word.as_str() {
                "tcp" => transports.tcp = true,
                "udp" => transports.udp = true,
                _ => return Err(de::Error::custom(format!("{word:?} is no protocol: use \"udp\", \"tcp\""))),
            }
        }
        if transports.words().is_empty() {
            return Err(de::Error::custom("no protocol: use [\"udp\"], [\"tcp\"] or [\"udp\", \"tcp\"]"));
        }
        Ok(transports)
    }
}

/// `[[listener]]` of ringmaster.toml: a listener whose rules are its own.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct ListenerTable {
    /// `"secure"` or `"syslog"`.
    #[serde(default)]
    pub kind: ListenerKind,
    /// Address and port.
    #[serde(deserialize_with = "address_in")]
    pub address: SocketAddr,
    /// `["udp", "tcp"]` or one of them; by default both for agents, UDP for syslog.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocols: Option<Transports>,
    /// Who may speak; needed for syslog.
    #[serde(default, serialize_with = "rules_out", deserialize_with = "rules_in")]
    pub allowed: Vec<AddressRule>,
    /// Who may not.
    #[serde(default, serialize_with = "rules_out", deserialize_with = "rules_in")]
    pub denied: Vec<AddressRule>,
    /// Which ciphers; by default `agents.crypto_accept`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub crypto_accept: Option<CryptoAccept>,
    /// Who sends a PROXY protocol header.
    #[serde(default, serialize_with = "rules_out", deserialize_with = "rules_in")]
    pub proxy_protocol_from: Vec<AddressRule>,
}

impl ListenerTable {
    /// The listener of this table.
    pub(super) fn listener(&self, crypto_accept: CryptoAccept, origin: String) -> Listener {
        let usual = match self.kind {
            ListenerKind::Secure => Transports::BOTH,
            ListenerKind::Syslog => Transports::UDP,
        };
        Listener {
            kind: self.kind,
            transports: self.protocols.unwrap_or(usual),
            address: self.address,
            allowed: self.allowed.clone(),
            denied: self.denied.clone(),
            crypto_accept: self.crypto_accept.unwrap_or(crypto_accept),
            proxy_protocol_from: self.proxy_protocol_from.clone(),
            origin,
        }
    }
}

/// The listeners of settings that no file was read for: what `listen.addresses` and `[[listener]]` say.
pub(super) fn unread(settings: &Settings) -> Vec<Listener> {
    let crypto_accept = settings.agents.crypto_accept;
    let secure = |address: &SocketAddr| Listener { crypto_accept, ..Listener::secure(*address, "default") };
    let tables = settings.listener.iter().map(|table| table.listener(crypto_accept, "default".to_owned()));
    settings.listen.addresses.iter().map(secure).chain(tables).collect()
}

/// Puts what listens on one address together.
///
/// # Errors
/// When two listeners would get the same message and treat it differently, when one of syslog lets everyone in, or when
/// there are too many.
pub(super) fn merged(listeners: Vec<Listener>) -> Result<Vec<Listener>, ListenerError> {
    let mut merged: Vec<Listener> = Vec::new();
    for listener in listeners {
        if listener.kind == ListenerKind::Syslog && listener.allowed.is_empty() {
            return Err(ListenerError::Open { origin: listener.origin });
        }
        if !listener.proxy_protocol_from.is_empty() && !listener.transports.tcp {
            return Err(ListenerError::ProxyOverUdp { origin: listener.origin });
        }
        if let Some(other) =
            merged.iter().find(|other| other.meets(&listener) && !other.agrees_with(&listener))
        {
            return Err(ListenerError::Disagree {
                origin: listener.origin,
                other: other.origin.clone(),
                address: listener.address,
            });
        }
        let same = |other: &&mut Listener| {
            other.address == listener.address && listener.address.port() != 0 && other.agrees_with(&listener)
        };
        match merged.iter_mut().find(same) {
            Some(other) => {
                other.transports = other.transports.and(listener.transports);
                other.origin = format!("{}, {}", other.origin, listener.origin);
            }
            None => merged.push(listener),
        }
        if merged.len() > LISTENERS_MAX {
            let origin = merged.pop().expect("one was pushed").origin;
            return Err(ListenerError::TooMany { origin });
        }
    }
    Ok(merged)
}

/// Why listeners can't be had together.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum ListenerError {
    /// What comes to an address would be treated in two ways.
    Disagree {
        /// The later one.
        origin: String,
        /// The earlier one.
        other: String,
        /// Where both listen.
        address: SocketAddr,
    },
    /// A syslog listener takes lines from everyone.
    Open {
        /// Which.
        origin: String,
    },
    /// Load balancers are named where there are no connections.
    ProxyOverUdp {
        /// Where.
        origin: String,
    },
    /// More than [`LISTENERS_MAX`].
    TooMany {
        /// The first that is too many.
        origin: String,
    },
}

impl std::error::Error for ListenerError {}

impl fmt::Display for ListenerError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ListenerError::Disagree { origin, other, address } => write!(
                formatter,
                "{origin}: {address} is listened on by {other} too, with another kind or other rules: make them agree, or \
                 give it another port"
            ),
            ListenerError::Open { origin } => write!(
                formatter,
                "{origin}: a syslog listener without allowed addresses: name who may send lines (<allowed-ips> in \
                 ossec.conf, allowed in ringmaster.toml; \"any\" for everyone)"
            ),
            ListenerError::ProxyOverUdp { origin } => write!(
                formatter,
                "{origin}: proxy_protocol_from is for connections, and this listener has none: write protocols = [\"tcp\"]"
            ),
            ListenerError::TooMany { origin } => {
                write!(formatter, "{origin}: more than {LISTENERS_MAX} listeners: take some away")
            }
        }
    }
}

fn address_in<'de, D: Deserializer<'de>>(deserializer: D) -> Result<SocketAddr, D::Error> {
    listen_address(&String::deserialize(deserializer)?).map_err(de::Error::custom)
}

fn rules_in<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<AddressRule>, D::Error> {
    let texts = Vec::<String>::deserialize(deserializer)?;
    texts.iter().map(|text| text.parse().map_err(de::Error::custom)).collect()
}

fn rules_out<S: Serializer>(rules: &[AddressRule], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(rules.iter().map(AddressRule::as_str))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(text: &str) -> Vec<AddressRule> {
        text.split(',').filter(|rule| !rule.is_empty()).map(|rule| rule.parse().unwrap()).collect()
    }

    fn listener(kind: ListenerKind, transports: Transports, address: &str, allowed: &str) -> Listener {
        let address = address.parse().unwrap();
        let origin = format!("line {address}");
        Listener { kind, transports, allowed: rules(allowed), ..Listener::secure(address, origin) }
    }

    #[test]
    fn lists_decide_as_in_c() {
        let check = |allowed: &str, denied: &str, source: &str, expected: bool| {
            let mut listener = listener(ListenerKind::Syslog, Transports::UDP, "127.0.0.1:514", allowed);
            listener.denied = rules(denied);
            assert_eq!(listener.admits(source.parse().unwrap()), expected, "{allowed} - {denied}: {source}");
        };
        check("", "", "10.0.0.1", true);
        check("any", "", "10.0.0.1", true);
        check("10.0.0.0/8", "", "10.0.0.1", true);
        check("10.0.0.0/8", "", "::ffff:10.0.0.1", true);
        check("10.0.0.0/8", "", "11.0.0.1", false);
        check("10.0.0.0/8,fd00::/8", "", "fd12::1", true);
        check("10.0.0.0/8", "10.0.0.1", "10.0.0.1", false);
        check("10.0.0.0/8", "10.0.0.1", "10.0.0.2", true);
        check("!10.0.0.1,10.0.0.0/8", "", "10.0.0.1", false);
        check("!10.0.0.1,10.0.0.0/8", "", "10.0.0.2", true);
        check("10.0.0.0/8,!10.0.0.1", "", "10.0.0.1", true);
        check("!10.0.0.1", "", "192.168.0.1", true);
        check("any", "!10.0.0.1", "10.0.0.1", true);
        check("any", "!10.0.0.1", "10.0.0.2", false);
    }

    #[test]
    fn one_address_is_one_listener_if_the_rules_agree() {
        use ListenerKind::{Secure, Syslog};
        let check = |listeners: Vec<Listener>, expected: &str| {
            let said = match merged(listeners) {
                Ok(merged) => merged.iter().map(Listener::to_string).collect::<Vec<_>>().join("; "),
                Err(error) => error.to_string(),
            };
            assert_eq!(said, expected);
        };
        let secure = |transports, address: &str| listener(Secure, transports, address, "");
        let syslog =
            |transports, address: &str, allowed: &str| listener(Syslog, transports, address, allowed);
        check(
            vec![secure(Transports::UDP, "0.0.0.0:1514"), secure(Transports::TCP, "0.0.0.0:1514")],
            "secure udp+tcp 0.0.0.0:1514 crypto_accept=both",
        );
        check(
            vec![secure(Transports::UDP, "0.0.0.0:514"), syslog(Transports::TCP, "0.0.0.0:514", "any")],
            "secure udp 0.0.0.0:514 crypto_accept=both; syslog tcp 0.0.0.0:514 allowed=any",
        );
        check(
            vec![secure(Transports::BOTH, "127.0.0.1:0"), secure(Transports::BOTH, "127.0.0.1:0")],
            "secure udp+tcp 127.0.0.1:0 crypto_accept=both; secure udp+tcp 127.0.0.1:0 crypto_accept=both",
        );
        check(
            vec![secure(Transports::BOTH, "0.0.0.0:514"), syslog(Transports::UDP, "10.0.0.1:514", "any")],
            "line 10.0.0.1:514: 10.0.0.1:514 is listened on by line 0.0.0.0:514 too, with another kind or other rules: \
             make them agree, or give it another port",
        );
        check(
            vec![syslog(Transports::UDP, "[::]:514", "any"), syslog(Transports::UDP, "0.0.0.0:514", "::1")],
            "line 0.0.0.0:514: 0.0.0.0:514 is listened on by line [::]:514 too, with another kind or other rules: make \
             them agree, or give it another port",
        );
        check(
            vec![syslog(Transports::UDP, "0.0.0.0:514", "")],
            "line 0.0.0.0:514: a syslog listener without allowed addresses: name who may send lines (<allowed-ips> in \
             ossec.conf, allowed in ringmaster.toml; \"any\" for everyone)",
        );
        let mut behind = syslog(Transports::UDP, "127.0.0.1:514", "any");
        behind.proxy_protocol_from = rules("10.0.0.1");
        check(
            vec![behind],
            "line 127.0.0.1:514: proxy_protocol_from is for connections, and this listener has none: write protocols = \
             [\"tcp\"]",
        );
        let many = (1..=65).map(|port| listener(Secure, Transports::UDP, &format!("127.0.0.1:{port}"), ""));
        let many = many.collect();
        check(many, "line 127.0.0.1:65: more than 64 listeners: take some away");
    }
}
