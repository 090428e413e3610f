//! OSSEC's own programs. Each finds its home at a path that was compiled in, so it is started where a temporary home is mounted there, for
//! itself alone. That needs root, and so do they, to become OSSEC's users.

use std::ffi::OsString;
use std::fs::{self, Permissions};
use std::io;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};

use nix::unistd::{Group, User};

use crate::outage::ProgramTimes;
use crate::outage::program::{Home, Program};
use crate::reader::QueueSocket;

/// What was named.
#[derive(Debug, Clone)]
pub(crate) struct Ossec {
    pub(crate) agentd: PathBuf,
    pub(crate) remoted: PathBuf,
    /// The home that both were built for.
    pub(crate) home: PathBuf,
}

/// Whom each becomes; the group is the same.
const AGENTD_USER: &str = "ossec";
const REMOTED_USER: &str = "ossecr";
const GROUP: &str = "ossec";
pub(super) const QUEUE: &str = "queue/ossec/queue";

/// What both look up in their home.
const INTERNAL_OPTIONS: &str = "agent.debug=0\nremoted.debug=0\nremoted.recv_counter_flush=128\nremoted.comp_average_printout=19999\n\
remoted.verify_msg_id=1\nremoted.pass_empty_keyfile=0\nossec.thread_stack_size=2048\n";

impl Ossec {
    /// An agent's home, and ossec-agentd in it, not started yet.
    ///
    /// # Errors
    /// What can't be made, and what to do.
    pub(super) fn agent(
        &self,
        key: &str,
        server: SocketAddr,
        times: ProgramTimes,
    ) -> Result<(tempfile::TempDir, Program), String> {
        let ProgramTimes { notify_time, time_reconnect, .. } = times;
        let conf = format!(
            "<ossec_config>\n<client>\n<server-ip>{}</server-ip>\n<port>{}</port>\n<crypto_method>aes</crypto_method>\n\
             <notify_time>{notify_time}</notify_time>\n<time-reconnect>{time_reconnect}</time-reconnect>\n</client>\n</ossec_config>\n",
            server.ip(),
            server.port()
        );
        let home = home(&conf, &format!("{key}\n"), AGENTD_USER)?;
        let program = self.program(&self.agentd, home.path());
        Ok((home, program))
    }

    /// The manager's home, ossec-remoted in it, started as soon as the socket is there that it hands over to, and where it will listen.
    ///
    /// # Errors
    /// What can't be made, and what to do.
    pub(super) fn manager(&self, keys: &str, host: Ipv4Addr) -> Result<(Remoted, QueueSocket), String> {
        let failed = |error: io::Error| error.to_string();
        // Free at this moment.
        let address = UdpSocket::bind((host, 0)).and_then(|socket| socket.local_addr()).map_err(failed)?;
        let conf = format!(
            "<ossec_config>\n<remote>\n<connection>secure</connection>\n<port>{}</port>\n<local_ip>{}</local_ip>\n\
             <crypto_accept>both</crypto_accept>\n</remote>\n</ossec_config>\n",
            address.port(),
            address.ip()
        );
        let home = home(&conf, keys, REMOTED_USER)?;
        let queue = QueueSocket::bind(&home.path().join(QUEUE)).map_err(failed)?;
        let program = self.program(&self.remoted, home.path());
        Ok((Remoted { address, program, _home: home }, queue))
    }

    fn program(&self, program: &Path, folder: &Path) -> Program {
        let words: [OsString; 3] = ["-f".into(), "-D".into(), self.home.as_os_str().to_owned()];
        let home = Home { folder: folder.to_owned(), seen_at: self.home.clone() };
        Program::new(program, words, folder.join("logs/program.log"), Some(home))
    }
}

/// ossec-remoted.
#[derive(Debug)]
pub(super) struct Remoted {
    pub(super) address: SocketAddr,
    pub(super) program: Program,
    _home: tempfile::TempDir,
}

impl Remoted {
    /// Whether it listens by now: nobody else can.
    pub(super) fn is_listening(&self) -> bool {
        UdpSocket::bind(self.address).is_err()
    }
}

/// A home of which everything belongs to the user.
fn home(conf: &str, keys: &str, user: &str) -> Result<tempfile::TempDir, String> {
    let nobody = |what: &str, name: &str| {
        format!("there is no {what} '{name}', whom OSSEC's programs become: make it")
    };
    let owner = User::from_name(user).ok().flatten().ok_or_else(|| nobody("user", user))?.uid.as_raw();
    let group = Group::from_name(GROUP).ok().flatten().ok_or_else(|| nobody("group", GROUP))?.gid.as_raw();
    let failed = |error: io::Error| {
        format!("a home for OSSEC: {error}; it must be made by root, in a TMPDIR that is writable")
    };
    let home = tempfile::Builder::new().prefix("loadgen-").tempdir().map_err(failed)?;
    let make = || -> io::Result<()> {
        let own = |path: &Path, mode: u32| {
            chown(path, Some(owner), Some(group))?;
            fs::set_permissions(path, Permissions::from_mode(mode))
        };
        own(home.path(), 0o750)?;
        for folder in [
            "etc",
            "etc/shared",
            "logs",
            "queue",
            "queue/ossec",
            "queue/rids",
            "queue/alerts",
            "queue/agent-info",
            "queue/syscheck",
            "queue/diff",
            "var",
            "var/run",
            "tmp",
        ] {
            fs::create_dir(home.path().join(folder))?;
            own(&home.path().join(folder), 0o770)?;
        }
        for (file, text) in [
            ("etc/ossec.conf", conf),
            ("etc/client.keys", keys),
            ("etc/internal_options.conf", INTERNAL_OPTIONS),
            ("etc/local_internal_options.conf", ""),
            ("logs/ossec.log", ""),
        ] {
            fs::write(home.path().join(file), text)?;
            own(&home.path().join(file), 0o660)?;
        }
        Ok(())
    };
    make().map_err(failed)?;
    Ok(home)
}
