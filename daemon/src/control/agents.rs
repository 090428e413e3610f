//! Agents' account: what shards tell of them, and OSSEC's files that say who is there.

use std::{io, sync::Arc};

use tokio::task::{JoinHandle, spawn_blocking};
use tracing::warn;

use super::ControlPlane;
use crate::{
    registry::{AgentInfo, FoundInfo, Moment, Written},
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
            Some(info) => InfoTask::Reading(spawn_blocking(move || info.read_all())),
        }
    }
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
    pub(super) async fn look_at_agents(&mut self, task: &mut InfoTask) {
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
            InfoTask::Reading(reading) => match reading.await.expect("a panic ends the process") {
                Ok(found) => self.registry.restore(Moment::now(self.clock), found),
                Err(error) => warn!("queue/agent-info: {error}; who was there before is not known"),
            },
            InfoTask::Writing(writing) => {
                self.note_written(&writing.await.expect("a panic ends the process"));
            }
        }
        let Some(info) = self.agent_info.clone() else { return };
        let writes = self.registry.take_writes();
        if !writes.is_empty() {
            *task = InfoTask::Writing(spawn_blocking(move || info.write(&writes)));
        }
    }

    /// The last words: the files that are behind.
    pub(super) async fn finish_agents(&mut self, task: InfoTask) {
        self.hear_notices();
        self.count_agents();
        if let InfoTask::Writing(writing) = task {
            self.note_written(&writing.await.expect("a panic ends the process"));
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
