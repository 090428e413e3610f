//! The shared files of an installation, read from its folders: which merged.mg is for which agent. Blocking; to be called off the
//! control plane's thread.
//!
//! ```text
//! etc/shared/*                OSSEC: one merged.mg for all agents
//! etc/shared/<group>/*        Wazuh: one for each group
//! queue/agent-groups/<id>     the groups of an agent, with commas between; without that file: default
//! ```

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use codec::AgentId;
use sha2::{Digest, Sha256};

use super::merged::{MERGED_NAME, Part, SharedFile, combine, group_name_is_valid, wazuh_shares};
use crate::settings::Product;

/// Groups that are read, and combinations of them that agents have.
const GROUPS_MAX: usize = 4_096;

/// Bytes of all merged.mg together.
const ALL_BYTES_MAX: usize = 256 << 20;

/// How deep a group's folders are followed.
const DEPTH_MAX: usize = 8;

/// Files of one group.
const FILES_MAX: usize = 10_000;

/// The group of an agent that has none.
const DEFAULT_GROUP: &str = "default";

/// What there is to share, and with whom. Never changes; a new one takes its place.
#[derive(Debug, Default)]
pub(crate) struct SharedFiles {
    by_group: bool,
    for_all: Option<SharedFile>,
    groups: HashMap<Box<str>, SharedFile>,
    group_of: HashMap<AgentId, Box<str>>,
}

impl SharedFiles {
    /// The file for an agent, if there is one. Where OSSEC's programs are, an agent of Wazuh's gets its group's, if that has a
    /// folder, and else what all get.
    pub(crate) fn file_for(&self, agent: AgentId, is_wazuh: bool) -> Option<&SharedFile> {
        let of_group = || self.groups.get(self.group(agent));
        match (self.by_group, is_wazuh) {
            (true, true | false) => of_group(),
            (false, true) => of_group().or(self.for_all.as_ref()),
            (false, false) => self.for_all.as_ref(),
        }
    }

    /// The groups of an agent, as they are written.
    pub(crate) fn group(&self, agent: AgentId) -> &str {
        self.group_of.get(&agent).map_or(DEFAULT_GROUP, |group| group)
    }

    /// How many merged.mg there are, and their bytes.
    pub(crate) fn sums(&self) -> (u64, u64) {
        let files = self.groups.values().chain(&self.for_all);
        files.fold((0, 0), |(count, bytes), file| (count + 1, bytes + file.content().len() as u64))
    }
}

/// Looks into the folders.
#[derive(Debug)]
pub(crate) struct SharedFolders {
    home: PathBuf,
    product: Product,
    seen: Option<Seen>,
    /// What was said about problems last, so that each is said once.
    said: BTreeSet<String>,
}

/// What one look brought.
#[derive(Debug, Default)]
pub(crate) struct Look {
    /// What there is now, if it is something else than before.
    pub(crate) files: Option<Arc<SharedFiles>>,
    /// What the operator should know, and was not told before.
    pub(crate) problems: Vec<String>,
    /// All folders that were looked into: what to watch.
    pub(crate) folders: Vec<PathBuf>,
    /// A file changed while it was read: look again soon.
    pub(crate) torn: bool,
}

/// Length, time of change and inode of everything that is read: while they stay, nothing is read again.
#[derive(Debug, Default, Eq, PartialEq)]
struct Seen(BTreeMap<PathBuf, (u64, i64, i64, u64)>);

impl Seen {
    fn note(&mut self, path: &Path, metadata: &Metadata) {
        let signature = (metadata.size(), metadata.mtime(), metadata.mtime_nsec(), metadata.ino());
        self.0.insert(path.to_owned(), signature);
    }
}

/// A file that is to be read.
#[derive(Debug)]
struct Found {
    path: PathBuf,
    name: Vec<u8>,
}

/// All that is to be read.
#[derive(Debug, Default)]
struct Listing {
    seen: Seen,
    folders: Vec<PathBuf>,
    for_all: Vec<Found>,
    groups: BTreeMap<String, Vec<Found>>,
    agents: Vec<(AgentId, PathBuf)>,
}

impl SharedFolders {
    /// The folders of this home.
    pub(crate) fn new(home: PathBuf, product: Product) -> SharedFolders {
        SharedFolders { home, product, seen: None, said: BTreeSet::new() }
    }

    /// Looks, and reads if something changed.
    pub(crate) fn look(&mut self) -> Look {
        let mut problems = Vec::new();
        let mut listing = self.list(&mut problems);
        let mut look = Look { folders: std::mem::take(&mut listing.folders), ..Look::default() };
        if self.seen.as_ref() != Some(&listing.seen) {
            let mut reading = Reading { problems: &mut problems, torn: false, bytes: 0 };
            let files = self.read(&listing, &mut reading);
            look.torn = reading.torn;
            // What was torn is read again whatever it looks like.
            self.seen = (!reading.torn).then_some(listing.seen);
            self.write(&files, &mut problems);
            look.files = Some(Arc::new(files));
            self.said.retain(|said| problems.contains(said));
        }
        look.problems = problems.into_iter().filter(|problem| self.said.insert(problem.clone())).collect();
        look
    }

    fn list(&self, problems: &mut Vec<String>) -> Listing {
        let mut listing = Listing::default();
        let shared = self.home.join("etc/shared");
        let Ok(entries) = fs::read_dir(&shared) else { return listing };
        listing.folders.push(shared);
        for entry in entries.flatten() {
            let (path, name) = (entry.path(), entry.file_name().into_vec());
            let Ok(metadata) = fs::metadata(&path) else { continue };
            if metadata.is_dir() {
                let Ok(group) = String::from_utf8(name) else { continue };
                if !group_name_is_valid(&group) || listing.groups.len() >= GROUPS_MAX {
                    problems.push(format!(
                        "{}: not shared: no name of a group, or too many groups",
                        path.display()
                    ));
                    continue;
                }
                let mut found = Vec::new();
                list_group(&path, &[], 0, &mut found, &mut listing.seen, &mut listing.folders);
                listing.groups.insert(group, found);
            } else if metadata.is_file()
                && name != MERGED_NAME.as_bytes()
                && listing.for_all.len() < FILES_MAX
            {
                listing.seen.note(&path, &metadata);
                listing.for_all.push(Found { path, name });
            }
        }
        let groups = self.home.join("queue/agent-groups");
        let Ok(entries) = fs::read_dir(&groups) else { return listing };
        listing.folders.push(groups);
        for entry in entries.flatten() {
            let (path, name) = (entry.path(), entry.file_name());
            let (Ok(metadata), Ok(agent)) = (fs::metadata(&path), AgentId::from_bytes(name.as_bytes()))
            else {
                continue;
            };
            if metadata.is_file() {
                listing.seen.note(&path, &metadata);
                listing.agents.push((agent, path));
            }
        }
        listing
    }

    fn read(&self, listing: &Listing, reading: &mut Reading<'_>) -> SharedFiles {
        let mut files = SharedFiles { by_group: self.product == Product::Wazuh, ..SharedFiles::default() };
        for (agent, path) in &listing.agents {
            if let Some(groups) = reading.group_of(path) {
                files.group_of.insert(*agent, groups);
            }
        }
        match self.product {
            Product::Ossec => {
                let parts: Vec<Part> =
                    listing.for_all.iter().filter_map(|found| reading.part(found)).collect();
                if !parts.is_empty() {
                    files.for_all = reading.merge("etc/shared", None, &parts);
                }
            }
            Product::Wazuh => {}
        }
        // It is made by analysisd, and each group gets it first.
        let ar_conf = listing.for_all.iter().find(|found| found.name == b"ar.conf");
        let ar_conf = ar_conf.and_then(|found| reading.part(found));
        let parts_of: BTreeMap<&str, Vec<Part>> = listing
            .groups
            .iter()
            .map(|(group, found)| (group.as_str(), reading.group_parts(found)))
            .collect();
        for (group, parts) in &parts_of {
            let parts: Vec<Part> = ar_conf.iter().chain(parts).cloned().collect();
            if let Some(file) = reading.merge(&format!("etc/shared/{group}"), Some(group), &parts) {
                files.groups.insert((*group).into(), file);
            }
        }
        let several: BTreeSet<&str> =
            files.group_of.values().map(|groups| &**groups).filter(|groups| groups.contains(',')).collect();
        let mut combined = Vec::new();
        for groups in several.into_iter().take(GROUPS_MAX) {
            let of_each: Vec<(&str, &[Part])> = groups
                .split(',')
                .map(|group| (group, parts_of.get(group).map_or(&[][..], |parts| parts)))
                .collect();
            let parts: Vec<Part> = ar_conf.iter().cloned().chain(combine(&of_each)).collect();
            let name = folder_of_several(groups);
            combined.extend(reading.merge(groups, Some(&name), &parts).map(|file| (Box::from(groups), file)));
        }
        files.groups.extend(combined);
        files
    }

    /// Leaves each merged.mg where the C programs leave theirs, for the tools that look there. Agents get them all the same if
    /// that fails.
    fn write(&self, files: &SharedFiles, problems: &mut Vec<String>) {
        let shared = self.home.join("etc/shared");
        let single = files.groups.iter().filter(|(group, _)| !group.contains(','));
        let of_groups = single.map(|(group, file)| (shared.join(&**group), file));
        for (folder, file) in files.for_all.iter().map(|file| (shared.clone(), file)).chain(of_groups) {
            let path = folder.join(MERGED_NAME);
            if fs::read(&path).is_ok_and(|content| content == file.content()[..]) {
                continue;
            }
            if let Err(error) = self.write_one(&path, file) {
                problems.push(format!("{}: not written, and shared all the same: {error}", path.display()));
            }
        }
    }

    /// Beside its place on the way, outside of the folder: what is in there is shared.
    fn write_one(&self, path: &Path, file: &SharedFile) -> io::Result<()> {
        let beside = self.home.join("queue/ringmaster/merged.mg.new");
        let mut options = fs::OpenOptions::new();
        let mut new = options.write(true).create(true).truncate(true).mode(0o660).open(&beside)?;
        io::Write::write_all(&mut new, file.content())?;
        fs::rename(&beside, path)
    }
}

/// The name that Wazuh gives the files of several groups: the beginning of their SHA-256.
///
/// Source: wazuh v4.14.7 `remoted/manager.c`, `send_file_toagent`.
fn folder_of_several(groups: &str) -> String {
    let digest: [u8; 32] = Sha256::digest(groups.as_bytes()).into();
    digest[..4].iter().map(|byte| format!("{byte:02x}")).collect()
}

fn list_group(
    folder: &Path,
    above: &[u8],
    depth: usize,
    found: &mut Vec<Found>,
    seen: &mut Seen,
    folders: &mut Vec<PathBuf>,
) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    folders.push(folder.to_owned());
    let mut names: Vec<Vec<u8>> = entries.flatten().map(|entry| entry.file_name().into_vec()).collect();
    names.sort_unstable();
    for name in names {
        if name.starts_with(b".") || name.starts_with(MERGED_NAME.as_bytes()) || found.len() >= FILES_MAX {
            continue;
        }
        let path = folder.join(std::ffi::OsStr::from_bytes(&name));
        let Ok(metadata) = fs::metadata(&path) else { continue };
        let name = [above, &name].concat();
        if metadata.is_file() {
            seen.note(&path, &metadata);
            found.push(Found { path, name });
        } else if metadata.is_dir() && depth < DEPTH_MAX {
            list_group(&path, &[&name, &b"/"[..]].concat(), depth + 1, found, seen, folders);
        }
    }
    // An empty folder counts, too: its group has a file of its own.
    if let Ok(metadata) = fs::metadata(folder) {
        seen.0.insert(folder.to_owned(), (0, 0, 0, metadata.ino()));
    }
}

/// Reads files within bounds.
struct Reading<'a> {
    problems: &'a mut Vec<String>,
    torn: bool,
    bytes: usize,
}

impl Reading<'_> {
    fn part(&mut self, found: &Found) -> Option<Part> {
        let content = self.file(&found.path, super::merged::MERGED_BYTES_MAX)?;
        if content.contains(&0) {
            self.problems.push(format!(
                "{}: has zero bytes, at which agents of OSSEC and Wazuh cut: they will not take merged.mg with it",
                found.path.display()
            ));
        }
        Some(Part { name: found.name.clone(), content })
    }

    fn group_parts(&mut self, found: &[Found]) -> Vec<Part> {
        let mut parts = Vec::new();
        for found in found {
            let Some(content) = self.file(&found.path, super::merged::MERGED_BYTES_MAX) else { continue };
            if wazuh_shares(&content) {
                parts.push(Part { name: found.name.clone(), content });
            } else {
                self.problems.push(format!("{}: not shared: a line has zero bytes", found.path.display()));
            }
        }
        parts
    }

    fn group_of(&mut self, path: &Path) -> Option<Box<str>> {
        let content = self.file(path, 64 * 1024)?;
        let text = std::str::from_utf8(&content).ok()?.lines().next()?.trim();
        let valid = !text.is_empty() && text.split(',').all(group_name_is_valid);
        if !valid {
            self.problems
                .push(format!("{}: no names of groups: want them with commas between", path.display()));
        }
        valid.then(|| text.into())
    }

    fn file(&mut self, path: &Path, bytes_max: usize) -> Option<Vec<u8>> {
        let read = || -> io::Result<(Metadata, Vec<u8>, Metadata)> {
            let before = fs::metadata(path)?;
            if before.len() > bytes_max as u64 {
                return Err(io::Error::other(format!("more than {bytes_max} bytes")));
            }
            let content = fs::read(path)?;
            Ok((before, content, fs::metadata(path)?))
        };
        match read() {
            Ok((before, content, after)) => {
                let same = |of: fn(&Metadata) -> i128| of(&before) == of(&after);
                let whole = same(|metadata| metadata.mtime().into())
                    && same(|metadata| metadata.mtime_nsec().into())
                    && content.len() as u64 == after.len();
                self.torn |= !whole;
                Some(content)
            }
            Err(error) => {
                self.problems.push(format!("{}: not shared: {error}", path.display()));
                None
            }
        }
    }

    fn merge(&mut self, what: &str, group: Option<&str>, parts: &[Part]) -> Option<SharedFile> {
        match SharedFile::merge(group, parts) {
            Ok(file) if self.bytes + file.content().len() <= ALL_BYTES_MAX => {
                self.bytes += file.content().len();
                Some(file)
            }
            Ok(_) => {
                let bytes = ALL_BYTES_MAX;
                self.problems
                    .push(format!("{what}: not shared: all groups' files are more than {bytes} bytes"));
                None
            }
            Err(error) => {
                self.problems.push(format!("{what}: not shared: {error}"));
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn home(files: &[(&str, &[u8])]) -> tempfile::TempDir {
        let home = tempfile::tempdir().unwrap();
        fs::create_dir_all(home.path().join("queue/ringmaster")).unwrap();
        fs::create_dir_all(home.path().join("etc/shared")).unwrap();
        files.iter().for_each(|(path, content)| put(&home, path, content));
        home
    }

    fn put(home: &tempfile::TempDir, path: &str, content: &[u8]) {
        let path = home.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    fn id(text: &str) -> AgentId {
        text.parse().unwrap()
    }

    fn content(files: &SharedFiles, agent: &str, is_wazuh: bool) -> String {
        let file = files.file_for(id(agent), is_wazuh);
        file.map_or_else(String::new, |file| String::from_utf8(file.content().to_vec()).unwrap())
    }

    #[test]
    fn ossecs_files_are_for_all_and_are_read_when_they_change() {
        let home = home(&[("etc/shared/agent.conf", b"<a>\n"), ("etc/shared/merged.mg", b"old")]);
        let mut folders = SharedFolders::new(home.path().to_owned(), Product::Ossec);
        let look = folders.look();
        assert_eq!((look.problems, look.torn), (vec![], false));
        let files = look.files.unwrap();
        assert_eq!(content(&files, "001", false), "!4 agent.conf\n<a>\n");
        assert_eq!(content(&files, "002", true), "!4 agent.conf\n<a>\n", "no group has a folder");
        assert_eq!(fs::read(home.path().join("etc/shared/merged.mg")).unwrap(), b"!4 agent.conf\n<a>\n");
        assert!(folders.look().files.is_none(), "nothing changed");
        put(&home, "etc/shared/default/agent.conf", b"<wazuh>\n");
        let files = folders.look().files.unwrap();
        assert_eq!(content(&files, "001", false), "!4 agent.conf\n<a>\n");
        assert_eq!(content(&files, "002", true), "#default\n!8 agent.conf\n<wazuh>\n");
        fs::remove_file(home.path().join("etc/shared/agent.conf")).unwrap();
        assert_eq!(content(&folders.look().files.unwrap(), "001", false), "", "nothing is shared");
    }

    #[test]
    fn wazuhs_groups_and_agents_of_several() {
        let home = home(&[
            ("etc/shared/ar.conf", b"r\n"),
            ("etc/shared/default/agent.conf", b"d\n"),
            ("etc/shared/web/agent.conf", b"w\n"),
            ("etc/shared/web/sub/b.txt", b"b"),
            ("etc/shared/web/.hidden", b"h"),
            ("etc/shared/web/merged.mg.tmp", b"m"),
            ("etc/shared/web/binary", b"a\0\n"),
            ("queue/agent-groups/001", b"web\n"),
            ("queue/agent-groups/002", b"default,web"),
            ("queue/agent-groups/003", b"../../etc"),
            ("queue/agent-groups/004", b"gone"),
        ]);
        let mut folders = SharedFolders::new(home.path().to_owned(), Product::Wazuh);
        let look = folders.look();
        assert_eq!(look.problems.len(), 2, "the binary file, and the group of 003: {:?}", look.problems);
        let files = look.files.unwrap();
        let of_web = "!2 ar.conf\nr\n!2 agent.conf\nw\n!1 sub/b.txt\nb";
        assert_eq!(content(&files, "001", true), format!("#web\n{of_web}"));
        assert_eq!(content(&files, "009", false), "#default\n!2 ar.conf\nr\n!2 agent.conf\nd\n");
        assert_eq!(content(&files, "003", true), content(&files, "009", true));
        assert_eq!(content(&files, "004", true), "", "its group has no folder");
        // The first eight digits are those of `printf default,web | sha256sum`.
        let conf = "<!-- Source file: default/agent.conf -->\nd\n<!-- Source file: web/agent.conf -->\nw\n";
        let several = format!("#5288d400\n!2 ar.conf\nr\n!{} agent.conf\n{conf}!1 sub/b.txt\nb", conf.len());
        assert_eq!(content(&files, "002", true), several);
        assert!(folders.look().problems.is_empty(), "each is said once");
        assert_eq!(files.sums().0, 3);
        assert!(fs::read(home.path().join("etc/shared/web/merged.mg")).unwrap().starts_with(b"#web\n"));
    }

    #[test]
    fn without_folders_nothing_is_shared() {
        let folder = tempfile::tempdir().unwrap();
        let look = SharedFolders::new(folder.path().to_owned(), Product::Ossec).look();
        assert!(look.problems.is_empty() && look.folders.is_empty());
        assert_eq!(look.files.unwrap().sums(), (0, 0));
    }
}
