//! New settings, between two turns.

use std::sync::Arc;

use super::Shard;
use super::devices::Limits;
use super::start::manager_settings;
use crate::delivery::Delivery;
use crate::settings::Settings;

impl Shard {
    /// Whether new connections may agree on acknowledged delivery.
    pub(super) fn agree(&mut self, settings: &Settings) {
        let delivery = self.delivery.as_ref().filter(|_| settings.agents.acknowledged_delivery);
        self.manager.set_deliveries(delivery.map(Delivery::deliveries));
    }

    /// Takes what can change while a shard runs: [`crate::settings::reload`] has left everything else as it was.
    pub(super) fn take_settings(&mut self, settings: Arc<Settings>) {
        self.manager.on_settings(manager_settings(&settings));
        self.sinks.take_settings(&settings);
        self.agree(&settings);
        self.devices.set_limits(Limits::of(&settings));
        for state in &mut self.listeners {
            state.take_settings(settings.listeners());
        }
        self.settings = settings;
    }
}
