//! What a reload changes at once, and what waits for the next start.

use serde::{Deserialize, Serialize};

use super::{Listener, Settings, document::flatten};

/// Settings that shards and control plane take while they run. Everything else is bound, pinned or allocated when the
/// program starts.
///
/// `agents.acknowledged_delivery` and `agents.send_queue_bytes_max` are for connections that come from now on.
const AT_ONCE: &[&str] = &[
    "active_response.keep_messages_per_agent_max",
    "active_response.keep_seconds",
    "agents.acknowledged_delivery",
    "agents.authentication_deadline_seconds",
    "agents.crypto_accept",
    "agents.events_per_second_max",
    "agents.paused_acknowledgement_seconds",
    "agents.replay",
    "agents.send_queue_bytes_max",
    "agents.silence_deadline_seconds",
    "agents.unauthenticated_max",
    "agents.unauthenticated_per_address_max",
    "shared.bytes_per_second",
    "sink.archives.sync",
    "sink.hard_bytes",
    "sink.soft_bytes",
    "stop.grace_seconds",
    "syslog.connections_max",
    "syslog.connections_per_address_max",
    "syslog.idle_seconds",
];

/// What the listeners say instead.
const LISTENERS: &[&str] = &["listen.addresses", "listener"];

/// What becomes of running settings when the files say something else.
#[derive(Clone, Debug, PartialEq)]
pub struct Reload {
    /// What is in effect from now on.
    pub settings: Settings,
    /// What changed, and what did not.
    pub changes: Changes,
}

/// The difference between what ran and what the files say.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct Changes {
    /// In effect from now on.
    pub applied: Vec<Change>,
    /// In effect from the next start on.
    pub postponed: Vec<Change>,
}

/// One setting, or one listener.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Change {
    /// Dotted key, or kind, transports and address of a listener.
    pub what: String,
    /// What runs, or ran.
    pub old: String,
    /// What the files say.
    pub new: String,
}

/// Compares what runs with what the files say now.
///
/// # Panics
/// Never: settings that were read can be written and read again.
pub fn reload(running: &Settings, wanted: &Settings) -> Reload {
    let mut changes = Changes::default();
    let mut table = toml::Table::try_from(running).expect("settings are plain tables");
    let (old, new) = (flatten(running), flatten(wanted));
    let shown = |value: Option<&toml::Value>| value.map_or_else(|| "none".to_owned(), toml::Value::to_string);
    for key in old.keys().chain(new.keys().filter(|key| !old.contains_key(*key))) {
        if old.get(key) == new.get(key) || LISTENERS.contains(&key.as_str()) {
            continue;
        }
        let change = Change { what: key.clone(), old: shown(old.get(key)), new: shown(new.get(key)) };
        if is_at_once(key, &change.new) {
            put(&mut table, key, new.get(key).cloned());
            changes.applied.push(change);
        } else {
            changes.postponed.push(change);
        }
    }
    let settings: Settings = table.try_into().expect("every value was taken before");
    let mut settings = Settings { home: running.home.clone(), ..settings };
    settings.listen_on(listeners(running.listeners(), wanted.listeners(), &mut changes));
    Reload { settings, changes }
}

/// Whether a setting can get this value while the program runs.
fn is_at_once(key: &str, new: &str) -> bool {
    // The window's memory of what came is kept only while there is a window: without it, what came last would be taken
    // once more.
    AT_ONCE.contains(&key) && !(key == "agents.replay" && new == "\"window\"")
}

/// Puts a value where its dotted key says.
fn put(table: &mut toml::Table, key: &str, value: Option<toml::Value>) {
    let inner =
        key.split_once('.').and_then(|(first, rest)| Some((table.get_mut(first)?.as_table_mut()?, rest)));
    match (inner, value) {
        (Some((table, rest)), value) => put(table, rest, value),
        (None, Some(value)) => drop(table.insert(key.to_owned(), value)),
        (None, None) => drop(table.remove(key)),
    }
}

/// The listeners that run, with the rules that the files have for them now.
fn listeners(running: &[Listener], wanted: &[Listener], changes: &mut Changes) -> Vec<Listener> {
    let place = |listener: &Listener| (listener.kind, listener.transports, listener.address);
    let name = |listener: &Listener| {
        let shown = listener.to_string();
        format!("listener {}", shown.strip_suffix(&listener.rules()).unwrap_or(&shown).trim_end())
    };
    let mut unmatched: Vec<&Listener> = wanted.iter().collect();
    let mut listeners = Vec::new();
    for listener in running {
        let Some(at) = unmatched.iter().position(|wanted| place(wanted) == place(listener)) else {
            let change = Change { what: name(listener), old: "open".to_owned(), new: "closed".to_owned() };
            changes.postponed.push(change);
            listeners.push(listener.clone());
            continue;
        };
        let wanted = unmatched.remove(at);
        if wanted.rules() != listener.rules() {
            changes.applied.push(Change { what: name(listener), old: listener.rules(), new: wanted.rules() });
        }
        listeners.push(wanted.clone());
    }
    changes.postponed.extend(unmatched.into_iter().map(|listener| Change {
        what: name(listener),
        old: "closed".to_owned(),
        new: format!("open ({}; {})", listener.rules(), listener.origin),
    }));
    listeners
}

impl Changes {
    /// Whether the files say what runs.
    pub fn is_empty(&self) -> bool {
        self.applied.is_empty() && self.postponed.is_empty()
    }

    /// A line for each, and whether it is in effect.
    pub fn lines(&self) -> impl Iterator<Item = (bool, String)> {
        let applied =
            self.applied.iter().map(|Change { what, old, new }| (true, format!("{what}: {old} -> {new}")));
        let postponed = self
            .postponed
            .iter()
            .map(|Change { what, old, new }| (false, format!("{what}: {old} -> {new}, at the next start")));
        let nothing = self.is_empty().then(|| (true, "the settings say what they said".to_owned()));
        applied.chain(postponed).chain(nothing)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::{CryptoAccept, Replay};

    fn said(changes: &[Change]) -> Vec<String> {
        changes.iter().map(|Change { what, old, new }| format!("{what}: {old} -> {new}")).collect()
    }

    #[test]
    fn what_can_change_does_and_the_rest_waits() {
        let running = Settings::with_home("/h");
        let mut wanted = Settings::with_home("/h");
        wanted.agents.replay = Replay::Off;
        wanted.agents.crypto_accept = CryptoAccept::Aes;
        wanted.sink.soft_bytes = 1 << 20;
        wanted.listen.backlog = 9;
        wanted.metrics.address = None;
        let Reload { settings, changes } = reload(&running, &wanted);
        assert_eq!(
            said(&changes.applied),
            [
                "agents.crypto_accept: \"both\" -> \"aes\"",
                "agents.replay: \"strict\" -> \"off\"",
                "sink.soft_bytes: 8388608 -> 1048576",
                "listener secure udp+tcp [::]:1514: crypto_accept=both -> crypto_accept=aes",
            ]
        );
        assert_eq!(
            said(&changes.postponed),
            ["listen.backlog: 4096 -> 9", "metrics.address: \"127.0.0.1:9514\" -> \"none\""]
        );
        let mut expected = Settings::with_home("/h");
        expected.agents.replay = Replay::Off;
        expected.agents.crypto_accept = CryptoAccept::Aes;
        expected.sink.soft_bytes = 1 << 20;
        expected.listen_on(wanted.listeners().to_vec());
        assert_eq!(settings, expected);
        assert!(reload(&settings, &expected).changes.is_empty());
    }

    #[test]
    fn a_window_needs_a_start() {
        let running = Settings::with_home("/h");
        let mut wanted = Settings::with_home("/h");
        wanted.agents.replay = Replay::Window;
        let Reload { settings, changes } = reload(&running, &wanted);
        assert_eq!(settings.agents.replay, Replay::Strict);
        assert_eq!(said(&changes.postponed), ["agents.replay: \"strict\" -> \"window\""]);
        let back = reload(&wanted, &running);
        assert_eq!(said(&back.changes.applied), ["agents.replay: \"window\" -> \"strict\""]);
    }

    #[test]
    fn listeners_keep_their_places_and_take_new_rules() {
        let listener = |text: &str, denied: &str| {
            let mut listener = Listener::secure(text.parse().unwrap(), "l");
            listener.denied = denied.split_whitespace().map(|rule| rule.parse().unwrap()).collect();
            listener
        };
        let with = |listeners: Vec<Listener>| {
            let mut settings = Settings::with_home("/h");
            settings.listen_on(listeners);
            settings
        };
        let running =
            with(vec![listener("127.0.0.1:1", ""), listener("127.0.0.1:2", ""), listener("127.0.0.1:3", "")]);
        let wanted = with(vec![
            listener("127.0.0.1:3", ""),
            listener("127.0.0.1:1", "10.0.0.1 10.0.0.2"),
            listener("127.0.0.1:4", ""),
        ]);
        let Reload { settings, changes } = reload(&running, &wanted);
        assert_eq!(
            said(&changes.applied),
            [
                "listener secure udp+tcp 127.0.0.1:1: crypto_accept=both -> denied=10.0.0.1,10.0.0.2 crypto_accept=both"
            ]
        );
        assert_eq!(
            said(&changes.postponed),
            [
                "listener secure udp+tcp 127.0.0.1:2: open -> closed",
                "listener secure udp+tcp 127.0.0.1:4: closed -> open (crypto_accept=both; l)",
            ]
        );
        let addresses: Vec<u16> = settings.listeners().iter().map(|one| one.address.port()).collect();
        assert_eq!(addresses, [1, 2, 3]);
        assert_eq!(settings.listeners()[0].denied.len(), 2);
    }

    #[test]
    fn every_setting_that_changes_at_once_is_there() {
        let settings = flatten(&Settings::default());
        let missing: Vec<&&str> =
            AT_ONCE.iter().chain(LISTENERS).filter(|key| !settings.contains_key(**key)).collect();
        assert!(missing.is_empty(), "{missing:?}");
    }
}
