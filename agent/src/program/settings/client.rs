//! `<client>` of ossec.conf, in OSSEC's form and in Wazuh's.

use std::net::IpAddr;
use std::time::Duration;

use agent::Transport;
use codec::markup::{ConfError, Element, parse as roots, shown};

use super::{Client, OSSEC_CONF, Server};

/// Source: ossec-hids 4.3.0 `headers/defs.h`, `DEFAULT_SECURE`.
const PORT: u16 = 1514;
/// Source: ossec-hids 4.3.0 `headers/defs.h`, `NOTIFY_TIME`.
const NOTIFY_SECONDS: u64 = 600;
/// No manager waits longer for a keep-alive; a larger number is a mistake of typing.
const SECONDS_MAX: u64 = 7 * 24 * 3_600;
/// More servers than any fleet has managers.
const SERVERS_MAX: usize = 64;

/// Options of `<client>` that are understood, and mean nothing here.
const UNUSED: &[&str] =
    &["auto_restart", "enrollment", "force_reconnect_interval", "ip_update_interval", "remote_conf"];

/// Reads the `<client>` sections of all roots.
///
/// Source: ossec-hids 4.3.0 `config/client-config.c`, `Read_Client`; wazuh v4.14.7 the same.
pub(super) fn parse(bytes: &[u8], remarks: &mut Vec<String>) -> Result<Client, ConfError> {
    let mut reading = Reading::default();
    let mut line = 1;
    for root in roots(bytes)? {
        for section in root.children.iter().filter(|section| section.name == "client") {
            line = section.line;
            for option in &section.children {
                reading.option(option, remarks)?;
            }
        }
    }
    reading.finish(line, remarks)
}

/// `agent.` options of an internal_options.conf: none means anything here, and the operator is told so.
pub(super) fn internal_options(file: &str, bytes: &[u8], remarks: &mut Vec<String>) {
    const REMARKS_MAX: usize = 20;
    let text = String::from_utf8_lossy(bytes);
    let options = text.lines().enumerate().filter(|(_, line)| line.starts_with("agent."));
    for (index, line) in options.take(REMARKS_MAX) {
        let name = line.split('=').next().unwrap_or_default();
        remarks.push(format!("{file}:{}: {} is not used", index + 1, shown(name.trim_end())));
    }
}

/// What was read so far.
#[derive(Default)]
struct Reading {
    servers: Vec<ServerAt>,
    /// OSSEC's `<port>` and `<protocol>`, which hold for its servers wherever they stand.
    port: Option<u16>,
    protocol: Option<Transport>,
    local_address: Option<IpAddr>,
    notify: Option<u64>,
    reconnect: Option<u64>,
    profile: Option<String>,
    is_blowfish: bool,
    is_without_response: bool,
}

struct ServerAt {
    host: String,
    port: Option<u16>,
    protocol: Option<Transport>,
    line: usize,
}

impl Reading {
    fn option(&mut self, option: &Element, remarks: &mut Vec<String>) -> Result<(), ConfError> {
        match option.name.as_str() {
            "server-ip" => {
                address(option)?;
                self.server(option.line, host(option)?, None, None)?;
            }
            "server-hostname" => self.server(option.line, host(option)?, None, None)?,
            "server" => self.wazuh_server(option, remarks)?,
            "local_ip" => self.local_address = Some(address(option)?),
            "port" => self.port = Some(port(option)?),
            "protocol" => self.protocol = Some(protocol(option)?),
            "notify_time" => self.notify = Some(seconds(option)?),
            "time-reconnect" => self.reconnect = Some(seconds(option)?),
            "config-profile" => self.profile = Some(one_line(option)?),
            "crypto_method" => {
                self.is_blowfish = match option.text.as_str() {
                    "aes" => false,
                    "blowfish" => true,
                    _ => return Err(wrong(option, "use aes or blowfish")),
                };
            }
            "disable-active-response" => {
                self.is_without_response = match option.text.as_str() {
                    "yes" => true,
                    "no" => false,
                    _ => return Err(wrong(option, "use yes or no")),
                };
            }
            name if UNUSED.contains(&name) => not_used(option, remarks),
            name => {
                let problem = format!("<{}> is no option of <client>: take it away", shown(name));
                return Err(ConfError { line: option.line, problem });
            }
        }
        Ok(())
    }

    fn wazuh_server(&mut self, server: &Element, remarks: &mut Vec<String>) -> Result<(), ConfError> {
        let (mut name, mut its_port, mut its_protocol) = (None, None, None);
        for option in &server.children {
            match option.name.as_str() {
                "address" => name = Some(host(option)?),
                "port" => its_port = Some(port(option)?),
                "protocol" => its_protocol = Some(protocol(option)?),
                "max_retries" | "retry_interval" | "network_interface" => not_used(option, remarks),
                other => {
                    let problem = format!("<{}> is no option of <server>: take it away", shown(other));
                    return Err(ConfError { line: option.line, problem });
                }
            }
        }
        let missing =
            || ConfError { line: server.line, problem: "<server> without <address>: add it".to_owned() };
        // Wazuh's own default, whatever OSSEC's <protocol> says.
        let its_protocol = its_protocol.unwrap_or(Transport::Tcp);
        self.server(server.line, name.ok_or_else(missing)?, its_port, Some(its_protocol))
    }

    fn server(
        &mut self,
        line: usize,
        host: String,
        port: Option<u16>,
        protocol: Option<Transport>,
    ) -> Result<(), ConfError> {
        if self.servers.len() >= SERVERS_MAX {
            let problem = format!("more than {SERVERS_MAX} servers: take some away");
            return Err(ConfError { line, problem });
        }
        self.servers.push(ServerAt { host, port, protocol, line });
        Ok(())
    }

    fn finish(self, line: usize, remarks: &mut Vec<String>) -> Result<Client, ConfError> {
        let own = self.protocol.unwrap_or(Transport::Udp);
        let Some(first) = self.servers.first() else {
            let problem = "no <client> with a <server-ip>, <server-hostname> or <server>: name the manager";
            return Err(ConfError { line, problem: problem.to_owned() });
        };
        let transport = first.protocol.unwrap_or(own);
        if let Some(other) = self.servers.iter().find(|server| server.protocol.unwrap_or(own) != transport) {
            let problem = "<protocol> of this server differs from the first one's: give all servers the same";
            return Err(ConfError { line: other.line, problem: problem.to_owned() });
        }
        let port = self.port.unwrap_or(PORT);
        let notify = self.notify.filter(|seconds| *seconds > 0).unwrap_or(NOTIFY_SECONDS);
        let mut reconnect = self.reconnect.filter(|seconds| *seconds > 0).unwrap_or(NOTIFY_SECONDS * 3);
        if reconnect <= notify {
            reconnect = notify * 3;
            remarks.push(format!(
                "{OSSEC_CONF}: time-reconnect must be greater than notify_time ({notify} s): {reconnect} s is used"
            ));
        }
        Ok(Client {
            servers: self
                .servers
                .into_iter()
                .map(|server| Server { host: server.host, port: server.port.unwrap_or(port) })
                .collect(),
            transport,
            local_address: self.local_address,
            notify_time: Duration::from_secs(notify),
            time_reconnect: Duration::from_secs(reconnect),
            profile: self.profile,
            is_blowfish: self.is_blowfish,
            active_response: !self.is_without_response,
        })
    }
}

fn not_used(option: &Element, remarks: &mut Vec<String>) {
    remarks.push(format!("{OSSEC_CONF}:{}: <{}> is not used", option.line, shown(&option.name)));
}

fn address(option: &Element) -> Result<IpAddr, ConfError> {
    option.text.parse().map_err(|_| wrong(option, "use one IPv4 or IPv6 address"))
}

fn host(option: &Element) -> Result<String, ConfError> {
    const HOST_BYTES_MAX: usize = 253;
    let text = &option.text;
    let is_one = (1..=HOST_BYTES_MAX).contains(&text.len());
    if is_one && !text.contains(|character: char| character.is_whitespace() || character.is_control()) {
        Ok(text.clone())
    } else {
        Err(wrong(option, "use an address or a host name"))
    }
}

fn port(option: &Element) -> Result<u16, ConfError> {
    match option.text.parse() {
        Ok(port @ 1..) => Ok(port),
        Ok(0) | Err(_) => Err(wrong(option, "use a port from 1 to 65535")),
    }
}

fn protocol(option: &Element) -> Result<Transport, ConfError> {
    match option.text.to_ascii_lowercase().as_str() {
        "tcp" => Ok(Transport::Tcp),
        "udp" => Ok(Transport::Udp),
        _ => Err(wrong(option, "use udp or tcp")),
    }
}

fn seconds(option: &Element) -> Result<u64, ConfError> {
    match option.text.parse() {
        Ok(seconds @ ..=SECONDS_MAX) => Ok(seconds),
        Ok(_) | Err(_) => Err(wrong(option, "use a number of seconds, at most a week")),
    }
}

/// It goes into a file of lines.
fn one_line(option: &Element) -> Result<String, ConfError> {
    if option.text.contains(char::is_control) {
        return Err(wrong(option, "write it on one line"));
    }
    Ok(option.text.clone())
}

fn wrong(option: &Element, cure: &str) -> ConfError {
    let problem = format!("<{}>: '{}' can't be used: {cure}", shown(&option.name), shown(&option.text));
    ConfError { line: option.line, problem }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(client: &str) -> (Result<Client, String>, Vec<String>) {
        let mut remarks = Vec::new();
        let text = format!("<ossec_config>\n<client>\n{client}\n</client>\n</ossec_config>");
        let client = parse(text.as_bytes(), &mut remarks).map_err(|error| error.to_string());
        (client, remarks)
    }

    #[test]
    fn clients_of_both_products() {
        let check = |text: &str,
                     servers: &[&str],
                     transport: Transport,
                     seconds: (u64, u64),
                     remarks: usize| {
            let (client, said) = read(text);
            let client = client.unwrap();
            let found: Vec<String> = client.servers.iter().map(Server::to_string).collect();
            assert_eq!(found, servers, "{text}");
            assert_eq!(client.transport, transport, "{text}");
            assert_eq!((client.notify_time.as_secs(), client.time_reconnect.as_secs()), seconds, "{text}");
            assert_eq!(said.len(), remarks, "{said:?}");
        };
        check("<server-ip>192.0.2.1</server-ip>", &["192.0.2.1, port 1514"], Transport::Udp, (600, 1_800), 0);
        check(
            "<server-ip>::1</server-ip><port>1516</port><server-hostname>m.example</server-hostname>\
             <protocol>tcp</protocol><notify_time>60</notify_time><time-reconnect>240</time-reconnect>",
            &["::1, port 1516", "m.example, port 1516"],
            Transport::Tcp,
            (60, 240),
            0,
        );
        check(
            "<server><address>a.example</address><port>1</port></server>\
             <server><address>b.example</address><protocol>TCP</protocol><max_retries>5</max_retries></server>\
             <notify_time>20</notify_time><time-reconnect>20</time-reconnect><auto_restart>yes</auto_restart>",
            &["a.example, port 1", "b.example, port 1514"],
            Transport::Tcp,
            (20, 60),
            3,
        );
    }

    #[test]
    fn the_rest_of_a_client() {
        let (client, _) = read(
            "<server-ip>192.0.2.1</server-ip><crypto_method>blowfish</crypto_method><config-profile>web</config-profile>\
             <disable-active-response>yes</disable-active-response><local_ip>192.0.2.9</local_ip>",
        );
        let client = client.unwrap();
        assert!(client.is_blowfish && !client.active_response);
        assert_eq!(client.profile.as_deref(), Some("web"));
        assert_eq!(client.local_address, Some(IpAddr::from([192, 0, 2, 9])));
    }

    #[test]
    fn refusals_name_line_value_and_cure() {
        let check = |text: &str, expected: &str| assert_eq!(read(text).0.unwrap_err(), expected);
        check("", "line 2: no <client> with a <server-ip>, <server-hostname> or <server>: name the manager");
        check(
            "<server-ip>m.example</server-ip>",
            "line 3: <server-ip>: 'm.example' can't be used: use one IPv4 or IPv6 address",
        );
        check("<port>0</port>", "line 3: <port>: '0' can't be used: use a port from 1 to 65535");
        check("<protocol>quic</protocol>", "line 3: <protocol>: 'quic' can't be used: use udp or tcp");
        check("<server>\n</server>", "line 3: <server> without <address>: add it");
        check("<tls>yes</tls>", "line 3: <tls> is no option of <client>: take it away");
        check(
            "<notify_time>soon</notify_time>",
            "line 3: <notify_time>: 'soon' can't be used: use a number of seconds, at most a week",
        );
        check(
            "<server-ip>192.0.2.1</server-ip>\n<server><address>a</address></server>",
            "line 4: <protocol> of this server differs from the first one's: give all servers the same",
        );
        check(
            "<crypto_method>des</crypto_method>",
            "line 3: <crypto_method>: 'des' can't be used: use aes or blowfish",
        );
    }
}
