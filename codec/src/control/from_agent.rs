//! What an agent says about itself.

use super::delivery::{self, DeliveryOffer};
use super::{CONTROL_PREFIX, ControlError, KeepAlive, is_control};
use crate::text::until_nul;
use serde::Deserialize;
use std::borrow::Cow;

const STARTUP: &[u8] = b"agent startup ";
const SHUTDOWN: &[u8] = b"agent shutdown ";
const REQUEST: &[u8] = b"req ";
pub(super) const DELIVERY_NEXT: &[u8] = b"ringmaster next ";

/// A control message from an agent.
#[derive(Clone, Debug, PartialEq)]
pub enum FromAgent<'a> {
    /// Acknowledged delivery: the next event on this connection has this number, and each one after it one more. No
    /// answer.
    DeliveryNext {
        /// At most [`DELIVERY_NUMBER_MAX`](crate::DELIVERY_NUMBER_MAX).
        number: u64,
    },
    /// Every ten seconds to ten minutes. Answer with an ack.
    KeepAlive(KeepAlive<'a>),
    /// The answer to a request, or over UDP the word that one came (payload `ack`).
    RequestAnswer {
        /// The request's, as the manager wrote it.
        counter: &'a [u8],
        /// What the agent's program said.
        payload: &'a [u8],
    },
    /// The agent stops. No answer.
    Shutdown,
    /// The first message. Answer with an ack before anything else.
    Startup {
        /// The agent's version as Wazuh's start-up has it: `v4.14.7`.
        version: Option<Cow<'a, str>>,
        /// What an agent of ours offers to a manager of ours.
        delivery: Option<DeliveryOffer>,
        /// What follows `#!-agent startup `.
        raw: &'a [u8],
    },
    /// None of these, and no keep-alive since it has no newline. OSSEC's manager answers with an ack.
    Unknown(&'a [u8]),
}

impl<'a> FromAgent<'a> {
    /// The control message that `text` is; `None` if it is none. It ends at the first NUL, as a C string does.
    ///
    /// Source: ossec-hids 4.3.0 `remoted/manager.c`, `save_controlmsg`; wazuh v4.14.7 `remoted/manager.c`,
    /// `validate_control_msg`.
    pub fn parse(text: &'a [u8]) -> Option<Result<FromAgent<'a>, ControlError>> {
        let said = until_nul(text.strip_prefix(CONTROL_PREFIX)?);
        Some(if let Some(raw) = said.strip_prefix(STARTUP) {
            Ok(FromAgent::Startup { version: version(raw), delivery: DeliveryOffer::parse(raw), raw })
        } else if said.starts_with(SHUTDOWN) {
            Ok(FromAgent::Shutdown)
        } else if let Some(answer) = said.strip_prefix(REQUEST) {
            request_answer(answer)
        } else if let Some(digits) = said.strip_prefix(DELIVERY_NEXT) {
            let number = delivery::number(digits).ok_or(ControlError::Delivery);
            number.map(|number| FromAgent::DeliveryNext { number })
        } else {
            KeepAlive::parse(said).map(FromAgent::KeepAlive).or(Ok(FromAgent::Unknown(said)))
        })
    }
}

/// A start-up that names no version, or not as we know it, is a start-up all the same: its agent waits for the ack.
fn version(raw: &[u8]) -> Option<Cow<'_, str>> {
    #[derive(Deserialize)]
    struct Startup<'a> {
        #[serde(borrow, default)]
        version: Option<Cow<'a, str>>,
    }
    serde_json::from_slice::<Startup<'_>>(raw).ok()?.version
}

fn request_answer(answer: &[u8]) -> Result<FromAgent<'_>, ControlError> {
    let (counter, payload) = super::to_agent::split_at_space(answer);
    if counter.is_empty() {
        Err(ControlError::RequestCounter)
    } else {
        Ok(FromAgent::RequestAnswer { counter, payload })
    }
}

/// Appends the start-up text of an agent: with a version as Wazuh's does, without as OSSEC's.
///
/// # Panics
/// If the version can't be written in JSON: no string is so.
///
/// Source: ossec-hids 4.3.0 and wazuh v4.14.7 `client-agent/start_agent.c`.
pub fn startup(version: Option<&str>, out: &mut Vec<u8>) {
    out.extend_from_slice(CONTROL_PREFIX);
    out.extend_from_slice(STARTUP);
    if let Some(version) = version {
        out.extend_from_slice(b"{\"version\":");
        serde_json::to_writer(&mut *out, version).expect("a string is JSON, and a Vec takes it");
        out.push(b'}');
    }
    debug_assert!(is_control(out) || out.len() > CONTROL_PREFIX.len());
}

/// Appends the start-up text of an agent that offers acknowledged delivery: to every other manager it is OSSEC's.
///
/// # Panics
/// If the offer's session is zero, or its first number above [`DELIVERY_NUMBER_MAX`](crate::DELIVERY_NUMBER_MAX).
pub fn startup_with_delivery(offer: DeliveryOffer, out: &mut Vec<u8>) {
    startup(None, out);
    out.extend_from_slice(offer.text().as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_agents_say() {
        let parse = |text: &'static [u8]| FromAgent::parse(text);
        assert_eq!(parse(b"1:a:b"), None);
        assert_eq!(parse(b"#!"), None);
        let startup = |version: Option<&'static str>, raw| FromAgent::Startup {
            version: version.map(Cow::Borrowed),
            delivery: None,
            raw,
        };
        assert_eq!(parse(b"#!-agent startup "), Some(Ok(startup(None, b""))));
        let wazuh = br#"{"version":"v4.14.7"}"#;
        assert_eq!(
            parse(br#"#!-agent startup {"version":"v4.14.7"}"#),
            Some(Ok(startup(Some("v4.14.7"), wazuh)))
        );
        let more = br#"{"extra":[1,{}],"version":null}"#;
        assert_eq!(
            parse(br#"#!-agent startup {"extra":[1,{}],"version":null}"#),
            Some(Ok(startup(None, more)))
        );
        assert_eq!(parse(b"#!-agent startup {"), Some(Ok(startup(None, b"{"))));
        let number = br#"{"version":7}"#;
        assert_eq!(parse(br#"#!-agent startup {"version":7}"#), Some(Ok(startup(None, number))));
        assert_eq!(parse(b"#!-agent shutdown "), Some(Ok(FromAgent::Shutdown)));
        let answer = FromAgent::RequestAnswer { counter: b"123", payload: b"err Invalid request" };
        assert_eq!(parse(b"#!-req 123 err Invalid request"), Some(Ok(answer)));
        let acknowledged = FromAgent::RequestAnswer { counter: b"7b", payload: b"ack" };
        assert_eq!(parse(b"#!-req 7b ack"), Some(Ok(acknowledged)));
        assert_eq!(parse(b"#!-req "), Some(Err(ControlError::RequestCounter)));
        assert_eq!(
            parse(b"#!-Linux web01 without newline"),
            Some(Ok(FromAgent::Unknown(b"Linux web01 without newline")))
        );
        assert_eq!(parse(b"#!-"), Some(Ok(FromAgent::Unknown(b""))));
    }

    #[test]
    fn deep_json_is_not_followed() {
        let mut text = b"#!-agent startup {\"a\":".to_vec();
        text.extend(std::iter::repeat_n(b'[', 60_000));
        assert!(matches!(FromAgent::parse(&text), Some(Ok(FromAgent::Startup { version: None, .. }))));
    }

    proptest! {
        #[test]
        fn startups_come_back(version in prop::option::of("\\PC{0,20}")) {
            let mut text = Vec::new();
            startup(version.as_deref(), &mut text);
            match FromAgent::parse(&text) {
                Some(Ok(FromAgent::Startup { version: parsed, .. })) => prop_assert_eq!(parsed.as_deref(), version.as_deref()),
                other => prop_assert!(false, "{:?}", other),
            }
        }

        #[test]
        fn any_text_has_an_answer(text: Vec<u8>) {
            let said = [b"#!-", &text[..]].concat();
            prop_assert!(FromAgent::parse(&said).is_some());
        }
    }
}
