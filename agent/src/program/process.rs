//! The process among others: whose rights it has, how scripts find it, and how it leaves its terminal.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, lchown};
use std::path::{Path, PathBuf};

use nix::unistd::{Gid, Group, Uid, User, setgroups, setresgid, setresuid};

/// The spool's folder, below the home.
pub(crate) const SPOOL: &str = "queue/ringmaster-agent";
/// Whose owner the program becomes: ossec-agentd's own folder.
const OSSEC_QUEUE: &str = "queue/ossec";

/// Who the program becomes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Identity {
    user: u32,
    group: u32,
}

impl Identity {
    /// Started by root: the user and group that are named, or the owner of `queue/ossec`, which in an installation is
    /// ossec. `None`: it stays who it is.
    ///
    /// # Errors
    /// When a name is nobody's, or only root could become that user.
    pub(crate) fn of(
        home: &Path,
        user: Option<&str>,
        group: Option<&str>,
    ) -> Result<Option<Identity>, String> {
        let nobody =
            |what: &str, name: &str| format!("there is no {what} '{name}': make it, or name another");
        let user = match user {
            None => None,
            Some(name) => Some(User::from_name(name).ok().flatten().ok_or_else(|| nobody("user", name))?),
        };
        let group = match group {
            None => None,
            Some(name) => Some(Group::from_name(name).ok().flatten().ok_or_else(|| nobody("group", name))?),
        };
        if !Uid::effective().is_root() {
            return match user {
                Some(user) if user.uid != Uid::effective() => {
                    Err(format!("only root can become '{}': start as root, or without --user", user.name))
                }
                Some(_) | None => Ok(None),
            };
        }
        let owner = fs::metadata(home.join(OSSEC_QUEUE)).ok();
        let found = match (&user, owner) {
            (Some(user), _) => Identity { user: user.uid.as_raw(), group: user.gid.as_raw() },
            (None, Some(owner)) if owner.uid() != 0 => Identity { user: owner.uid(), group: owner.gid() },
            (None, Some(_) | None) => return Ok(None),
        };
        Ok(Some(group.map_or(found, |group| Identity { group: group.gid.as_raw(), ..found })))
    }

    /// Gives up everything that root has. There is no way back. To be called before there are threads.
    ///
    /// # Errors
    /// When the kernel refuses.
    ///
    /// # Panics
    /// When the kernel says that it has done so and has not.
    pub(crate) fn drop_to(self) -> io::Result<()> {
        let (user, group) = (Uid::from_raw(self.user), Gid::from_raw(self.group));
        setgroups(&[])?;
        setresgid(group, group, group)?;
        setresuid(user, user, user)?;
        assert!(
            Uid::current() == user && Uid::effective() == user && Gid::effective() == group,
            "the kernel gives a process the user that it was asked for"
        );
        nix::sys::prctl::set_no_new_privs()?;
        Ok(())
    }
}

/// Makes the folder of the spool, and what an installation lacks, for whom the program becomes.
///
/// # Errors
/// When a folder can't be made or given away.
pub(crate) fn prepare(home: &Path, identity: Option<Identity>) -> Result<(), String> {
    let failed = |path: &Path, error: io::Error| format!("{}: {error}", path.display());
    for folder in [SPOOL, "queue/rids", "queue/alerts", "etc/shared", "logs", "var/run", OSSEC_QUEUE] {
        let path = home.join(folder);
        if path.is_dir() && folder != SPOOL {
            continue;
        }
        let made = fs::DirBuilder::new().recursive(true).mode(0o770).create(&path);
        made.map_err(|error| failed(&path, error))?;
        let Some(Identity { user, group }) = identity else { continue };
        lchown(&path, Some(user), Some(group)).map_err(|error| failed(&path, error))?;
        if folder != SPOOL {
            continue;
        }
        // An earlier run may have been root's.
        for entry in fs::read_dir(&path).map_err(|error| failed(&path, error))? {
            let entry = entry.map_err(|error| failed(&path, error))?;
            // Never a file with another name elsewhere: who may write here would choose what root gives away.
            if entry.metadata().is_ok_and(|metadata| metadata.is_file() && metadata.nlink() == 1) {
                lchown(entry.path(), Some(user), Some(group))
                    .map_err(|error| failed(&entry.path(), error))?;
            }
        }
    }
    Ok(())
}

/// `var/run/<name>-<pid>.pid`, for as long as this lives. The name is what the program was called as, so that ossec-control finds
/// it behind a link bin/ossec-agentd.
///
/// Source: ossec-hids 4.3.0 `shared/file_op.c`, `CreatePID`.
#[derive(Debug)]
pub(crate) struct PidFile {
    path: PathBuf,
}

impl PidFile {
    /// # Errors
    /// The kernel's.
    pub(crate) fn create(home: &Path, name: &str) -> io::Result<PidFile> {
        let pid = std::process::id();
        let path = home.join(format!("var/run/{name}-{pid}.pid"));
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o640).open(&path)?;
        writeln!(file, "{pid}")?;
        Ok(PidFile { path })
    }
}

impl Drop for PidFile {
    fn drop(&mut self) {
        // Who removed it before us wanted the same.
        let _ = fs::remove_file(&self.path);
    }
}

/// Leaves the terminal, as ossec-agentd does unless it is told to stay. To be called before there are threads.
///
/// # Errors
/// The kernel's.
pub(crate) fn to_background() -> io::Result<()> {
    Ok(nix::unistd::daemon(true, false)?)
}

/// The first line of keep-alives.
///
/// Source: ossec-hids 4.3.0 `shared/file_op.c`, `getuname`.
pub(crate) fn uname() -> String {
    let product = concat!("OSSEC HIDS v4.3.0 (ringmaster-agent ", env!("CARGO_PKG_VERSION"), ")");
    let Ok(name) = nix::sys::utsname::uname() else {
        return format!("No system info available -  {product}");
    };
    let parts = [name.sysname(), name.nodename(), name.release(), name.version(), name.machine()];
    let words: Vec<String> = parts.map(|part| part.to_string_lossy().replace(char::is_control, " ")).into();
    format!("{} - {product}", words.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_becomes_whom_the_installation_names_and_others_stay() {
        let home = tempfile::tempdir().unwrap();
        prepare(home.path(), None).unwrap();
        assert_eq!(Identity::of(home.path(), None, None).unwrap(), None, "queue/ossec is this user's own");
        if Uid::effective().is_root() {
            lchown(home.path().join(OSSEC_QUEUE), Some(3_001), Some(3_002)).unwrap();
            let identity = Identity::of(home.path(), None, None).unwrap();
            assert_eq!(identity, Some(Identity { user: 3_001, group: 3_002 }));
            let identity = Identity::of(home.path(), None, Some("root")).unwrap();
            assert_eq!(identity, Some(Identity { user: 3_001, group: 0 }));
            prepare(home.path(), identity).unwrap();
            let spool = fs::metadata(home.path().join(SPOOL)).unwrap();
            assert_eq!((spool.uid(), spool.gid()), (3_001, 0));
        }
        let error = Identity::of(home.path(), Some("no such account"), None).unwrap_err();
        assert!(error.contains("no user 'no such account'"), "{error}");
    }

    #[test]
    fn a_pid_file_lives_as_long_as_its_program() {
        let home = tempfile::tempdir().unwrap();
        prepare(home.path(), None).unwrap();
        let path = home.path().join(format!("var/run/ossec-agentd-{}.pid", std::process::id()));
        let file = PidFile::create(home.path(), "ossec-agentd").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), format!("{}\n", std::process::id()));
        drop(file);
        assert!(!path.exists());
    }

    #[test]
    fn the_uname_is_one_line_in_ossecs_form() {
        let uname = uname();
        assert!(uname.starts_with("Linux ") && uname.contains(" - OSSEC HIDS v4.3.0"), "{uname}");
        assert!(!uname.contains('\n'));
    }
}
