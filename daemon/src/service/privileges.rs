//! Whose rights the program has: those that it was started with until its sockets are bound, and from then on no more than
//! the installation's own user has.

use std::{
    fmt, fs, io,
    os::unix::fs::{MetadataExt, lchown},
    path::Path,
};

use nix::unistd::{Gid, Group, Uid, User, setgroups, setresgid, setresuid};
use rustix::{
    process::{Resource, Rlimit, getrlimit, setrlimit},
    thread::{CapabilitySet, CapabilitySets},
};

use crate::{
    home::Home,
    settings::{Account, Run},
};

/// Who the program becomes once its sockets are bound.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Identity {
    /// Its user.
    pub user: u32,
    /// Its only group.
    pub group: u32,
}

impl Identity {
    /// Whom the settings name; `None`: the program stays who it is.
    ///
    /// `auto` asks the installation: started by root, it becomes the owner of `queue/rids`, where remoted has always
    /// written (OSSEC: ossecr and ossec; Wazuh: wazuh and wazuh). If that is root too, or anybody else started the program,
    /// it stays who it is.
    ///
    /// # Errors
    /// When there is no such user or group, or one is named that only root could become.
    pub fn of(run: &Run, home: &Home) -> Result<Option<Identity>, PrivilegeError> {
        if !Uid::effective().is_root() {
            return match &run.user {
                Account::Auto | Account::AsStarted => Ok(None),
                Account::Named(name) if user(name)?.user == Uid::effective().as_raw() => Ok(None),
                Account::Named(name) => Err(PrivilegeError::NotRoot { name: name.clone() }),
            };
        }
        let found = match &run.user {
            Account::AsStarted => return Ok(None),
            Account::Auto => match owner(&home.path().join("queue/rids")) {
                None | Some(Identity { user: 0, .. }) => return Ok(None),
                Some(owner) => owner,
            },
            Account::Named(name) => user(name)?,
        };
        let group = match &run.group {
            Account::Auto => found.group,
            Account::AsStarted => Gid::effective().as_raw(),
            Account::Named(name) => group(name)?,
        };
        Ok(Some(Identity { group, ..found }))
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let user = User::from_uid(Uid::from_raw(self.user)).ok().flatten().map(|user| user.name);
        let group = Group::from_gid(Gid::from_raw(self.group)).ok().flatten().map(|group| group.name);
        write!(
            formatter,
            "user {} group {}",
            user.unwrap_or_else(|| self.user.to_string()),
            group.unwrap_or_else(|| self.group.to_string())
        )
    }
}

/// Gives up everything that root has: other groups, the user, and with it every capability. There is no way back.
///
/// Threads that are started later have the same rights; so call it before there are any.
///
/// # Errors
/// When the kernel refuses, as in a container without CAP_SETUID and CAP_SETGID.
///
/// # Panics
/// When the kernel says that it has done so and has not.
pub fn drop_to(identity: Identity) -> Result<(), PrivilegeError> {
    let refused = |errno| PrivilegeError::Refused { identity, error: io::Error::from(errno) };
    let (user, group) = (Uid::from_raw(identity.user), Gid::from_raw(identity.group));
    setgroups(&[]).map_err(refused)?;
    setresgid(group, group, group).map_err(refused)?;
    setresuid(user, user, user).map_err(refused)?;
    assert!(
        Uid::current() == user && Uid::effective() == user && Gid::effective() == group,
        "the kernel gives a process the user that it was asked for"
    );
    assert!(user.is_root() || nix::unistd::setuid(Uid::from_raw(0)).is_err(), "there is no way back to root");
    Ok(())
}

/// Gives up what no later system call may need: capabilities that a service manager gave an ordinary user for binding, and
/// the chance that a program which is executed has more rights than this one. Root keeps its capabilities.
///
/// # Errors
/// The kernel's; none is known.
pub fn no_new_privileges() -> io::Result<()> {
    rustix::thread::set_no_new_privs(true)?;
    if Uid::effective().is_root() {
        return Ok(());
    }
    let none = CapabilitySet::empty();
    rustix::thread::set_capabilities(
        None,
        CapabilitySets { effective: none, permitted: none, inheritable: none },
    )?;
    // Kernels before 4.3 have no such set; none of them has the rings.
    rustix::thread::clear_ambient_capability_set()?;
    Ok(())
}

/// Lifts what bounds an ordinary user, while root still may: descriptors (the length of a ring's table of connections) and
/// locked memory (the rings). The wanted numbers are those of tuning/systemd.
pub fn raise_limits() {
    if !Uid::effective().is_root() {
        return;
    }
    for (resource, wanted) in [(Resource::Nofile, NOFILE), (Resource::Memlock, MEMLOCK_BYTES)] {
        let limit = getrlimit(resource);
        let more = |have: Option<u64>| have.map(|have| have.max(wanted));
        // A container may refuse; then what there is has to do, and a shard that can't start says so.
        let _ = setrlimit(resource, Rlimit { current: more(limit.current), maximum: more(limit.maximum) });
    }
}

/// As `tuning/systemd/ringmaster.service.d/limits.conf`.
pub(super) const NOFILE: u64 = 65_536;
pub(super) const MEMLOCK_BYTES: u64 = 256 << 20;

/// Gives the files that are this program's alone to whom it becomes: an earlier run may have been another user's.
///
/// # Errors
/// When root itself may not, as on a read-only disk.
pub fn give_to(identity: Identity, home: &Home) -> io::Result<()> {
    // Never through a link: whoever may write there would choose what root gives away.
    let give = |path: &Path| match lchown(path, Some(identity.user), Some(identity.group)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    };
    let own = home.path().join("queue/ringmaster");
    give(&own)?;
    for entry in fs::read_dir(&own)? {
        let entry = entry?;
        if entry.metadata().is_ok_and(|metadata| metadata.is_file() && metadata.nlink() == 1) {
            give(&entry.path())?;
        }
    }
    give(&home.lock_path())
}

fn owner(path: &Path) -> Option<Identity> {
    let metadata = fs::metadata(path).ok()?;
    Some(Identity { user: metadata.uid(), group: metadata.gid() })
}

/// A user by name or number, and its own group. A number need not have a name, as in most containers; its group is then the
/// same number.
fn user(name: &str) -> Result<Identity, PrivilegeError> {
    let found = match number(name) {
        Some(number) => {
            let named = User::from_uid(Uid::from_raw(number)).ok().flatten();
            Some(Identity { user: number, group: named.map_or(number, |user| user.gid.as_raw()) })
        }
        None => User::from_name(name)
            .ok()
            .flatten()
            .map(|user| Identity { user: user.uid.as_raw(), group: user.gid.as_raw() }),
    };
    found.ok_or_else(|| PrivilegeError::NoUser { name: name.to_owned() })
}

fn group(name: &str) -> Result<u32, PrivilegeError> {
    let found = match number(name) {
        Some(number) => Some(number),
        None => Group::from_name(name).ok().flatten().map(|group| group.gid.as_raw()),
    };
    found.ok_or_else(|| PrivilegeError::NoGroup { name: name.to_owned() })
}

/// A user or group by its number. The greatest means "leave it" to the kernel, and is nobody's.
fn number(text: &str) -> Option<u32> {
    text.parse().ok().filter(|number| *number != u32::MAX)
}

/// Why the program can't have the rights that it should have. Displays as one line.
#[derive(Debug)]
pub enum PrivilegeError {
    /// Files could not be given to the user.
    Files(io::Error),
    /// There is no such group.
    NoGroup {
        /// `run.group`.
        name: String,
    },
    /// There is no such user.
    NoUser {
        /// `run.user`.
        name: String,
    },
    /// Only root can become somebody.
    NotRoot {
        /// `run.user`.
        name: String,
    },
    /// The kernel refused.
    Refused {
        /// Whom it should have become.
        identity: Identity,
        /// What the kernel said.
        error: io::Error,
    },
}

impl std::error::Error for PrivilegeError {}

impl fmt::Display for PrivilegeError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PrivilegeError::Files(error) => {
                write!(formatter, "queue/ringmaster can't be given to run.user: {error}")
            }
            PrivilegeError::NoGroup { name } => {
                write!(formatter, "run.group: there is no group {name:?}: make it, or name another")
            }
            PrivilegeError::NoUser { name } => {
                write!(formatter, "run.user: there is no user {name:?}: make it, or name another")
            }
            PrivilegeError::NotRoot { name } => write!(
                formatter,
                "run.user: only root can become {name:?}: start as root or as that user, or set run.user = \"as-started\""
            ),
            PrivilegeError::Refused { identity, error } => write!(
                formatter,
                "can't become {identity}: {error}; give CAP_SETUID and CAP_SETGID, start as that user, or set \
                 run.user = \"as-started\""
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(user: &str, group: &str) -> Run {
        Run { user: user.parse().unwrap(), group: group.parse().unwrap(), ..Run::default() }
    }

    #[test]
    fn users_and_groups_have_names_or_numbers() {
        assert_eq!(user("root").unwrap(), Identity { user: 0, group: 0 });
        assert_eq!(user("3999999999").unwrap(), Identity { user: 3_999_999_999, group: 3_999_999_999 });
        assert_eq!(group("root").unwrap(), 0);
        assert_eq!(group("77").unwrap(), 77);
        for nobody in ["", "no such account", "4294967295", "-1"] {
            let said = user(nobody).unwrap_err().to_string();
            assert_eq!(said, format!("run.user: there is no user {nobody:?}: make it, or name another"));
            let said = group(nobody).unwrap_err().to_string();
            assert_eq!(said, format!("run.group: there is no group {nobody:?}: make it, or name another"));
        }
    }

    #[test]
    fn the_installation_says_whom_root_becomes_and_others_stay() {
        let folder = tempfile::tempdir().unwrap();
        let home = Home::prepare(folder.path()).unwrap();
        let auto = settings("auto", "auto");
        assert_eq!(Identity::of(&auto, &home).unwrap(), None, "queue/rids is this user's own");
        if Uid::effective().is_root() {
            std::os::unix::fs::chown(home.path().join("queue/rids"), Some(3_001), Some(3_002)).unwrap();
            let check = |user: &str, group: &str, expected: Option<(u32, u32)>| {
                let identity = Identity::of(&settings(user, group), &home).unwrap();
                let expected = expected.map(|(user, group)| Identity { user, group });
                assert_eq!(identity, expected, "{user} {group}");
            };
            check("auto", "auto", Some((3_001, 3_002)));
            check("auto", "7", Some((3_001, 7)));
            check("as-started", "auto", None);
            check("3005", "auto", Some((3_005, 3_005)));
            check("3005", "root", Some((3_005, 0)));
        } else {
            let own = Uid::effective().to_string();
            assert_eq!(Identity::of(&settings(&own, "auto"), &home).unwrap(), None);
            let said = Identity::of(&settings("root", "auto"), &home).unwrap_err().to_string();
            assert!(said.starts_with("run.user: only root can become \"root\""), "{said}");
        }
    }

    #[test]
    fn an_identity_has_its_names() {
        assert_eq!(Identity { user: 0, group: 0 }.to_string(), "user root group root");
        assert_eq!(
            Identity { user: 3_999_999_999, group: 3_999_999_998 }.to_string(),
            "user 3999999999 group 3999999998"
        );
    }
}
