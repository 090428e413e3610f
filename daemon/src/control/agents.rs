//! Agents' account: what shards tell of them, and OSSEC's files that say who is there.

use std::{
    io,
    sync::Arc,
    thread::{self, JoinHandle},
};

use tracing::warn;

use super::ControlPlane;
use crate::{
    delivery::Delivery,
    registry::{AgentInfo, FoundInfo, InfoWrite, Moment, Written},
    shard::FromShard,
};

/// How many notices are heard before anything else has its turn: some milliseconds.
const NOTICES_AT_ONCE: usize = 4_096;

/// What is under way with queue/agent-info, on another thread: one thing at a time.
#[derive(Debug)]
pub(super) enum InfoTask {
    Idle,
    Reading(JoinHandle<io::Result<FoundInfo>>),
    Writing(JoinHandle<Written>),
}

impl InfoTask {
    /// Begins with reading what an earlier run has left.
    pub(super) fn start(info: Option<&AgentInfo>) -> InfoTask {
        match info.cloned() {
            None => InfoTask::Idle,
            Some(info) => give_way(move || info.read_all()).map_or(InfoTask::Idle, InfoTask::Reading),
        }
    }
}

/// Does work with files on a thread that shards, which may share its core, go before: when a fleet starts, there is one file
/// an agent to make, and some file systems take a tenth of a millisecond for each. `None` if there can be no thread.
fn give_way<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Option<JoinHandle<T>> {
    const NICENESS: i32 = 19;
    let patient = move || {
        // At the usual priority it is done as well.
        let _ = rustix::process::setpriority_process(None, NICENESS);
        work()
    };
    thread::Builder::new().name("agent-info".into()).spawn(patient).ok()
}

impl ControlPlane {
    /// Takes in what shards have told.
    pub(super) fn hear_notices(&mut self) {
        let now = Moment::now(self.clock);
        for _ in 0..NOTICES_AT_ONCE {
            match self.notices.next() {
                Some(FromShard::Notice { agent, notice }) => {
                    self.registry.on_notice(now, agent, &notice);
                    if let Some(outward) = &self.outward {
                        outward.on_notice(agent, &notice);
                    }
                }
                Some(FromShard::Outcome(outcome)) => {
                    if let Some(outward) = &self.outward {
                        outward.on_outcome(outcome);
                    }
                }
                None => break,
            }
        }
    }

    /// What is due each second: who is there, and the files that say so.
    pub(super) fn look_at_agents(&mut self, task: &mut InfoTask) {
        self.count_agents();
        let is_over = match &task {
            InfoTask::Idle => true,
            InfoTask::Reading(reading) => reading.is_finished(),
            InfoTask::Writing(writing) => writing.is_finished(),
        };
        if !is_over {
            return;
        }
        match std::mem::replace(task, InfoTask::Idle) {
            InfoTask::Idle => {}
            InfoTask::Reading(reading) => match reading.join().expect("a panic ends the process") {
                Ok(found) => self.registry.restore(Moment::now(self.clock), found),
                Err(error) => warn!("queue/agent-info: {error}; who was there before is not known"),
            },
            InfoTask::Writing(writing) => {
                self.note_written(&writing.join().expect("a panic ends the process"));
            }
        }
        let Some(info) = self.agent_info.clone() else { return };
        let writes: Arc<[InfoWrite]> = self.registry.take_writes().into();
        if !writes.is_empty() {
            let of_thread = Arc::clone(&writes);
            let of_info = info.clone();
            match give_way(move || of_info.write(&of_thread)) {
                Some(writing) => *task = InfoTask::Writing(writing),
                None => self.note_written(&info.write(&writes)),
            }
        }
    }

    /// The last words: the files that are behind.
    pub(super) fn finish_agents(&mut self, task: InfoTask) {
        self.hear_notices();
        self.count_agents();
        if let InfoTask::Writing(writing) = task {
            self.note_written(&writing.join().expect("a panic ends the process"));
        }
        if let Some(info) = &self.agent_info {
            let written = info.write(&self.registry.take_writes());
            self.note_written(&written);
        }
    }

    fn count_agents(&mut self) {
        let counts = self.registry.look(Moment::now(self.clock));
        self.counted.agents_active.set(counts.active);
        self.counted.agents_disconnected.set(counts.disconnected);
        self.counted.agents_never.set(counts.never);
        self.counted.notices_dropped.set(self.notices.dropped());
        self.counted.delivery_agents.set(self.delivery.as_ref().map_or(0, Delivery::agents));
    }

    fn note_written(&mut self, written: &Written) {
        let counted = Arc::clone(&self.counted);
        counted.agent_info_writes.add(written.done);
        self.registry.not_written(&written.failed);
        let Some(error) = &written.error else { return };
        let before = counted.agent_info_write_failures.read();
        counted.agent_info_write_failures.add(written.failed.len() as u64);
        // The first, and then each time that there are twice as many.
        if before.checked_ilog2() != counted.agent_info_write_failures.read().checked_ilog2() {
            let failed = counted.agent_info_write_failures.read();
            warn!("queue/agent-info: {error}; {failed} files could not be written so far");
        }
    }
}
