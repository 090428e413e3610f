//! `<remote>`: one listener of the C programs, two or more of which may become one of ours.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use codec::{
    AddressRule,
    markup::{Element, shown},
};

use super::{ConfError, OssecConf, Remark, wrong};
use crate::settings::{AGENT_PORT, CryptoAccept, Listener, ListenerKind, Product, Transports};

/// The port of syslog.
const SYSLOG_PORT: u16 = 514;

/// A `<remote>` block as it is written.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Remote {
    /// Where it begins, counted from 1.
    pub line: usize,
    /// `<connection>`.
    pub kind: ListenerKind,
    /// `<port>`; 1514 for agents and 514 for syslog if there is none.
    pub port: u16,
    /// `<protocol>`.
    pub protocol: Option<Transports>,
    /// `<local_ip>`.
    pub local_ip: Option<IpAddr>,
    /// `<ipv6>`, which only Wazuh minds.
    pub ipv6: bool,
    /// `<crypto_accept>`, which only OSSEC knows.
    pub crypto_accept: CryptoAccept,
    /// `<allowed-ips>`.
    pub allowed: Vec<AddressRule>,
    /// `<denied-ips>`.
    pub denied: Vec<AddressRule>,
}

impl Remote {
    /// Reads a block. Remarks and options without a meaning are noted in `conf`.
    ///
    /// Source: ossec-hids 4.3.0 and wazuh v4.14.7 `config/remote-config.c`, `Read_Remote`.
    ///
    /// # Errors
    /// Where both C programs refuse.
    pub(super) fn read(section: &Element, conf: &mut OssecConf) -> Result<Remote, ConfError> {
        let (mut kind, mut port) = (None, None);
        let mut remote = Remote {
            line: section.line,
            kind: ListenerKind::Secure,
            port: 0,
            protocol: None,
            local_ip: None,
            ipv6: false,
            crypto_accept: CryptoAccept::Both,
            allowed: Vec::new(),
            denied: Vec::new(),
        };
        for option in &section.children {
            match option.name.to_ascii_lowercase().as_str() {
                "agents" => conf.unused(option, "agents of every version are served"),
                "allowed-ips" => remote.allowed.push(address_rule(option)?),
                "connection" => kind = Some(connection(option)?),
                "connection_overtake_time" => {
                    conf.unused(option, "a new connection of an agent replaces its old one at once");
                }
                "crypto_accept" => remote.crypto_accept = crypto_accept(option)?,
                "denied-ips" => remote.denied.push(address_rule(option)?),
                "ipv6" => match option.text.to_ascii_lowercase().as_str() {
                    "yes" => remote.ipv6 = true,
                    "no" => remote.ipv6 = false,
                    _ => conf.remark(option.line, ignored(option, "use yes or no")),
                },
                "local_ip" => {
                    let cure = "use one IPv4 or IPv6 address of this host";
                    remote.local_ip = Some(option.text.parse().map_err(|_| wrong(option, cure))?);
                }
                "port" => {
                    let number = option.text.parse::<u16>().ok().filter(|port| *port > 0);
                    port = Some(number.ok_or_else(|| wrong(option, "use a port from 1 to 65535"))?);
                }
                "protocol" => remote.protocol = protocol(option, conf),
                "queue_size" => {
                    queue_size(option)?;
                    conf.unused(option, "what waits is bounded in bytes: sink.soft_bytes, sink.hard_bytes");
                }
                "rids_closing_time" => conf.unused(option, "no file is held open for an agent's counter"),
                _ => {
                    let problem = format!("<{}> is no option of <remote>: take it away", shown(&option.name));
                    return Err(ConfError { line: option.line, problem });
                }
            }
        }
        remote.kind = kind.ok_or_else(|| ConfError {
            line: section.line,
            problem: "<remote> without <connection>: say secure (agents) or syslog".to_owned(),
        })?;
        let usual = match remote.kind {
            ListenerKind::Secure => AGENT_PORT,
            ListenerKind::Syslog => SYSLOG_PORT,
        };
        remote.port = port.unwrap_or(usual);
        Ok(remote)
    }

    /// Where it listens.
    ///
    /// Without `<local_ip>` OSSEC listens on every address of both families; Wazuh on every IPv4 address, or with
    /// `<ipv6>` on every IPv6 address, to which we add IPv4.
    fn address(&self, product: Product) -> SocketAddr {
        let everywhere = match product {
            Product::Wazuh if !self.ipv6 => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            Product::Ossec | Product::Wazuh => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        };
        SocketAddr::new(self.local_ip.unwrap_or(everywhere), self.port)
    }

    /// Over what it listens.
    ///
    /// Agents may use both transports if no `<protocol>` says otherwise; in OSSEC, whose agents know UDP only and whose
    /// remoted reads `tcp` as `udp`, UDP is always among them.
    fn transports(&self, product: Product) -> Transports {
        match (self.kind, product, self.protocol) {
            (ListenerKind::Secure, Product::Ossec, Some(named)) => Transports { udp: true, ..named },
            (ListenerKind::Secure | ListenerKind::Syslog, Product::Ossec | Product::Wazuh, Some(named)) => {
                named
            }
            (ListenerKind::Secure, Product::Ossec | Product::Wazuh, None) => Transports::BOTH,
            (ListenerKind::Syslog, Product::Ossec, None) => Transports::UDP,
            (ListenerKind::Syslog, Product::Wazuh, None) => Transports::TCP,
        }
    }
}

impl OssecConf {
    /// What is listened on, in the order of the blocks. `file` is what the origins name.
    ///
    /// As in the C programs, the addresses that any block allows or denies are those of every syslog listener, and of no
    /// secure one.
    pub fn listeners(&self, product: Product, file: &str) -> Vec<Listener> {
        let allowed: Vec<AddressRule> =
            self.remotes.iter().flat_map(|remote| remote.allowed.clone()).collect();
        let denied: Vec<AddressRule> = self.remotes.iter().flat_map(|remote| remote.denied.clone()).collect();
        let listener = |remote: &Remote| {
            let bare = Listener {
                kind: remote.kind,
                transports: remote.transports(product),
                crypto_accept: remote.crypto_accept,
                ..Listener::secure(remote.address(product), format!("{file}:{}", remote.line))
            };
            match remote.kind {
                ListenerKind::Secure => bare,
                ListenerKind::Syslog => Listener {
                    allowed: allowed.clone(),
                    denied: denied.clone(),
                    crypto_accept: CryptoAccept::Both,
                    ..bare
                },
            }
        };
        self.remotes.iter().map(listener).collect()
    }

    /// What an operator may expect of these blocks, and does not get.
    pub fn listener_remarks(&self, product: Product) -> Vec<Remark> {
        let mut remarks = Vec::new();
        for remote in self.remotes.iter().filter(|remote| remote.kind == ListenerKind::Secure) {
            if !remote.allowed.is_empty() || !remote.denied.is_empty() {
                let text = "<allowed-ips> and <denied-ips> are for syslog, as in the C managers: for agents use [[listener]] \
                     in ringmaster.toml";
                remarks.push(Remark { line: remote.line, text: text.to_owned() });
            }
            if product == Product::Ossec && remote.protocol == Some(Transports::TCP) {
                let text = "agents are listened to over UDP too: OSSEC's know nothing else, and ossec-remoted reads tcp as udp";
                remarks.push(Remark { line: remote.line, text: text.to_owned() });
            }
        }
        remarks
    }
}

fn connection(option: &Element) -> Result<ListenerKind, ConfError> {
    match option.text.as_str() {
        "secure" => Ok(ListenerKind::Secure),
        "syslog" => Ok(ListenerKind::Syslog),
        _ => Err(wrong(option, "use secure (agents) or syslog")),
    }
}

fn crypto_accept(option: &Element) -> Result<CryptoAccept, ConfError> {
    match option.text.to_ascii_lowercase().as_str() {
        "aes" => Ok(CryptoAccept::Aes),
        "blowfish" => Ok(CryptoAccept::Blowfish),
        "any" | "both" => Ok(CryptoAccept::Both),
        _ => Err(wrong(option, "use aes, blowfish or both")),
    }
}

/// `udp`, `tcp`, or both in a list. As in Wazuh, words that are neither are ignored.
fn protocol(option: &Element, conf: &mut OssecConf) -> Option<Transports> {
    let mut transports = Transports { udp: false, tcp: false };
    for word in option.text.split(',') {
        match word.trim().to_ascii_lowercase().as_str() {
            "tcp" => transports.tcp = true,
            "udp" => transports.udp = true,
            _ => conf.remark(option.line, ignored(option, "use udp, tcp or udp,tcp")),
        }
    }
    (transports.udp || transports.tcp).then_some(transports)
}

fn queue_size(option: &Element) -> Result<(), ConfError> {
    match option.text.parse::<u64>() {
        Ok(1..) => Ok(()),
        Ok(0) | Err(_) => Err(wrong(option, "use a number of messages, at least 1")),
    }
}

fn address_rule(option: &Element) -> Result<AddressRule, ConfError> {
    if option.text.len() > ADDRESS_BYTES_MAX {
        return Err(wrong(option, "write an address, or a network such as 10.1.0.0/16"));
    }
    option.text.parse().map_err(|error: codec::AddressError| ConfError {
        line: option.line,
        problem: format!("<{}>: {error}", shown(&option.name)),
    })
}

/// No address of any family is longer, with its mask and its `!`.
const ADDRESS_BYTES_MAX: usize = 80;

fn ignored(option: &Element, cure: &str) -> String {
    format!("<{}>: '{}' ignored: {cure}", shown(&option.name), shown(&option.text))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn conf(remotes: &str) -> Result<OssecConf, ConfError> {
        OssecConf::parse(format!("<ossec_config>\n{remotes}\n</ossec_config>").as_bytes())
    }

    /// The listeners of both products, and what is said of them.
    fn check(remotes: &str, ossec: &[&str], wazuh: &[&str], remarks: &[&str]) {
        let conf = conf(remotes).unwrap_or_else(|error| panic!("{error}: {remotes}"));
        for (product, expected) in [(Product::Ossec, ossec), (Product::Wazuh, wazuh)] {
            let listeners = conf.listeners(product, "f");
            let said: Vec<String> =
                listeners.iter().map(|listener| format!("{listener} # {}", listener.origin)).collect();
            assert_eq!(said, expected, "{product:?} {remotes}");
        }
        let said: Vec<String> = conf
            .remarks
            .iter()
            .chain(&conf.listener_remarks(Product::Ossec))
            .map(|remark| format!("{}: {}", remark.line, remark.text))
            .collect();
        assert_eq!(said, remarks, "{remotes}");
    }

    #[test]
    fn blocks_of_both_products() {
        // What OSSEC's installer writes.
        check(
            "<remote>\n<connection>secure</connection>\n</remote>",
            &["secure udp+tcp [::]:1514 crypto_accept=both # f:2"],
            &["secure udp+tcp 0.0.0.0:1514 crypto_accept=both # f:2"],
            &[],
        );
        // What Wazuh's installer writes.
        check(
            "<remote>\n<connection>secure</connection><port>1514</port><protocol>tcp</protocol>\
             <queue_size>131072</queue_size></remote>",
            &["secure udp+tcp [::]:1514 crypto_accept=both # f:2"],
            &["secure tcp 0.0.0.0:1514 crypto_accept=both # f:2"],
            &[
                "2: agents are listened to over UDP too: OSSEC's know nothing else, and ossec-remoted reads tcp as udp",
            ],
        );
        check(
            "<remote><connection>secure</connection><protocol>udp, TCP</protocol><ipv6>yes</ipv6>\
             <Crypto_Accept>AES</Crypto_Accept></remote>",
            &["secure udp+tcp [::]:1514 crypto_accept=aes # f:2"],
            &["secure udp+tcp [::]:1514 crypto_accept=aes # f:2"],
            &[],
        );
        check(
            "<remote><connection>secure</connection><protocol>udp</protocol><port>1515</port><local_ip>10.0.0.1</local_ip>\
             <ipv6>yes</ipv6></remote>",
            &["secure udp 10.0.0.1:1515 crypto_accept=both # f:2"],
            &["secure udp 10.0.0.1:1515 crypto_accept=both # f:2"],
            &[],
        );
    }

    #[test]
    fn syslog_has_the_addresses_of_all_blocks() {
        check(
            "<remote><connection>syslog</connection><allowed-ips>10.0.0.0/8</allowed-ips></remote>\n\
             <remote><connection>syslog</connection><protocol>tcp</protocol><local_ip>::1</local_ip>\
             <allowed-ips>192.168.1.1</allowed-ips><allowed-ips>fd00::/8</allowed-ips><denied-ips>10.0.0.9</denied-ips>\
             </remote>\n<remote><connection>secure</connection><denied-ips>10.0.0.8</denied-ips></remote>",
            &[
                "syslog udp [::]:514 allowed=10.0.0.0/8,192.168.1.1,fd00::/8 denied=10.0.0.9,10.0.0.8 # f:2",
                "syslog tcp [::1]:514 allowed=10.0.0.0/8,192.168.1.1,fd00::/8 denied=10.0.0.9,10.0.0.8 # f:3",
                "secure udp+tcp [::]:1514 crypto_accept=both # f:4",
            ],
            &[
                "syslog tcp 0.0.0.0:514 allowed=10.0.0.0/8,192.168.1.1,fd00::/8 denied=10.0.0.9,10.0.0.8 # f:2",
                "syslog tcp [::1]:514 allowed=10.0.0.0/8,192.168.1.1,fd00::/8 denied=10.0.0.9,10.0.0.8 # f:3",
                "secure udp+tcp 0.0.0.0:1514 crypto_accept=both # f:4",
            ],
            &[
                "4: <allowed-ips> and <denied-ips> are for syslog, as in the C managers: for agents use [[listener]] in \
               ringmaster.toml",
            ],
        );
    }

    #[test]
    fn what_c_ignores_is_a_remark_and_what_means_nothing_is_named_once() {
        check(
            "<remote><connection>secure</connection>\n<ipv6>maybe</ipv6><protocol>quic</protocol></remote>",
            &["secure udp+tcp [::]:1514 crypto_accept=both # f:2"],
            &["secure udp+tcp 0.0.0.0:1514 crypto_accept=both # f:2"],
            &[
                "3: <ipv6>: 'maybe' ignored: use yes or no",
                "3: <protocol>: 'quic' ignored: use udp, tcp or udp,tcp",
            ],
        );
        let text = "<remote><connection>secure</connection><rids_closing_time>5m</rids_closing_time>\n\
            <connection_overtake_time>60</connection_overtake_time>\n\
            <agents><allow_higher_versions>no</allow_higher_versions></agents></remote>\n\
            <remote><connection>secure</connection><rids_closing_time>6m</rids_closing_time></remote>";
        let unused = conf(text).unwrap().unused;
        let said: Vec<(usize, &str)> =
            unused.iter().map(|unused| (unused.line, unused.name.as_str())).collect();
        assert_eq!(said, [(2, "<rids_closing_time>"), (3, "<connection_overtake_time>"), (4, "<agents>")]);
    }

    #[test]
    fn refusals_name_line_value_and_cure() {
        let check = |option: &str, expected: &str| {
            let error =
                conf(&format!("<remote>\n<connection>secure</connection>\n{option}</remote>")).unwrap_err();
            assert_eq!(error.to_string(), expected);
        };
        check("<port>0</port>", "line 4: <port>: '0' can't be used: use a port from 1 to 65535");
        check("<port>65536</port>", "line 4: <port>: '65536' can't be used: use a port from 1 to 65535");
        check("<port/>", "line 4: <port>: '' can't be used: use a port from 1 to 65535");
        check(
            "<connection>tls</connection>",
            "line 4: <connection>: 'tls' can't be used: use secure (agents) or syslog",
        );
        check(
            "<crypto_accept>des</crypto_accept>",
            "line 4: <crypto_accept>: 'des' can't be used: use aes, blowfish or both",
        );
        check(
            "<local_ip>10.0.0.0/8</local_ip>",
            "line 4: <local_ip>: '10.0.0.0/8' can't be used: use one IPv4 or IPv6 address of this host",
        );
        check(
            "<allowed-ips>host</allowed-ips>",
            "line 4: <allowed-ips>: 'host' is no address; write any, an IPv4 or IPv6 address, or a network such as \
             10.1.0.0/16",
        );
        check(
            "<queue_size>0</queue_size>",
            "line 4: <queue_size>: '0' can't be used: use a number of messages, at least 1",
        );
        check("<tls>yes</tls>", "line 4: <tls> is no option of <remote>: take it away");
        let error = conf("<remote><port>1514</port></remote>").unwrap_err().to_string();
        assert_eq!(error, "line 2: <remote> without <connection>: say secure (agents) or syslog");
    }
}
