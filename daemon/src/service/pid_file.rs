//! How scripts find the program: `var/run/<program>-<pid>.pid`, as OSSEC's own programs leave it.
//!
//! Source: ossec-hids `shared/file_op.c` CreatePID, `init/ossec-server.sh` pstatus. The latter believes such a file only if
//! `ps -p` shows a name with "ossec" in it; so the file is named after what the program was called as, and
//! `bin/ossec-remoted` may be a link to ringmaster.

use std::{
    fmt, fs,
    fs::OpenOptions,
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use crate::home::FILE_MODE;

/// The file, for as long as this lives.
#[derive(Debug)]
pub struct PidFile {
    path: PathBuf,
}

impl PidFile {
    /// Writes the file of this process, and removes those that earlier runs of `program` were killed with.
    /// Nobody else runs as `program` here: the caller has the home's lock.
    ///
    /// # Errors
    /// When the folder can't be written.
    pub fn create(folder: &Path, program: &str) -> io::Result<PidFile> {
        for (path, _) in pid_files(folder, program) {
            // Whoever may write the folder may have removed it meanwhile.
            let _ = fs::remove_file(path);
        }
        let pid = std::process::id();
        let path = folder.join(format!("{program}-{pid}.pid"));
        let mut file = OpenOptions::new().write(true).create_new(true).mode(FILE_MODE).open(&path)?;
        writeln!(file, "{pid}")?;
        Ok(PidFile { path })
    }
}

impl Drop for PidFile {
    fn drop(&mut self) {
        // ossec-control removes it too, before the program has ended.
        let _ = fs::remove_file(&self.path);
    }
}

/// A C manager at work.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Remoted {
    /// What it is called.
    pub program: &'static str,
    /// Its process.
    pub pid: u32,
}

/// The C manager that runs on this installation, if one does: its pid file, and a process of that name.
pub fn running_remoted(folder: &Path) -> Option<Remoted> {
    for program in REMOTEDS {
        for (_, pid) in pid_files(folder, program) {
            let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
            let is_it = name.trim_end() == program && pid != std::process::id();
            if is_it && !is_ringmaster(pid) {
                return Some(Remoted { program, pid });
            }
        }
    }
    None
}

/// The C programs whose place ringmaster takes, and whose name it may be called by.
pub(super) const REMOTEDS: [&str; 2] = ["ossec-remoted", "wazuh-remoted"];

/// Whether a process of another name is this program, called by a link. Its home's lock is what it meets then.
fn is_ringmaster(pid: u32) -> bool {
    let same = |path: &str| fs::read_link(path).ok();
    let own = same("/proc/self/exe");
    own.is_some() && own == same(&format!("/proc/{pid}/exe"))
}

/// `<program>-<number>.pid` of a folder, with the number.
fn pid_files(folder: &Path, program: &str) -> Vec<(PathBuf, u32)> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let numbered = entries.filter_map(|entry| {
        let name = entry.file_name();
        let number = name.to_str()?.strip_prefix(program)?.strip_prefix('-')?.strip_suffix(".pid")?;
        Some((entry.path(), number.parse().ok()?))
    });
    numbered.collect()
}

impl fmt::Display for Remoted {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "{} (pid {}) runs on this home: stop it, and keep it from being started again (docs/OPERATIONS.md)",
            self.program, self.pid
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_lives_as_long_as_its_owner_and_earlier_ones_go() {
        let folder = tempfile::tempdir().unwrap();
        let there = || {
            let mut names: Vec<_> =
                fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
            names.sort();
            names
        };
        for name in ["ringmaster-1.pid", "ossec-remoted-2.pid", "ringmaster-x.pid", "ringmaster.json"] {
            fs::write(folder.path().join(name), "").unwrap();
        }
        let pid = std::process::id();
        let file = PidFile::create(folder.path(), "ringmaster").unwrap();
        let own = format!("ringmaster-{pid}.pid");
        assert_eq!(fs::read_to_string(folder.path().join(&own)).unwrap(), format!("{pid}\n"));
        let mut expected = vec!["ossec-remoted-2.pid", own.as_str(), "ringmaster-x.pid", "ringmaster.json"];
        expected.sort_unstable();
        assert_eq!(there(), expected);
        drop(file);
        assert_eq!(there(), ["ossec-remoted-2.pid", "ringmaster-x.pid", "ringmaster.json"]);
    }

    #[test]
    fn a_pid_file_alone_is_no_remoted() {
        let folder = tempfile::tempdir().unwrap();
        let write = |pid: u32| fs::write(folder.path().join(format!("ossec-remoted-{pid}.pid")), "").unwrap();
        assert_eq!(running_remoted(folder.path()), None);
        // A number that somebody else has by now, and one that nobody has.
        write(std::process::id());
        write(1);
        write(4_194_305);
        assert_eq!(running_remoted(folder.path()), None);
    }
}
