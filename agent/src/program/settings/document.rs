//! etc/ringmaster-agent.toml: what OSSEC has no word for. Each setting has a default, and the file may be missing.

use std::fmt;
use std::ops::RangeInclusive;
use std::time::Duration;

use serde::Deserialize;
use spool::AtBound;

/// The file.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Document {
    spool: SpoolSection,
    reconnect: ReconnectSection,
    delivery: DeliverySection,
}

/// `[spool]`
#[derive(Clone, Debug, Deserialize, Eq, PartialEq)]
#[serde(default, deny_unknown_fields)]
struct SpoolSection {
    /// What the spool may take of the disk.
    mebibytes_max: u64,
    /// What happens then.
    at_bound: Policy,
    /// Whether each write waits for the disk.
    sync: bool,
}

#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "kebab-case")]
enum Policy {
    DropOldest,
    PushBack,
}

/// `[reconnect]`
#[derive(Clone, Debug, Deserialize, Eq, PartialEq)]
#[serde(default, deny_unknown_fields)]
struct ReconnectSection {
    /// The first wait is a random part of this; each next one of twice as much.
    seconds_min: u64,
    /// No wait is longer.
    seconds_max: u64,
    /// A connection whose other end has been silent for so long, below TCP, is lost.
    lost_after_seconds: u64,
}

/// `[delivery]`
#[derive(Clone, Debug, Deserialize, Eq, PartialEq)]
#[serde(default, deny_unknown_fields)]
struct DeliverySection {
    /// Over TCP: how long after an event the manager is asked whether it is still there.
    confirm_seconds: u64,
    /// Over TCP: whether the manager is offered to say itself what its sinks have.
    acknowledged: bool,
}

impl Default for SpoolSection {
    fn default() -> SpoolSection {
        SpoolSection { mebibytes_max: 128, at_bound: Policy::PushBack, sync: false }
    }
}

impl Default for ReconnectSection {
    fn default() -> ReconnectSection {
        ReconnectSection { seconds_min: 1, seconds_max: 60, lost_after_seconds: 30 }
    }
}

impl Default for DeliverySection {
    fn default() -> DeliverySection {
        DeliverySection { confirm_seconds: 5, acknowledged: true }
    }
}

/// Small, so that what is delivered soon is deleted before the kernel has written it to the disk at all.
const SEGMENT_BYTES: u64 = 256 << 10;

impl Document {
    /// Reads the file's text.
    ///
    /// # Errors
    /// The line, the value and the cure.
    pub(crate) fn parse(text: &str) -> Result<Document, String> {
        let document: Document =
            toml::from_str(text).map_err(|error| error.to_string().trim_end().to_owned())?;
        let within = |name: &str, value: u64, range: RangeInclusive<u64>| {
            if range.contains(&value) {
                return Ok(());
            }
            Err(format!("{name} = {value} can't be used: use {} to {}", range.start(), range.end()))
        };
        let Document { spool, reconnect, delivery } = &document;
        within("spool.mebibytes_max", spool.mebibytes_max, 1..=1 << 20)?;
        within("reconnect.seconds_min", reconnect.seconds_min, 1..=3_600)?;
        within("reconnect.seconds_max", reconnect.seconds_max, reconnect.seconds_min..=86_400)?;
        within("reconnect.lost_after_seconds", reconnect.lost_after_seconds, 3..=3_600)?;
        within("delivery.confirm_seconds", delivery.confirm_seconds, 1..=3_600)?;
        Ok(document)
    }

    pub(crate) fn spool(&self) -> spool::Settings {
        spool::Settings {
            bytes_max: self.spool.mebibytes_max << 20,
            segment_bytes: SEGMENT_BYTES,
            at_bound: match self.spool.at_bound {
                Policy::DropOldest => AtBound::DropOldest,
                Policy::PushBack => AtBound::PushBack,
            },
            sync: self.spool.sync,
        }
    }

    pub(crate) fn wait_min(&self) -> Duration {
        Duration::from_secs(self.reconnect.seconds_min)
    }

    pub(crate) fn wait_max(&self) -> Duration {
        Duration::from_secs(self.reconnect.seconds_max)
    }

    pub(crate) fn lost_after(&self) -> Duration {
        Duration::from_secs(self.reconnect.lost_after_seconds)
    }

    pub(crate) fn acknowledged(&self) -> bool {
        self.delivery.acknowledged
    }

    pub(crate) fn confirm_after(&self) -> Duration {
        Duration::from_secs(self.delivery.confirm_seconds)
    }
}

impl fmt::Display for Document {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Document { spool, reconnect, delivery } = self;
        let at_bound = match spool.at_bound {
            Policy::DropOldest => "drop-oldest",
            Policy::PushBack => "push-back",
        };
        writeln!(
            formatter,
            "spool             at most {} MiB, then {at_bound}; sync {}",
            spool.mebibytes_max, spool.sync
        )?;
        writeln!(
            formatter,
            "reconnect         after {} to {} s; a connection is lost after {} s of silence",
            reconnect.seconds_min, reconnect.seconds_max, reconnect.lost_after_seconds
        )?;
        let acknowledged = if delivery.acknowledged { "acknowledged if the manager can, else " } else { "" };
        writeln!(
            formatter,
            "delivery          over tcp {acknowledged}confirmed within {} s",
            delivery.confirm_seconds
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_setting_has_a_default() {
        let default = Document::parse("").unwrap();
        assert_eq!(default, Document::default());
        assert_eq!(default.spool().bytes_max, 128 << 20);
        let some = Document::parse("[spool]\nat_bound = \"drop-oldest\"\n[delivery]\nconfirm_seconds = 1\n")
            .unwrap();
        assert_eq!(
            (some.spool().at_bound, some.confirm_after()),
            (AtBound::DropOldest, Duration::from_secs(1))
        );
        assert_eq!(some.wait_max(), Duration::from_secs(60));
        assert!(some.acknowledged());
        let off = Document::parse("[delivery]\nacknowledged = false\n").unwrap();
        assert!(!off.acknowledged());
        assert!(
            some.to_string()
                .ends_with("over tcp acknowledged if the manager can, else confirmed within 1 s\n")
        );
        assert!(off.to_string().ends_with("over tcp confirmed within 5 s\n"));
    }

    #[test]
    fn refusals_name_what_and_the_cure() {
        let check = |text: &str, expected: &str| {
            let error = Document::parse(text).unwrap_err();
            assert!(error.contains(expected), "{error}");
        };
        check("[spool]\nmebibytes_max = 0\n", "spool.mebibytes_max = 0 can't be used: use 1 to 1048576");
        check("[spool]\nat_bound = \"wait\"\n", "line 2");
        check("[spool]\nbytes = 1\n", "unknown field");
        check(
            "[reconnect]\nseconds_min = 9\nseconds_max = 8\n",
            "reconnect.seconds_max = 8 can't be used: use 9 to",
        );
    }
}
