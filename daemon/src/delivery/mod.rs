//! What acknowledged delivery keeps on disk: which agent's events each sink has, whatever kills the process.
//!
//! * `LedgerFile` (`queue/ringmaster/delivery`) is the manager's ledger: noted by the sinks, the queue's part by the kernel
//!   itself (`uring::Chain`).
//! * `BlockLog` (`queue/ringmaster/delivery-blocks`) says what is on its way into an archive; the next start finds out by
//!   it what got there (`recover`).

mod blocks;
mod ledger;
mod recover;

use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::Arc;

use codec::AgentId;
use manager::{Deliveries, Ledger, LedgerFull, ShardId, SinkSet};
use tracing::{info, warn};

pub(crate) use blocks::{BlockEntry, BlockLog, line_hash};
pub(crate) use ledger::LedgerFile;

use crate::metrics::SinkKind;
use crate::settings::Settings;
use ledger::Opened;
use recover::Recovered;

/// What a process has of acknowledged delivery: one, which its shards share.
#[derive(Clone, Debug)]
pub struct Delivery {
    ledger: Arc<LedgerFile>,
    blocks: Arc<File>,
    deliveries: Arc<Deliveries>,
}

/// What the sinks of one shard have of it.
#[derive(Debug)]
pub(crate) struct SinkDelivery {
    /// Where they note what they have.
    pub(crate) ledger: Arc<LedgerFile>,
    /// Where an archive says what is on its way.
    pub(crate) text_blocks: Option<BlockLog>,
    /// The same for the other one.
    pub(crate) json_blocks: Option<BlockLog>,
}

impl Delivery {
    /// Opens what is in `folder`, for the sinks of `settings`, and finds out what an end that was none has left. `None` if
    /// there is no sink. Agents that are not `listed` are forgotten.
    ///
    /// # Errors
    /// When a file can't be opened, made or mapped.
    pub fn open(
        folder: &Path,
        settings: &Settings,
        listed: impl Fn(AgentId) -> bool,
    ) -> io::Result<Option<Delivery>> {
        let sinks = sinks(settings);
        if sinks.is_empty() {
            return Ok(None);
        }
        let path = folder.join("delivery");
        let (ledger, opened) = LedgerFile::open(&path, sinks, listed)?;
        let blocks = ledger::open_file(&folder.join("delivery-blocks"))?;
        let archives = [
            (SinkKind::ArchiveText, settings.archives_text_path()),
            (SinkKind::ArchiveJson, settings.archives_json_path()),
        ];
        let recovered = recover::recover(&ledger, &blocks, &archives)?;
        say(&path, &opened, recovered);
        let ledger = Arc::new(ledger);
        let deliveries = Arc::new(Deliveries::new(Box::new(SharedLedger(Arc::clone(&ledger)))));
        Ok(Some(Delivery { ledger, blocks: Arc::new(blocks), deliveries }))
    }

    /// What the managers of all shards share.
    pub fn deliveries(&self) -> Arc<Deliveries> {
        Arc::clone(&self.deliveries)
    }

    /// What the sinks of a shard need.
    ///
    /// # Errors
    /// When the disk is full.
    pub(crate) fn of_shard(&self, shard: ShardId) -> io::Result<SinkDelivery> {
        let log = |sink: SinkKind| {
            let has = self.ledger.sinks().contains(sink as usize);
            has.then(|| BlockLog::map(&self.blocks, shard, sink)).transpose()
        };
        Ok(SinkDelivery {
            ledger: Arc::clone(&self.ledger),
            text_blocks: log(SinkKind::ArchiveText)?,
            json_blocks: log(SinkKind::ArchiveJson)?,
        })
    }

    /// How many agents have a place in the ledger.
    pub(crate) fn agents(&self) -> u64 {
        self.ledger.used()
    }
}

/// The ledger, as the manager owns one.
#[derive(Debug)]
struct SharedLedger(Arc<LedgerFile>);

impl Ledger for SharedLedger {
    fn open(&self, agent: AgentId, session: u64, first: u64) -> Result<u32, LedgerFull> {
        self.0.open(agent, session, first)
    }

    fn before(&self, cell: u32, sink: usize) -> u64 {
        self.0.before(cell, sink)
    }

    fn sinks(&self) -> SinkSet {
        self.0.sinks()
    }
}

/// The sinks that the settings name, by the numbers of their kinds.
fn sinks(settings: &Settings) -> SinkSet {
    let sink = &settings.sink;
    let named = [
        (SinkKind::Queue, sink.queue.enabled),
        (SinkKind::ArchiveText, sink.archives.text),
        (SinkKind::ArchiveJson, sink.archives.json),
    ];
    let named = named.iter().filter(|(_, is_named)| *is_named);
    named.fold(SinkSet::NONE, |sinks, (kind, _)| sinks.with(*kind as usize))
}

fn say(path: &Path, opened: &Opened, recovered: Recovered) {
    let Opened { aside, kept, freed, damaged } = opened;
    if let Some(aside) = aside {
        warn!(
            "{}: no ledger of acknowledged delivery; kept as {}, and begun anew: what agents have not heard confirmed \
             may arrive twice",
            path.display(),
            aside.display()
        );
    }
    if *damaged > 0 {
        warn!(
            "{}: {damaged} agents can't be read: what they have not heard confirmed may arrive twice",
            path.display()
        );
    }
    if kept + freed > 0 {
        info!("acknowledged delivery goes on for {kept} agents; {freed} are not in client.keys any more");
    }
    let Recovered { found, missing, cut_bytes, lost_blocks } = recovered;
    if recovered != Recovered::default() {
        info!(
            "archives after an unclean end: {found} events were written and not confirmed, and are not written again; \
             {missing} were not; {cut_bytes} bytes of unfinished lines are cut off"
        );
    }
    if lost_blocks > 0 {
        warn!(
            "archives after an unclean end: {lost_blocks} files that were being written are gone: events that agents \
             have not heard confirmed may be in them, and come again"
        );
    }
}
