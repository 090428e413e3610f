//! Landlock: after the start, the program can read its installation's settings, write its queues and logs, and open no file
//! elsewhere; it can neither listen on nor connect to any further TCP port.
//!
//! Connecting to analysisd's socket is not a matter of files to Landlock (before its ABI 9, which is not asked for), so
//! `sink.queue.path` may lie anywhere.

use std::{
    collections::BTreeSet,
    fmt, fs,
    path::{Path, PathBuf},
};

use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, Ruleset, RulesetAttr, RulesetCreatedAttr, RulesetError,
    RulesetStatus, path_beneath_rules,
};

/// Folders below the home that are read and written. Each is named for itself: any may be a link to another disk.
const WRITTEN: [&str; 5] = ["queue", "logs", "logs/archives", "var", "etc/shared"];

/// What of the host is read: the time zone, and what /metrics says of the process itself.
const HOST_READ: [&str; 3] = ["/etc/localtime", "/usr/share/zoneinfo", "/proc/self"];

/// What the kernel holds the program to from now on. Displays as one line.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Confinement {
    /// Everything that was asked for.
    Full,
    /// An older kernel: files, but not all that was asked for.
    Partial,
    /// The kernel has no Landlock, or it is off.
    Absent,
}

/// Confines this thread, and all that it starts, to `home`. There is no way back.
///
/// # Errors
/// The kernel's, for what it should be able to do.
pub fn confine(home: &Path) -> Result<Confinement, RulesetError> {
    let read = AccessFs::ReadFile | AccessFs::ReadDir;
    let write = read
        | AccessFs::WriteFile
        | AccessFs::Truncate
        | AccessFs::MakeReg
        | AccessFs::MakeDir
        | AccessFs::MakeSock
        | AccessFs::RemoveFile
        | AccessFs::RemoveDir
        | AccessFs::Refer;
    let (readable, writable) = places(home);
    let rules = |places: BTreeSet<PathBuf>, access: BitFlags<AccessFs>| path_beneath_rules(places, access);
    let status = Ruleset::default()
        .handle_access(AccessFs::from_all(NEWEST))?
        .handle_access(AccessNet::from_all(NEWEST))?
        .create()?
        .add_rules(rules(readable, read))?
        .add_rules(rules(writable, write))?
        .restrict_self()?;
    Ok(match status.ruleset {
        RulesetStatus::FullyEnforced => Confinement::Full,
        RulesetStatus::PartiallyEnforced => Confinement::Partial,
        RulesetStatus::NotEnforced => Confinement::Absent,
    })
}

/// The newest interface whose rules are known here; on an older kernel the crate asks for what there is.
const NEWEST: ABI = ABI::V5;

/// What may be read, and what may be written too. A place that is not there is left out.
fn places(home: &Path) -> (BTreeSet<PathBuf>, BTreeSet<PathBuf>) {
    let real = |path: PathBuf| path.canonicalize().ok();
    let etc = home.join("etc");
    // A file of etc/ may be a link to where the host keeps its settings; a rewrite there makes another file in that folder.
    let linked = fs::read_dir(&etc).into_iter().flatten().flatten().filter_map(|entry| {
        let is_link = entry.file_type().is_ok_and(|kind| kind.is_symlink());
        let target = real(entry.path()).filter(|_| is_link)?;
        target.parent().map(Path::to_owned)
    });
    let host = HOST_READ.iter().filter_map(|path| real(PathBuf::from(path)));
    let readable = linked.chain(host).chain(real(etc.clone())).collect();
    let writable = WRITTEN.iter().filter_map(|folder| real(home.join(folder))).collect();
    (readable, writable)
}

impl fmt::Display for Confinement {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (files, written) = ("reads etc/", WRITTEN.join("/, "));
        match self {
            Confinement::Full => {
                write!(
                    formatter,
                    "Landlock: {files}, writes {written}/, opens no other file and no further TCP port"
                )
            }
            Confinement::Partial => write!(
                formatter,
                "Landlock of an older kernel: {files}, writes {written}/; not all else is refused"
            ),
            Confinement::Absent => {
                write!(formatter, "this kernel has no Landlock: files are guarded by their permissions alone")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn links_are_followed_where_an_operator_puts_them() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap();
        let home = root.join("home");
        for made in ["home/etc", "home/queue", "home/logs", "disk/archives", "host"] {
            fs::create_dir_all(root.join(made)).unwrap();
        }
        fs::write(root.join("host/ossec.conf"), "").unwrap();
        symlink(root.join("host/ossec.conf"), home.join("etc/ossec.conf")).unwrap();
        symlink(root.join("disk/archives"), home.join("logs/archives")).unwrap();
        let (readable, writable) = places(&home);
        assert!(
            readable.contains(&root.join("host")) && readable.contains(&home.join("etc")),
            "{readable:?}"
        );
        let expected = [root.join("disk/archives"), home.join("logs"), home.join("queue")];
        assert_eq!(writable, BTreeSet::from(expected), "var and etc/shared are not there");
    }

    /// On a thread of its own: the rest of the tests must not be held to it.
    #[test]
    fn what_is_confined_reads_settings_writes_queues_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let home = folder.path().join("home");
        for made in ["etc", "queue/rids", "logs", "var/run"] {
            fs::create_dir_all(home.join(made)).unwrap();
        }
        fs::write(home.join("etc/client.keys"), "keys").unwrap();
        fs::write(folder.path().join("secret"), "secret").unwrap();
        let confined = std::thread::spawn(move || {
            let confinement = confine(&home).unwrap();
            assert_eq!(fs::read(home.join("etc/client.keys")).unwrap(), b"keys");
            fs::write(home.join("queue/rids/001"), "0:1:").unwrap();
            fs::rename(home.join("queue/rids/001"), home.join("var/run/001")).unwrap();
            fs::remove_file(home.join("var/run/001")).unwrap();
            let outside = [
                fs::read(folder.path().join("secret")).map(drop),
                fs::write(folder.path().join("more"), ""),
                fs::write(home.join("etc/client.keys"), ""),
            ];
            (confinement, outside.map(|outcome| outcome.err().map(|error| error.kind())))
        });
        let (confinement, outside) = confined.join().unwrap();
        let refused = Some(std::io::ErrorKind::PermissionDenied);
        match confinement {
            Confinement::Full | Confinement::Partial => assert_eq!(outside, [refused; 3]),
            Confinement::Absent => assert_eq!(outside, [None; 3]),
        }
    }
}
