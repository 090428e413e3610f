//! What the operator may say, on the command line or in a file of the same names: `--lines-max 50` is `lines-max = 50`.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, ValueEnum};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use spool::AtBound;

use crate::client::ClientSettings;
use crate::server::ServerSettings;
use crate::tls::Fingerprint;
use crate::wire::{Mode, SECRET_BYTES_MAX, is_name};

/// Options of `ringmaster-broker client`.
#[derive(Args, Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct ClientOptions {
    /// A file with any of these options, as TOML; the command line goes before it.
    #[arg(long, value_name = "FILE")]
    #[serde(skip)]
    pub config: Option<PathBuf>,
    /// The broker's server, as manager.example.org:1518; its name is looked up before each attempt.
    #[arg(long, value_name = "HOST:PORT")]
    pub server: Option<String>,
    /// Where agents send their datagrams; may be repeated. By default 127.0.0.1:1514.
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub listen: Option<Vec<SocketAddr>>,
    /// The folder for what is kept; made if it is missing. By default ./ringmaster-broker.
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
    /// By what the server knows this client; by default the host's name.
    #[arg(long)]
    pub name: Option<String>,
    /// Through the connection and acknowledged, or straight to the manager as long as it is well. By default relay.
    #[arg(long)]
    pub mode: Option<Mode>,
    /// Where a gate sends datagrams to.
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub manager: Option<SocketAddr>,
    /// The SHA-256 of the server's certificate, as `ringmaster-broker certificate` prints it. This switches TLS on.
    #[arg(long, value_name = "SHA256")]
    pub fingerprint: Option<String>,
    /// A file with the secret that the server has too; what stands around it as white space does not count.
    #[arg(long, value_name = "FILE")]
    pub secret_file: Option<PathBuf>,
    /// Agents at most. By default 1024.
    #[arg(long, value_name = "COUNT")]
    pub lines_max: Option<usize>,
    /// Bytes on disk for each agent at most. By default 64 MiB.
    #[arg(long, value_name = "BYTES")]
    pub bytes_per_agent: Option<u64>,
    /// What happens when an agent has as many: its oldest datagrams go, or its new ones do. By default drop-oldest.
    #[arg(long)]
    pub when_full: Option<WhenFull>,
    /// Wait for the disk with each write, so that what is kept survives the host's sudden end too. By default false.
    #[arg(long, num_args = 0..=1, default_missing_value = "true", value_name = "BOOL")]
    pub sync: Option<bool>,
    /// Kept datagrams that a gate lets through in a second. By default 1000.
    #[arg(long, value_name = "COUNT")]
    pub replay_per_second: Option<u32>,
}

/// Options of `ringmaster-broker server`.
#[derive(Args, Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct ServerOptions {
    /// A file with any of these options, as TOML; the command line goes before it.
    #[arg(long, value_name = "FILE")]
    #[serde(skip)]
    pub config: Option<PathBuf>,
    /// Where clients connect to, as 0.0.0.0:1518.
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub listen: Option<SocketAddr>,
    /// The manager's UDP address on this host. By default 127.0.0.1:1514.
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub manager: Option<SocketAddr>,
    /// The folder for the socket that `ringmaster-broker status` asks; made if it is missing. By default
    /// ./ringmaster-broker-server.
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
    /// A file with the manager's process id: without that process, it is not well.
    #[arg(long, value_name = "FILE")]
    pub manager_pid_file: Option<PathBuf>,
    /// A manager that answers nobody for so long, while datagrams are given to it, is not well. Not looked at by default.
    #[arg(long, value_name = "SECONDS")]
    pub answers_within: Option<u64>,
    /// The server's certificate. With it and --key, TLS is on.
    #[arg(long, value_name = "FILE")]
    pub certificate: Option<PathBuf>,
    /// The certificate's key.
    #[arg(long, value_name = "FILE")]
    pub key: Option<PathBuf>,
    /// A file with the secret that clients must have; what stands around it as white space does not count.
    #[arg(long, value_name = "FILE")]
    pub secret_file: Option<PathBuf>,
    /// Agents of all clients together at most. By default 16384.
    #[arg(long, value_name = "COUNT")]
    pub lines_max: Option<usize>,
}

/// What happens when an agent has as many bytes on disk as it may.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum WhenFull {
    /// Its oldest datagrams go.
    DropOldest,
    /// Its new ones do.
    RefuseNew,
}

/// What a client does, checked.
#[derive(Clone, Debug)]
pub struct ClientPlan {
    /// The core's part.
    pub core: ClientSettings,
    /// Host and port.
    pub server: String,
    /// Where agents send to.
    pub listen: Vec<SocketAddr>,
    /// Where a gate sends to; always there for a gate.
    pub manager: Option<SocketAddr>,
    /// The certificate to look for; without one there is no TLS.
    pub fingerprint: Option<Fingerprint>,
}

/// What a server does, checked.
#[derive(Clone, Debug)]
pub struct ServerPlan {
    /// The core's part.
    pub core: ServerSettings,
    /// Where clients connect to.
    pub listen: SocketAddr,
    /// The manager.
    pub manager: SocketAddr,
    /// Where the status socket is.
    pub dir: PathBuf,
    /// The file with the manager's process id.
    pub manager_pid_file: Option<PathBuf>,
    /// Certificate and key; without them there is no TLS.
    pub certificate: Option<(PathBuf, PathBuf)>,
}

/// Where a client keeps things if nobody says.
pub const CLIENT_DIR: &str = "./ringmaster-broker";

/// The same of a server.
pub const SERVER_DIR: &str = "./ringmaster-broker-server";

impl ClientOptions {
    /// What is to be done, from the command line, the file and the defaults.
    ///
    /// # Errors
    /// One line: what is wrong, and what would be right.
    pub fn plan(self) -> Result<ClientPlan, String> {
        let file: ClientOptions = read_config(self.config.as_deref())?;
        let name = self.name.or(file.name).unwrap_or_else(host_name);
        if !is_name(&name) {
            return Err(format!(
                "name {name:?}: give 1 to 64 printable ASCII characters without spaces, by --name"
            ));
        }
        let mode = self.mode.or(file.mode).unwrap_or_default();
        let manager = self.manager.or(file.manager);
        match (mode, manager) {
            (Mode::Gate, None) => {
                return Err("a gate needs --manager ADDRESS:PORT: that is where it sends to".to_owned());
            }
            (Mode::Relay, Some(_)) => {
                return Err("--manager is a gate's: a relay's server knows the manager; say --mode gate, or leave it out"
                    .to_owned());
            }
            (Mode::Gate, Some(_)) | (Mode::Relay, None) => {}
        }
        let fingerprint = self.fingerprint.or(file.fingerprint).map(|text| text.parse()).transpose()?;
        let bytes_max = self.bytes_per_agent.or(file.bytes_per_agent).unwrap_or(64 << 20);
        if bytes_max < 512 << 10 {
            return Err(format!("bytes-per-agent {bytes_max}: an agent needs 524288 or more"));
        }
        let at_bound = match self.when_full.or(file.when_full).unwrap_or(WhenFull::DropOldest) {
            WhenFull::DropOldest => AtBound::DropOldest,
            WhenFull::RefuseNew => AtBound::PushBack,
        };
        let sync = self.sync.or(file.sync).unwrap_or(false);
        let segment_bytes = (bytes_max / 16).min(1 << 20);
        let core = ClientSettings {
            folder: self.dir.or(file.dir).unwrap_or_else(|| CLIENT_DIR.into()),
            name,
            mode,
            secret: read_secret(self.secret_file.or(file.secret_file).as_deref())?,
            lines_max: positive("lines-max", self.lines_max.or(file.lines_max).unwrap_or(1_024))?,
            spool: spool::Settings { bytes_max, segment_bytes, at_bound, sync },
            replay_per_second: positive(
                "replay-per-second",
                self.replay_per_second.or(file.replay_per_second).unwrap_or(1_000),
            )?,
            seed: rand::random(),
        };
        let default = || vec![SocketAddr::from(([127, 0, 0, 1], 1514))];
        let listen = self.listen.or(file.listen).unwrap_or_else(default);
        let server = self.server.or(file.server).ok_or("a client needs --server HOST:PORT")?;
        if server.rsplit_once(':').is_none_or(|(host, port)| host.is_empty() || port.parse::<u16>().is_err())
        {
            return Err(format!("server {server:?}: write HOST:PORT, as manager.example.org:1518"));
        }
        Ok(ClientPlan { core, server, listen, manager, fingerprint })
    }
}

impl ServerOptions {
    /// What is to be done, from the command line, the file and the defaults.
    ///
    /// # Errors
    /// One line: what is wrong, and what would be right.
    pub fn plan(self) -> Result<ServerPlan, String> {
        let file: ServerOptions = read_config(self.config.as_deref())?;
        let certificate = match (self.certificate.or(file.certificate), self.key.or(file.key)) {
            (Some(certificate), Some(key)) => Some((certificate, key)),
            (None, None) => None,
            (Some(_), None) | (None, Some(_)) => {
                return Err(
                    "TLS needs both --certificate and --key; `ringmaster-broker certificate` makes them"
                        .to_owned(),
                );
            }
        };
        let answers_within = self.answers_within.or(file.answers_within);
        let answers_within = answers_within.map(|seconds| positive("answers-within", seconds)).transpose()?;
        let core = ServerSettings {
            secret: read_secret(self.secret_file.or(file.secret_file).as_deref())?,
            lines_max: positive("lines-max", self.lines_max.or(file.lines_max).unwrap_or(16_384))?,
            answers_within: answers_within.map(Duration::from_secs),
        };
        let listen =
            self.listen.or(file.listen).ok_or("a server needs --listen ADDRESS:PORT, as 0.0.0.0:1518")?;
        let default = SocketAddr::from(([127, 0, 0, 1], 1514));
        Ok(ServerPlan {
            core,
            listen,
            manager: self.manager.or(file.manager).unwrap_or(default),
            dir: self.dir.or(file.dir).unwrap_or_else(|| SERVER_DIR.into()),
            manager_pid_file: self.manager_pid_file.or(file.manager_pid_file),
            certificate,
        })
    }
}

fn read_config<T: Default + DeserializeOwned>(path: Option<&Path>) -> Result<T, String> {
    let Some(path) = path else { return Ok(T::default()) };
    let text = fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
    // The library's text names line and column.
    toml::from_str(&text).map_err(|error| format!("{}: {error}", path.display()))
}

fn read_secret(path: Option<&Path>) -> Result<Vec<u8>, String> {
    let Some(path) = path else { return Ok(Vec::new()) };
    let bytes = fs::read(path).map_err(|error| format!("{}: {error}", path.display()))?;
    let secret = bytes.trim_ascii();
    if secret.len() < 16 || secret.len() > SECRET_BYTES_MAX {
        return Err(format!(
            "{}: a secret has 16 to {SECRET_BYTES_MAX} bytes; make one by `openssl rand -hex 32`",
            path.display()
        ));
    }
    Ok(secret.to_vec())
}

fn positive<T: PartialOrd + From<u8> + std::fmt::Display>(name: &str, value: T) -> Result<T, String> {
    if value < T::from(1) { Err(format!("{name} {value}: give 1 or more")) } else { Ok(value) }
}

fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Client {
        #[command(flatten)]
        options: ClientOptions,
    }

    #[derive(Parser)]
    struct Server {
        #[command(flatten)]
        options: ServerOptions,
    }

    fn client(words: &str) -> Result<ClientPlan, String> {
        Client::parse_from(format!("client {words}").split(' ')).options.plan()
    }

    fn server(words: &str) -> Result<ServerPlan, String> {
        Server::parse_from(format!("server {words}").split(' ')).options.plan()
    }

    #[test]
    fn the_command_line_goes_before_the_file() {
        let scratch = tempfile::tempdir().unwrap();
        let (file, secret) = (scratch.path().join("client.toml"), scratch.path().join("secret"));
        fs::write(&secret, format!("  {}\n", "s".repeat(16))).unwrap();
        let text = format!(
            "server = \"m:1\"\nname = \"site\"\nlines-max = 5\nwhen-full = \"refuse-new\"\nsecret-file = {secret:?}\n\
             listen = [\"127.0.0.2:7\"]\n"
        );
        fs::write(&file, text).unwrap();
        let plan = client(&format!("--config {} --lines-max 9 --sync", file.display())).unwrap();
        assert_eq!((plan.server.as_str(), plan.core.name.as_str()), ("m:1", "site"));
        assert_eq!((plan.core.lines_max, plan.core.spool.sync), (9, true));
        assert_eq!(plan.core.spool.at_bound, AtBound::PushBack);
        assert_eq!(plan.core.secret, b"ssssssssssssssss");
        assert_eq!(plan.listen, ["127.0.0.2:7".parse().unwrap()]);
        fs::write(&file, "server = \"m:1\"\nlines = 5\n").unwrap();
        let error = client(&format!("--config {}", file.display())).unwrap_err();
        assert!(error.contains("client.toml") && error.contains("line 2"), "{error}");
        fs::write(&secret, "short").unwrap();
        assert!(server(&format!("--listen 127.0.0.1:1 --secret-file {}", secret.display())).is_err());
    }

    #[test]
    fn what_does_not_fit_together_is_refused() {
        let check = |words: &str, part: &str| {
            let error = client(words).unwrap_err();
            assert!(error.contains(part), "{words}: {error}");
        };
        check("--name a", "--server");
        check("--server m:1 --mode gate", "--manager");
        check("--server m:1 --manager 127.0.0.1:1", "--mode gate");
        check("--server m", "HOST:PORT");
        check("--server m:x", "HOST:PORT");
        check("--server m:1 --fingerprint 00", "64");
        check("--server m:1 --lines-max 0", "lines-max");
        check("--server m:1 --bytes-per-agent 1", "524288");
        check("--server m:1 --config /nowhere/at-all", "/nowhere/at-all");
        assert!(client("--server m:1 --name a --mode gate --manager 127.0.0.1:1").is_ok());
        assert!(server("--listen 127.0.0.1:1 --key k").unwrap_err().contains("--certificate"));
        assert!(server("--lines-max 3").unwrap_err().contains("--listen"));
        assert!(server("--listen 127.0.0.1:1 --answers-within 0").unwrap_err().contains("answers-within"));
    }
}
