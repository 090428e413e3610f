//! The home folder: an installation's files, laid out as OSSEC's, so that an existing one can be used as it is.
//!
//! ```text
//! etc/ringmaster.toml            settings
//! etc/client.keys                the agents
//! logs/archives/                 archives.log, archives.json
//! etc/shared/                    what agents get as merged.mg
//! queue/alerts/ar                a socket: what agents are to do
//! queue/rids/                    counters, one file an agent, as OSSEC keeps them
//! queue/ossec/                   analysisd's socket
//! queue/agent-info/              one file an agent, by which OSSEC's tools know who is there
//! queue/ringmaster/counters      counters of all agents, written each second
//! queue/ringmaster/delivery      what each sink has of agents whose events are confirmed
//! queue/ringmaster/delivery-blocks   what of it is on its way into archives
//! queue/ringmaster/command       socket of the running program, for commands
//! var/run/ringmaster.json        pid and addresses of the running program
//! var/run/ringmaster.lock        held while it runs
//! var/run/ringmaster-<pid>.pid   for scripts
//! logs/ossec.log                 what the program says
//! ```

use std::{
    fmt,
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Read, Seek, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, lchown},
    path::{Path, PathBuf},
};

use rustix::fs::{FlockOperation, OFlags};

use crate::{ossec_conf::OSSEC_CONF, settings};

/// A home folder whose folders and files are all there.
#[derive(Clone, Debug)]
pub struct Home {
    path: PathBuf,
    created: bool,
}

impl Home {
    /// Makes what is missing of a home. What is there stays as it is. An installation of OSSEC or Wazuh gets only what is
    /// ringmaster's own, and an empty client.keys if it has none.
    ///
    /// # Errors
    /// When a folder or file can't be made.
    pub fn prepare(path: &Path) -> Result<Home, HomeError> {
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |error: io::Error| HomeError::NotMade { path, kind: error.kind() }
        };
        let created = !path.exists();
        let is_installation = path.join(OSSEC_CONF).exists();
        let owner = owner(path);
        DirBuilder::new().recursive(true).mode(FOLDER_MODE).create(path).map_err(failed(path))?;
        for folder in if is_installation { FOLDERS_OF_OURS } else { FOLDERS } {
            let folder = path.join(folder);
            match DirBuilder::new().mode(FOLDER_MODE).create(&folder) {
                Ok(()) => give(&folder, owner).map_err(failed(&folder))?,
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(failed(&folder)(error)),
            }
        }
        let home = Home { path: path.canonicalize().map_err(failed(path))?, created };
        if !is_installation {
            let file = home.settings_path();
            write_new(&file, &settings::default_file(), owner).map_err(failed(&file))?;
        }
        let file = home.keys_path();
        write_new(&file, "", owner).map_err(failed(&file))?;
        Ok(home)
    }

    /// A home that must be there already, for commands that only look or add.
    ///
    /// # Errors
    /// When there is no such folder.
    pub fn existing(path: &Path) -> Result<Home, HomeError> {
        let path = path
            .canonicalize()
            .map_err(|error| HomeError::Missing { path: path.to_owned(), kind: error.kind() })?;
        Ok(Home { path, created: false })
    }

    /// The folder, absolute.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether [`Home::prepare`] made the folder.
    pub fn created(&self) -> bool {
        self.created
    }

    /// The settings.
    pub fn settings_path(&self) -> PathBuf {
        self.path.join("etc/ringmaster.toml")
    }

    /// The agents.
    pub fn keys_path(&self) -> PathBuf {
        self.path.join("etc/client.keys")
    }

    /// What the running program says about itself.
    pub fn status_path(&self) -> PathBuf {
        self.path.join("var/run/ringmaster.json")
    }

    /// Where the running program is asked and told things.
    pub fn command_path(&self) -> PathBuf {
        self.path.join("queue/ringmaster/command")
    }

    /// The lock that [`Home::lock`] takes.
    pub fn lock_path(&self) -> PathBuf {
        self.path.join("var/run/ringmaster.lock")
    }

    /// Where pid files are.
    pub fn run_folder(&self) -> PathBuf {
        self.path.join("var/run")
    }

    /// Whether another process has the home, as [`Home::lock`] would find. Makes and changes nothing.
    ///
    /// # Errors
    /// When one has it.
    pub fn is_free(&self) -> Result<(), HomeError> {
        // Root may ask before it gives up its rights: nothing that somebody has put there is waited for or followed.
        let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed();
        let Ok(file) = OpenOptions::new().read(true).custom_flags(flags).open(self.lock_path()) else {
            return Ok(());
        };
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockShared) {
            Ok(()) => Ok(()),
            Err(_) => Err(self.taken(&file)),
        }
    }

    /// Takes the home for this process, until the lock is dropped or the process ends in any way.
    ///
    /// # Errors
    /// When another process has it, or the lock can't be opened.
    pub fn lock(&self) -> Result<HomeLock, HomeError> {
        let path = self.lock_path();
        let failed = |error: io::Error| HomeError::NotMade { path: path.clone(), kind: error.kind() };
        let mut options = OpenOptions::new();
        let mut file = options
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(FILE_MODE)
            .open(&path)
            .map_err(failed)?;
        if rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
            return Err(self.taken(&file));
        }
        file.set_len(0).and_then(|()| file.rewind()).map_err(failed)?;
        writeln!(file, "{}", std::process::id()).map_err(failed)?;
        Ok(HomeLock { _file: file })
    }

    fn taken(&self, lock: &File) -> HomeError {
        const PID_BYTES_MAX: u64 = 16;
        let mut holder = String::new();
        // Without it the refusal says that the holder is unknown.
        let _ = lock.take(PID_BYTES_MAX).read_to_string(&mut holder);
        HomeError::Taken { path: self.path.clone(), holder: holder.trim().parse().ok() }
    }
}

/// The home is ours as long as this lives.
#[derive(Debug)]
pub struct HomeLock {
    _file: File,
}

/// Writes a file whole or not at all: beside its place, then renamed over it.
///
/// # Errors
/// When the kernel refuses any of the steps.
pub fn write_whole(path: &Path, text: &[u8]) -> io::Result<()> {
    let beside = path.with_extension("new");
    let mut file =
        OpenOptions::new().write(true).create(true).truncate(true).mode(FILE_MODE).open(&beside)?;
    file.write_all(text)?;
    fs::rename(&beside, path)
}

fn write_new(path: &Path, text: &str, owner: Option<Owner>) -> io::Result<()> {
    match OpenOptions::new().write(true).create_new(true).mode(FILE_MODE).open(path) {
        Ok(mut file) => {
            file.write_all(text.as_bytes())?;
            give(path, owner)
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error),
    }
}

/// User and group.
type Owner = (u32, u32);

/// To whom root gives what it makes in a home: the owner of queue/rids, who will write there, or of the home itself.
/// Anybody else keeps it.
fn owner(home: &Path) -> Option<Owner> {
    if !rustix::process::geteuid().is_root() {
        return None;
    }
    let metadata = fs::metadata(home.join("queue/rids")).or_else(|_| fs::metadata(home)).ok()?;
    Some((metadata.uid(), metadata.gid()))
}

fn give(path: &Path, owner: Option<Owner>) -> io::Result<()> {
    match owner {
        None => Ok(()),
        Some((user, group)) => lchown(path, Some(user), Some(group)),
    }
}

/// As OSSEC's: the group reads, the world does not.
pub(crate) const FILE_MODE: u32 = 0o640;
const FOLDER_MODE: u32 = 0o750;

/// Each after the one that it is in.
const FOLDERS: &[&str] = &[
    "etc",
    "etc/shared",
    "logs",
    "logs/archives",
    "queue",
    "queue/alerts",
    "queue/ossec",
    "queue/rids",
    "queue/ringmaster",
    "queue/sockets",
    "var",
    "var/run",
];

/// What an installation does not have by itself.
const FOLDERS_OF_OURS: &[&str] = &["etc", "queue", "queue/rids", "queue/ringmaster", "var", "var/run"];

/// Why a home can't be used.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum HomeError {
    /// There is none.
    Missing {
        /// Where it should be.
        path: PathBuf,
        /// What the kernel said.
        kind: io::ErrorKind,
    },
    /// A part of it can't be made.
    NotMade {
        /// Which.
        path: PathBuf,
        /// What the kernel said.
        kind: io::ErrorKind,
    },
    /// Another ringmaster runs on it.
    Taken {
        /// The home.
        path: PathBuf,
        /// The process id of the holder, if it wrote one.
        holder: Option<u32>,
    },
}

impl std::error::Error for HomeError {}

impl fmt::Display for HomeError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            HomeError::Missing { path, kind } => {
                write!(
                    formatter,
                    "home {}: {kind}; start `ringmaster` once to make it, or name another with --home",
                    path.display()
                )
            }
            HomeError::NotMade { path, kind } => {
                write!(
                    formatter,
                    "{}: {kind}; give this user the right to write there, or name another --home",
                    path.display()
                )
            }
            HomeError::Taken { path, holder } => {
                let holder = holder.map_or_else(|| "unknown".to_owned(), |pid| pid.to_string());
                write!(
                    formatter,
                    "home {} is in use by another ringmaster (pid {holder}): stop it, or name another home with --home",
                    path.display()
                )
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_home_is_complete_and_an_old_one_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("home");
        let home = Home::prepare(&path).unwrap();
        assert!(home.created());
        assert_eq!(fs::read_to_string(home.settings_path()).unwrap(), settings::default_file());
        assert_eq!(fs::read_to_string(home.keys_path()).unwrap(), "");
        assert!(FOLDERS.iter().all(|folder| home.path().join(folder).is_dir()));

        fs::write(home.settings_path(), "[stop]\ngrace_seconds = 1\n").unwrap();
        fs::write(home.keys_path(), "001 a any k\n").unwrap();
        let again = Home::prepare(&path).unwrap();
        assert!(!again.created());
        assert_eq!(fs::read_to_string(home.settings_path()).unwrap(), "[stop]\ngrace_seconds = 1\n");
        assert_eq!(fs::read_to_string(home.keys_path()).unwrap(), "001 a any k\n");
    }

    #[test]
    fn an_installation_gets_no_litter() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir_all(folder.path().join("etc")).unwrap();
        fs::write(folder.path().join(OSSEC_CONF), "<ossec_config></ossec_config>").unwrap();
        let home = Home::prepare(folder.path()).unwrap();
        assert!(!home.settings_path().exists() && home.keys_path().exists());
        let mut made: Vec<String> = ["", "queue", "var"]
            .into_iter()
            .flat_map(|part| fs::read_dir(home.path().join(part)).unwrap())
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        made.sort_unstable();
        assert_eq!(made, ["etc", "queue", "rids", "ringmaster", "run", "var"]);
    }

    #[test]
    fn a_home_is_taken_once_and_the_second_is_told_by_whom() {
        let folder = tempfile::tempdir().unwrap();
        let home = Home::prepare(folder.path()).unwrap();
        let lock = home.lock().unwrap();
        let taken = HomeError::Taken { path: home.path().to_owned(), holder: Some(std::process::id()) };
        assert_eq!(home.is_free(), Err(taken.clone()));
        assert_eq!(home.lock().unwrap_err(), taken);
        drop(lock);
        assert_eq!(home.is_free(), Ok(()));
        drop(home.lock().unwrap());
    }

    #[test]
    fn a_missing_home_names_the_cure() {
        let error = Home::existing(Path::new("/nowhere/at/all")).unwrap_err().to_string();
        assert!(error.starts_with("home /nowhere/at/all: ") && error.contains("--home"), "{error}");
    }
}
