//! Watches the shared folders, and has them read again when something in them changed.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use futures_util::StreamExt;
use inotify::{EventStream, Inotify, WatchMask};
use tokio::task::spawn_blocking;
use tokio::time::sleep;
use tracing::warn;

use super::Outward;
use super::merged::MERGED_NAME;
use super::shared::SharedFolders;

/// Files that are written one after the other are read together.
const GATHER: Duration = Duration::from_millis(300);

/// How often the folders are looked at if nothing is told; without inotify, and after a file that changed while it was read.
const LOOK_SELDOM: Duration = Duration::from_secs(60);
const LOOK_OFTEN: Duration = Duration::from_secs(10);
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// Looks whenever something changed, until the runtime ends.
pub(super) async fn follow(outward: Rc<Outward>, mut folders: SharedFolders, mut watched: Vec<PathBuf>) {
    let mut watch = Watch::new();
    let mut torn = false;
    loop {
        watch.set(&watched);
        let wait = match (torn, watch.events.is_some()) {
            (true, _) => LOOK_AGAIN,
            (false, true) => LOOK_SELDOM,
            (false, false) => LOOK_OFTEN,
        };
        tokio::select! {
            () = watch.event() => sleep(GATHER).await,
            () = sleep(wait) => {}
        }
        let looked = spawn_blocking(move || {
            let look = folders.look();
            (folders, look)
        });
        let look;
        (folders, look) = looked.await.expect("a panic ends the process");
        torn = look.torn;
        watched = outward.take_look(look);
    }
}

struct Watch {
    events: Option<EventStream<[u8; 4_096]>>,
    folders: BTreeSet<PathBuf>,
}

impl Watch {
    fn new() -> Watch {
        let stream = Inotify::init().and_then(|inotify| inotify.into_event_stream([0; 4_096]));
        let events = stream.inspect_err(|error| {
            let often = LOOK_OFTEN.as_secs();
            warn!("no inotify ({error}): shared files are looked at every {often} s; raise fs.inotify.max_user_instances");
        });
        Watch { events: events.ok(), folders: BTreeSet::new() }
    }

    /// Watches these folders. What is watched no more went with its folder.
    fn set(&mut self, folders: &[PathBuf]) {
        let Some(events) = &self.events else { return };
        let mask = WatchMask::CLOSE_WRITE | WatchMask::CREATE | WatchMask::DELETE | WatchMask::MOVE;
        self.folders.retain(|folder| folders.contains(folder));
        for folder in folders {
            if !self.folders.contains(folder) && events.watches().add(folder, mask).is_ok() {
                self.folders.insert(folder.clone());
            }
        }
    }

    /// Completes when something changed, other than what is made of it. Can be dropped at any time.
    async fn event(&mut self) {
        let Some(events) = &mut self.events else { return std::future::pending().await };
        loop {
            match events.next().await {
                Some(Ok(event)) => {
                    let name = event.name.as_deref().and_then(|name| name.to_str());
                    if !name.is_some_and(|name| name.starts_with(MERGED_NAME)) {
                        return;
                    }
                }
                Some(Err(_)) | None => {
                    self.events = None;
                    return;
                }
            }
        }
    }
}
