//! SIGHUP and `ringmaster reload`: every file is read again, and what can change changes without an agent noticing.

use std::sync::Arc;

use sd_notify::NotifyState;
use tracing::{error, info, warn};

use super::{ControlPlane, notify};
use crate::settings::{self, Changes, Reload};

impl ControlPlane {
    /// Reads settings and client.keys again. No shard waits for it; each takes the settings between two of its turns.
    ///
    /// # Errors
    /// When the files say what can't be: everything stays as it was, and the message names file, line and cure.
    pub async fn reload(&mut self) -> Result<Changes, String> {
        if let Ok(since_boot) = NotifyState::monotonic_usec_now() {
            notify(&[NotifyState::Reloading, since_boot]);
        }
        let outcome = self.reload_settings().await;
        match &outcome {
            Ok(changes) => {
                self.counted.settings_loads.add(1);
                for (in_effect, line) in changes.lines() {
                    if in_effect { info!("reload: {line}") } else { warn!("reload: {line}") }
                }
            }
            Err(problem) => {
                self.counted.settings_refusals.add(1);
                error!("reload: {problem}; everything stays as it was");
            }
        }
        self.keys_if(|_| true).await;
        notify(&[NotifyState::Ready]);
        outcome
    }

    async fn reload_settings(&mut self) -> Result<Changes, String> {
        let Some(sources) = self.sources.clone() else { return Ok(Changes::default()) };
        let read = tokio::task::spawn_blocking(move || sources.load());
        let loaded = read.await.expect("a panic ends the process").map_err(|error| error.to_string())?;
        loaded.remarks.iter().for_each(|remark| warn!("{remark}"));
        let Reload { settings, changes } = settings::reload(&self.settings, &loaded.settings);
        if !changes.applied.is_empty() {
            self.registry.expect_silence(settings.silence_deadline());
            self.settings = Arc::new(settings);
            for mailer in &self.mailers {
                mailer.send_settings(Arc::clone(&self.settings));
            }
            if let Some(outward) = &self.outward {
                outward.on_settings(&self.settings);
            }
        }
        Ok(changes)
    }
}
