//! client.keys: seen as soon as it changes, read without waiting, and only when it says something new.

use std::{
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::Duration,
};

use codec::{KeyFile, KeyProblem};
use futures_util::StreamExt;
use inotify::{EventStream, Inotify, WatchMask};
use tokio::time::sleep;
use tracing::{error, warn};

/// Writers that add line after line are read together.
const GATHER: Duration = Duration::from_millis(50);

/// How many problems one reading may say; the rest is a number.
const PROBLEMS_SAID_MAX: usize = 20;

/// The file, what it said last, and how it is watched.
pub struct KeySource {
    path: PathBuf,
    /// `None` where the kernel has no inotify left; the look each second is enough then.
    events: Option<EventStream<[u8; 4_096]>>,
    signature: Option<Signature>,
    content: Vec<u8>,
    away: bool,
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

impl KeySource {
    /// Reads the file for the first time. The watch begins with [`KeySource::watch`].
    ///
    /// # Errors
    /// When it can't be read.
    pub fn open(path: &Path) -> io::Result<(KeySource, KeyFile)> {
        let signature = signature(path);
        let content = fs::read(path)?;
        let file = KeyFile::parse(&content);
        Ok((KeySource { path: path.to_owned(), events: None, signature, content, away: false }, file))
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

    /// Completes when the file may have changed. Can be dropped at any time: an event is then seen a second later.
    pub async fn event(&mut self) {
        let Some(events) = &mut self.events else { return std::future::pending().await };
        loop {
            match events.next().await {
                Some(Ok(event)) if event.name.as_deref() == self.path.file_name() => break,
                Some(Ok(_)) => {}
                Some(Err(_)) | None => {
                    self.events = None;
                    return;
                }
            }
        }
        sleep(GATHER).await;
    }

    /// Whether the file looks different from what was read last.
    pub fn looks_changed(&mut self) -> bool {
        signature(&self.path) != self.signature
    }

    /// The file, if it says something else than it did. One that is away or can't be read changes nothing.
    pub async fn read_changed(&mut self) -> Option<KeyFile> {
        let signature = signature(&self.path);
        match read(&self.path).await {
            Ok(content) => {
                self.away = false;
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
}

/// Says what is skipped of the file, and why.
pub fn say_problems(path: &Path, problems: &[KeyProblem]) {
    for problem in problems.iter().take(PROBLEMS_SAID_MAX) {
        warn!("{}:{}: {}", path.display(), problem.line, problem.kind);
    }
    if problems.len() > PROBLEMS_SAID_MAX {
        warn!("{}: {} more such lines", path.display(), problems.len() - PROBLEMS_SAID_MAX);
    }
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
}
