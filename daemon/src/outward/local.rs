//! The sockets that programs of the installation write to: `queue/alerts/ar` of both products, `queue/alerts/cfgarq` and
//! `queue/sockets/remote` of Wazuh.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use codec::AgentId;
use tokio::net::{UnixDatagram, UnixListener};
use tokio::time::sleep;

use super::{Outward, OutwardError, response, socket_error};
use crate::settings::{Product, Settings};

const RESPONSES: &str = "queue/alerts/ar";
const DUMPS: &str = "queue/alerts/cfgarq";
const REQUESTS: &str = "queue/sockets/remote";

/// As both products have their sockets: for the user and the group of the installation.
const SOCKET_MODE: u32 = 0o660;

/// Longer datagrams are cut, and then say nothing to anybody. Source: wazuh v4.14.7 `remoted/ar-forward.c`.
const DATAGRAM_BYTES_MAX: usize = 65_536;

/// Binds `queue/alerts/ar`.
pub(super) fn responses(home: &Path) -> Result<UnixDatagram, OutwardError> {
    datagrams(&home.join(RESPONSES)).map_err(socket_error(RESPONSES))
}

/// Binds `queue/alerts/cfgarq`, where Wazuh's analysisd is: it asks agents for their databases of configuration checks.
pub(super) fn dumps(settings: &Settings) -> Result<Option<UnixDatagram>, OutwardError> {
    match settings.sink.queue.product {
        Product::Ossec => Ok(None),
        Product::Wazuh => datagrams(&settings.home.join(DUMPS)).map(Some).map_err(socket_error(DUMPS)),
    }
}

/// Listens on `queue/sockets/remote`, if the home has that folder: only Wazuh's has.
pub(super) fn requests(home: &Path) -> Result<Option<UnixListener>, OutwardError> {
    let path = home.join(REQUESTS);
    if !path.parent().is_some_and(Path::is_dir) {
        return Ok(None);
    }
    let listen = || {
        make_way(&path, |path| std::os::unix::net::UnixStream::connect(path).map(drop))?;
        let listener = UnixListener::bind(&path)?;
        give_to_group(&path)?;
        Ok(listener)
    };
    listen().map(Some).map_err(socket_error(REQUESTS))
}

/// Takes the lines of `queue/alerts/ar`, until the runtime ends.
pub(super) async fn read_responses(outward: Rc<Outward>, socket: UnixDatagram) {
    each_datagram(&socket, |datagram| outward.on_response(datagram)).await;
}

/// Takes the lines of `queue/alerts/cfgarq`, until the runtime ends.
pub(super) async fn read_dumps(outward: Rc<Outward>, socket: UnixDatagram) {
    each_datagram(&socket, |datagram| {
        let now = outward.now();
        match dump(datagram) {
            Some((agent, text)) => outward.with(|desk| desk.post(now, agent, text, 0)),
            None => outward.counted.outward.invalid.add(1),
        }
    })
    .await;
}

/// Whom a line of `queue/alerts/cfgarq` is for, and the message: `<id>:sca-dump...`.
///
/// Source: wazuh v4.14.7 `remoted/cfga-forward.c`, `SCFGA_Forward`.
fn dump(datagram: &[u8]) -> Option<(AgentId, Bytes)> {
    let line = datagram.split(|byte| *byte == 0).next()?;
    let colon = line.iter().position(|byte| *byte == b':')?;
    let (agent, said) = (AgentId::from_bytes(&line[..colon]).ok()?, &line[colon + 1..]);
    let said =
        std::str::from_utf8(said).ok().filter(|said| said.starts_with("sca-dump") && said.len() <= 4_096)?;
    Some((agent, response::control_message(said)))
}

async fn each_datagram(socket: &UnixDatagram, mut take: impl FnMut(&[u8])) {
    let mut buffer = vec![0; DATAGRAM_BYTES_MAX];
    loop {
        match socket.recv(&mut buffer).await {
            // The runtime gives the others their turn now and then, however many come.
            Ok(bytes) => take(&buffer[..bytes]),
            Err(_) => sleep(Duration::from_secs(1)).await,
        }
    }
}

fn datagrams(path: &Path) -> io::Result<UnixDatagram> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    make_way(path, |path| std::os::unix::net::UnixDatagram::unbound()?.connect(path))?;
    let socket = UnixDatagram::bind(path)?;
    give_to_group(path)?;
    Ok(socket)
}

/// Removes a socket that an earlier program left; but not one that a program still has.
fn make_way(path: &Path, connect: impl FnOnce(&Path) -> io::Result<()>) -> io::Result<()> {
    if connect(path).is_ok() {
        let cure = "another program has it: stop ossec-remoted, wazuh-remoted or the other ringmaster";
        return Err(io::Error::new(io::ErrorKind::AddrInUse, cure));
    }
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Lets the programs of the installation write: its group is that of the folder.
fn give_to_group(path: &Path) -> io::Result<()> {
    fs::set_permissions(path, Permissions::from_mode(SOCKET_MODE))?;
    let folder = path.parent().expect("a socket is in a folder");
    let group = fs::metadata(folder)?.gid();
    // Whoever is not in that group can't, and need not.
    let _ = std::os::unix::fs::chown(path, None, Some(group));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_is_taken_over_only_from_the_dead() {
        let home = tempfile::tempdir().unwrap();
        tokio_uring::start(async {
            let first = responses(home.path()).unwrap();
            let mode = fs::metadata(home.path().join(RESPONSES)).unwrap().mode();
            assert_eq!(mode & 0o777, 0o660);
            let refused = responses(home.path()).unwrap_err().to_string();
            assert!(refused.starts_with("queue/alerts/ar: another program has it"), "{refused}");
            drop(first);
            responses(home.path()).unwrap();
            assert!(requests(home.path()).unwrap().is_none(), "no folder, no socket");
            fs::create_dir_all(home.path().join("queue/sockets")).unwrap();
            let first = requests(home.path()).unwrap();
            assert!(first.is_some() && requests(home.path()).is_err());
        });
    }

    #[test]
    fn dumps_of_configuration_checks() {
        let id = "003".parse().unwrap();
        let text = Bytes::from_static(b"#!-sca-dump:cis_debian:1");
        assert_eq!(dump(b"003:sca-dump:cis_debian:1\0"), Some((id, text)));
        for bad in [&b""[..], b"003", b"003:", b"003:execd x", b"x:sca-dump", b":sca-dump"] {
            assert_eq!(dump(bad), None);
        }
    }
}
