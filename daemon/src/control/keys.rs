//! client.keys: seen as soon as it changes, read without waiting, and only when it says something new.
//!
//! A file that is replaced is whole. One that is written in place may be read in the middle of it: its agents that are
//! not there yet would be shut out. So what only grew by whole lines counts at once, as manage_agents and `keys add`
//! write it, and any other change in place once the file has been left alone for a moment.

use std::{
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::Duration,
};

use codec::{KeyFile, KeyProblem};
use futures_util::StreamExt;
use inotify::{EventStream, Inotify, WatchMask};
use tokio::time::{Instant, sleep_until};
use tracing::{error, warn};

/// Writers that add line after line are read together.
const GATHER: Duration = Duration::from_millis(50);

/// So long must a file have been left alone that was changed in place otherwise than by appending.
const SETTLE: Duration = Duration::from_millis(250);

/// A file that is never left alone counts after this time all the same.
const SETTLE_MAX: Duration = Duration::from_secs(2);

/// How many problems one reading may say; the rest is a number.
const PROBLEMS_SAID_MAX: usize = 20;

/// The file, what it said last, and how it is watched.
pub struct KeySource {
    path: PathBuf,
    /// `None` where the kernel has no inotify left; the look each second is enough then.
    events: Option<EventStream<[u8; 4_096]>>,
    /// When the file is to be read, if something was seen.
    due: Option<Instant>,
    /// What of the file counts now.
    signature: Option<Signature>,
    content: Vec<u8>,
    /// A change in place that does not count yet.
    unsettled: Option<Unsettled>,
    away: bool,
    /// What was said last of the file's problems: the first of them, and how many there were.
    said: (Vec<KeyProblem>, usize),
}

impl std::fmt::Debug for KeySource {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Neither the content, which is secret, nor the stream, which says nothing.
        formatter.debug_struct("KeySource").field("path", &self.path).finish_non_exhaustive()
    }
}

/// What changes when a file is written or replaced.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Signature {
    device: u64,
    inode: u64,
    length: u64,
    changed_nanoseconds: i128,
}

/// A file that somebody may still be writing.
#[derive(Clone, Copy, Debug)]
struct Unsettled {
    signature: Option<Signature>,
    /// When it was first seen like this.
    since: Instant,
    /// When it was first seen to be unsettled at all.
    first: Instant,
}

impl KeySource {
    /// Reads the file for the first time. The watch begins with [`KeySource::watch`].
    ///
    /// # Errors
    /// When it can't be read.
    pub fn open(path: &Path) -> io::Result<(KeySource, KeyFile)> {
        let signature = signature(path);
        let content = fs::read(path)?;
        let file = KeyFile::parse(&content);
        let source = KeySource {
            path: path.to_owned(),
            events: None,
            due: None,
            signature,
            content,
            unsettled: None,
            away: false,
            said: (Vec::new(), 0),
        };
        Ok((source, file))
    }

    /// Says what is skipped of the file, and why, unless that is what was said last: a script that adds agents writes the file
    /// over and over.
    pub fn say_problems(&mut self, problems: &[KeyProblem]) {
        let first = &problems[..problems.len().min(PROBLEMS_SAID_MAX)];
        if (self.said.0.as_slice(), self.said.1) == (first, problems.len()) {
            return;
        }
        self.said = (first.to_vec(), problems.len());
        for problem in first {
            warn!("{}:{}: {}", self.path.display(), problem.line, problem.kind);
        }
        if problems.len() > PROBLEMS_SAID_MAX {
            warn!("{}: {} more such lines", self.path.display(), problems.len() - PROBLEMS_SAID_MAX);
        }
    }

    /// Asks the kernel to tell of changes. To be called inside the runtime.
    pub fn watch(&mut self) {
        let folder = self.path.parent().unwrap_or(Path::new("."));
        // The folder, because the file may be replaced; and the ends of writing, because a write may be in parts.
        let mask = WatchMask::CLOSE_WRITE | WatchMask::MOVED_TO | WatchMask::MODIFY;
        let stream = Inotify::init().and_then(|inotify| {
            inotify.watches().add(folder, mask)?;
            inotify.into_event_stream([0; 4_096])
        });
        match stream {
            Ok(stream) => self.events = Some(stream),
            Err(error) => warn!(
                "no inotify ({error}): client.keys is looked at each second; raise fs.inotify.max_user_instances"
            ),
        }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Completes when the file is to be read. Can be dropped at any time, and loses nothing.
    pub async fn event(&mut self) {
        loop {
            if let Some(due) = self.due {
                sleep_until(due).await;
                self.due = None;
                return;
            }
            let Some(events) = &mut self.events else { return std::future::pending().await };
            match events.next().await {
                Some(Ok(event)) if event.name.as_deref() == self.path.file_name() => {
                    self.due = Some(Instant::now() + GATHER);
                }
                Some(Ok(_)) => {}
                Some(Err(_)) | None => {
                    self.events = None;
                    return;
                }
            }
        }
    }

    /// Whether the file looks different from what was read last.
    pub fn looks_changed(&mut self) -> bool {
        signature(&self.path) != self.signature
    }

    /// The file, if it says something else than it did and nobody seems to be writing it. One that is away or can't be
    /// read changes nothing.
    pub async fn read_changed(&mut self) -> Option<KeyFile> {
        let signature = signature(&self.path);
        match read(&self.path).await {
            Ok(content) => {
                self.away = false;
                if !self.settled(Instant::now(), signature, self::signature(&self.path), &content) {
                    return None;
                }
                self.signature = signature;
                if content == self.content {
                    return None;
                }
                self.content = content;
                Some(KeyFile::parse(&self.content))
            }
            Err(error) => {
                if !std::mem::replace(&mut self.away, true) {
                    error!(
                        "{}: {error}; the agents stay as they were until it can be read",
                        self.path.display()
                    );
                }
                None
            }
        }
    }

    /// Whether what was read counts, of a file that looked so before and after it was read. If not, it is due again.
    fn settled(
        &mut self,
        now: Instant,
        before: Option<Signature>,
        after: Option<Signature>,
        content: &[u8],
    ) -> bool {
        if before == after && counts_at_once(self.signature, after, &self.content, content) {
            self.unsettled = None;
            return true;
        }
        let seen = match self.unsettled {
            Some(seen) if seen.signature == after && before == after => seen,
            Some(seen) => Unsettled { signature: after, since: now, first: seen.first },
            None => Unsettled { signature: after, since: now, first: now },
        };
        self.unsettled = Some(seen);
        if now >= seen.since + SETTLE || now >= seen.first + SETTLE_MAX {
            self.unsettled = None;
            return true;
        }
        self.due = Some(seen.since + SETTLE);
        false
    }
}

/// Whether a file that was not written while it was read can be no part of a whole one.
fn counts_at_once(
    before: Option<Signature>,
    after: Option<Signature>,
    content_before: &[u8],
    content: &[u8],
) -> bool {
    let place = |signature: Option<Signature>| signature.map(|signature| (signature.device, signature.inode));
    let ends_whole = content.last().is_none_or(|last| *last == b'\n');
    let replaced = place(before) != place(after);
    content == content_before
        || (replaced && !content.is_empty())
        || (ends_whole && grew(content_before, content))
}

/// Whether lines were added, and nothing else.
fn grew(before: &[u8], content: &[u8]) -> bool {
    let ended_whole = before.last().is_none_or(|last| *last == b'\n');
    content.starts_with(before) && (ended_whole || content.get(before.len()) == Some(&b'\n'))
}

fn signature(path: &Path) -> Option<Signature> {
    let metadata = fs::metadata(path).ok()?;
    Some(Signature {
        device: metadata.dev(),
        inode: metadata.ino(),
        length: metadata.size(),
        changed_nanoseconds: i128::from(metadata.ctime()) * 1_000_000_000 + i128::from(metadata.ctime_nsec()),
    })
}

async fn read(path: &Path) -> io::Result<Vec<u8>> {
    let file = tokio_uring::fs::File::open(path).await?;
    let mut content = Vec::new();
    let mut block = vec![0; READ_BYTES];
    let outcome = loop {
        let (read, returned) = file.read_at(block, content.len() as u64).await;
        block = returned;
        match read {
            Ok(0) => break Ok(content),
            Ok(bytes) => content.extend_from_slice(&block[..bytes]),
            Err(error) => break Err(error),
        }
    };
    file.close().await?;
    outcome
}

const READ_BYTES: usize = 256 * 1_024;

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn a_change_is_seen_in_place_and_by_rename_and_the_same_again_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("client.keys");
        fs::write(&path, "001 a any k\n").unwrap();
        let (mut source, first) = KeySource::open(&path).unwrap();
        assert_eq!(first.entries.len(), 1);
        tokio_uring::start(async {
            source.watch();
            assert!(!source.looks_changed());
            assert!(source.read_changed().await.is_none());

            fs::write(&path, "001 a any k\n002 b any k\n").unwrap();
            source.event().await;
            assert_eq!(source.read_changed().await.map(|file| file.entries.len()), Some(2));

            let beside = folder.path().join("beside");
            fs::write(&beside, "003 c any k\n").unwrap();
            fs::rename(&beside, &path).unwrap();
            source.event().await;
            assert!(source.looks_changed());
            assert_eq!(source.read_changed().await.map(|file| file.entries.len()), Some(1));
            assert!(!source.looks_changed());

            fs::remove_file(&path).unwrap();
            assert!(source.looks_changed());
            assert!(source.read_changed().await.is_none(), "a file that is away changes nothing");
        });
    }

    #[test]
    fn a_torn_write_shuts_nobody_out() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("client.keys");
        let whole = "001 a any k\n002 b any k\n003 c any k\n";
        fs::write(&path, whole).unwrap();
        let (mut source, _) = KeySource::open(&path).unwrap();
        let (start, at_first) = (Instant::now(), source.signature.unwrap());
        let looks = |length: usize| Some(Signature { length: length as u64, ..at_first });
        // As an editor that empties the file, and writes it in parts.
        for (milliseconds, length, counts) in [
            (0, 0, false),
            (100, 12, false),
            (300, 19, false),
            (500, 19, false),
            (549, 19, false),
            (550, 19, true),
        ] {
            let now = start + Duration::from_millis(milliseconds);
            let content = &whole.as_bytes()[..length];
            let settled = source.settled(now, looks(length), looks(length), content);
            assert_eq!(settled, counts, "{milliseconds} ms");
            let due = source.due.take().map(|due| due.duration_since(start).as_millis() as u64);
            assert_eq!(due.is_some(), !counts, "what does not count yet is due again: {due:?}");
        }
        let later = start + Duration::from_secs(10);
        assert!(!source.settled(later, looks(1), looks(2), whole.as_bytes()), "written while it was read");
        assert!(source.settled(later, looks(2), looks(2), whole.as_bytes()), "it says what it said");
        for step in 0..20 {
            let now = later + Duration::from_millis(100 * step);
            assert!(!source.settled(now, looks(0), looks(step as usize), b""), "never left alone: {step}");
        }
        assert!(source.settled(later + SETTLE_MAX, looks(0), looks(50), b""), "but not for ever");
    }

    #[test]
    fn lines_that_are_gone_in_place_are_gone_when_nobody_writes_any_more() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("client.keys");
        fs::write(&path, "001 a any k\n002 b any k\n").unwrap();
        let (mut source, _) = KeySource::open(&path).unwrap();
        tokio_uring::start(async {
            source.watch();
            fs::write(&path, "001 a any k\n").unwrap();
            let entries = loop {
                source.event().await;
                if let Some(file) = source.read_changed().await {
                    break file.entries.len();
                }
            };
            assert_eq!(entries, 1);
        });
    }

    #[test]
    fn an_event_is_not_lost_with_whoever_waited_for_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("client.keys");
        fs::write(&path, "001 a any k\n").unwrap();
        let (mut source, _) = KeySource::open(&path).unwrap();
        tokio_uring::start(async {
            source.watch();
            let mut keys = fs::OpenOptions::new().append(true).open(&path).unwrap();
            keys.write_all(b"002 b any k\n").unwrap();
            let mut came = false;
            while !came && source.due.is_none() {
                tokio::select! {
                    biased;
                    () = source.event() => came = true,
                    () = tokio::task::yield_now() => {}
                }
            }
            if !came {
                source.event().await;
            }
            assert_eq!(source.read_changed().await.map(|file| file.entries.len()), Some(2));
        });
    }

    #[test]
    fn what_counts_at_once() {
        let here = Some(Signature { device: 1, inode: 1, length: 1, changed_nanoseconds: 1 });
        let there = Some(Signature { device: 1, inode: 2, length: 1, changed_nanoseconds: 1 });
        let check = |after, before: &str, content: &str, expected| {
            let counts = counts_at_once(here, after, before.as_bytes(), content.as_bytes());
            assert_eq!(counts, expected, "{before:?} {content:?}");
        };
        check(here, "a\n", "a\n", true);
        check(here, "a\n", "a\nb\n", true);
        check(here, "a\n", "a\nb", false);
        check(here, "a", "a\nb\n", true);
        check(here, "a", "ab\n", false);
        check(here, "a\nb\n", "a\n", false);
        check(here, "a\n", "", false);
        check(here, "", "a\n", true);
        check(there, "a\nb\n", "c", true);
        check(there, "a\n", "", false);
    }
}
