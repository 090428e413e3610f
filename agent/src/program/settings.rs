//! What the program is told: `<client>` of etc/ossec.conf, and etc/ringmaster-agent.toml for what OSSEC has no word for.

mod client;
mod document;

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use agent::Transport;
use codec::{CipherKey, KeyEntry, KeyFile, Method, Product};

pub(crate) use document::Document;

/// The files, below the home.
pub(crate) const OSSEC_CONF: &str = "etc/ossec.conf";
pub(crate) const OWN_CONF: &str = "etc/ringmaster-agent.toml";
pub(crate) const KEYS: &str = "etc/client.keys";
pub(crate) const INTERNAL_OPTIONS: &[&str] =
    &["etc/internal_options.conf", "etc/local_internal_options.conf"];

/// Everything that the program is told.
#[derive(Debug)]
pub(crate) struct Settings {
    pub(crate) client: Client,
    pub(crate) own: Document,
    /// This agent, as its manager knows it.
    pub(crate) entry: KeyEntry,
    /// What an operator should know: `file:line: text`.
    pub(crate) remarks: Vec<String>,
}

/// `<client>` of ossec.conf.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Client {
    /// In the order of the file; never empty, and all of one transport.
    pub(crate) servers: Vec<Server>,
    pub(crate) transport: Transport,
    pub(crate) local_address: Option<IpAddr>,
    pub(crate) notify_time: Duration,
    pub(crate) time_reconnect: Duration,
    pub(crate) profile: Option<String>,
    pub(crate) is_blowfish: bool,
    pub(crate) active_response: bool,
}

/// A manager's address. A name is resolved before each attempt to reach it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Server {
    pub(crate) host: String,
    pub(crate) port: u16,
}

impl fmt::Display for Server {
    /// As OSSEC's log has it.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}, port {}", self.host, self.port)
    }
}

impl Settings {
    /// Reads the files of a home.
    ///
    /// # Errors
    /// One line that names file, line, value and cure.
    pub(crate) fn read(home: &Path) -> Result<Settings, String> {
        let mut remarks = Vec::new();
        let conf = required(home, OSSEC_CONF)?;
        let client = client::parse(&conf, &mut remarks).map_err(|error| format!("{OSSEC_CONF}: {error}"))?;
        let own = match bounded(&home.join(OWN_CONF)) {
            Ok(bytes) => {
                let text = String::from_utf8(bytes).map_err(|_| format!("{OWN_CONF}: it is not UTF-8"))?;
                Document::parse(&text).map_err(|problem| format!("{OWN_CONF}: {problem}"))?
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Document::default(),
            Err(error) => return Err(format!("{OWN_CONF}: {error}")),
        };
        for file in INTERNAL_OPTIONS {
            if let Ok(bytes) = bounded(&home.join(file)) {
                client::internal_options(file, &bytes, &mut remarks);
            }
        }
        let entry = entry(&required(home, KEYS)?, &mut remarks)?;
        Ok(Settings { client, own, entry, remarks })
    }

    /// What messages are sealed with.
    pub(crate) fn cipher_key(&self) -> CipherKey {
        CipherKey::new(&self.entry.name, self.entry.id.as_str(), &self.entry.key)
    }

    /// How messages are sealed. Wazuh's AES is another one than OSSEC's; managers of both know blowfish.
    pub(crate) fn method(&self) -> Method {
        if self.client.is_blowfish { Method::Blowfish } else { Method::AesOssec }
    }
}

impl fmt::Display for Settings {
    /// For the operator who asks with --test-config.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Settings { client, own, entry, remarks } = self;
        let protocol = match client.transport {
            Transport::Tcp => "tcp",
            Transport::Udp => "udp",
        };
        for server in &client.servers {
            writeln!(formatter, "server            {server} ({protocol})")?;
        }
        writeln!(formatter, "agent             {} {} {}", entry.id, entry.name, entry.address)?;
        writeln!(formatter, "crypto_method     {}", if client.is_blowfish { "blowfish" } else { "aes" })?;
        writeln!(formatter, "notify_time       {} s", client.notify_time.as_secs())?;
        writeln!(formatter, "time-reconnect    {} s", client.time_reconnect.as_secs())?;
        writeln!(formatter, "active response   {}", if client.active_response { "on" } else { "off" })?;
        write!(formatter, "{own}")?;
        remarks.iter().try_for_each(|remark| writeln!(formatter, "{remark}"))
    }
}

/// The one agent that a client.keys on an agent's host holds: as in the C program, the first.
fn entry(keys: &[u8], remarks: &mut Vec<String>) -> Result<KeyEntry, String> {
    let KeyFile { mut entries, problems, .. } = KeyFile::parse(keys);
    remarks.extend(problems.iter().take(10).map(|problem| format!("{KEYS}: {problem}")));
    if entries.is_empty() {
        return Err(format!(
            "(4109): {KEYS}: unable to start without auth keys: import this agent's key with manage_agents or agent-auth"
        ));
    }
    if entries.len() > 1 {
        remarks.push(format!("{KEYS}: {} agents, of which the first is this one", entries.len()));
    }
    Ok(entries.swap_remove(0))
}

fn required(home: &Path, file: &str) -> Result<Vec<u8>, String> {
    bounded(&home.join(file)).map_err(|error| {
        format!("{file}: {error}; name the folder of an OSSEC agent with --home, now {}", home.display())
    })
}

/// A file of settings is never larger.
const FILE_BYTES_MAX: u64 = codec::markup::FILE_BYTES_MAX as u64;

fn bounded(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, "larger than any file of settings"));
    }
    Ok(bytes)
}

/// The product whose agent this is: an installation of OSSEC.
pub(crate) const PRODUCT: Product = Product::Ossec;

#[cfg(test)]
mod tests {
    use super::*;

    fn home(conf: &str, keys: &str, own: Option<&str>) -> tempfile::TempDir {
        let home = tempfile::tempdir().unwrap();
        std::fs::create_dir(home.path().join("etc")).unwrap();
        std::fs::write(home.path().join(OSSEC_CONF), conf).unwrap();
        std::fs::write(home.path().join(KEYS), keys).unwrap();
        if let Some(own) = own {
            std::fs::write(home.path().join(OWN_CONF), own).unwrap();
        }
        home
    }

    const CONF: &str = "<ossec_config><client><server-ip>192.0.2.1</server-ip></client></ossec_config>";

    #[test]
    fn an_installation_as_it_is_found() {
        let home = home(CONF, "001 web any k\n002 other any k\n", None);
        std::fs::write(home.path().join(INTERNAL_OPTIONS[0]), "# x\nagent.debug=0\nremoted.debug=0\n")
            .unwrap();
        let settings = Settings::read(home.path()).unwrap();
        assert_eq!((settings.entry.id.as_str(), &*settings.entry.name), ("001", "web"));
        assert_eq!(settings.method(), Method::AesOssec);
        assert_eq!(
            settings.remarks,
            [
                "etc/internal_options.conf:2: agent.debug is not used",
                "etc/client.keys: 2 agents, of which the first is this one"
            ]
        );
        assert!(settings.to_string().starts_with("server            192.0.2.1, port 1514 (udp)\n"));
    }

    #[test]
    fn what_is_missing_or_wrong_is_named() {
        let check = |home: &tempfile::TempDir, expected: &str| {
            let error = Settings::read(home.path()).unwrap_err();
            assert!(error.contains(expected), "{error}");
        };
        check(&home(CONF, "", None), "(4109): etc/client.keys: unable to start without auth keys");
        check(&home("<ossec_config/>", "001 a any k", None), "etc/ossec.conf: line 1: no <client>");
        check(&home(CONF, "001 a any k", Some("[spool]\nx = 1\n")), "etc/ringmaster-agent.toml: ");
        let empty = tempfile::tempdir().unwrap();
        check(&empty, "--home");
    }
}
