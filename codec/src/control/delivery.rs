//! Acknowledged delivery: how an agent and a manager that both know it count events and confirm them.
//!
//! ```text
//! agent to manager   #!-agent startup delivery 1 <session> <first>      #!-ringmaster next <number>
//! manager to agent   #!-ringmaster delivery <session>                   #!-ringmaster taken <before>
//! ```
//!
//! A session is 16 lower-case hexadecimal digits, the rest is decimal. Words, not JSON: wazuh-remoted looks for a version in
//! whatever JSON a start-up carries, and refuses an agent whose JSON has none (wazuh v4.14.7 `remoted/manager.c`,
//! `validate_control_msg`). A tail without any `{` is not looked at by either C manager.

use super::to_agent::split_at_space;
use crate::text::decimal_u64;

/// The greatest number of an event: counting on from it never overflows.
pub const DELIVERY_NUMBER_MAX: u64 = (1 << 63) - 1;

/// The one version that is spoken.
const VERSION: &[u8] = b"1";
const STARTUP_WORD: &[u8] = b"delivery ";
const SESSION_DIGITS: usize = 16;

/// What an agent offers in its start-up: to count its events, and to keep each until the manager confirms it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeliveryOffer {
    /// Chosen at random with the agent's spool, never zero: numbers of another session mean other events.
    pub session: u64,
    /// The number of the oldest event that the agent still has, or the one that its next event gets. At most
    /// [`DELIVERY_NUMBER_MAX`].
    pub first: u64,
}

impl DeliveryOffer {
    /// The offer in what follows `#!-agent startup `. Anything else there is none: a start-up is one all the same.
    pub(super) fn parse(raw: &[u8]) -> Option<DeliveryOffer> {
        let (version, rest) = split_at_space(raw.strip_prefix(STARTUP_WORD)?);
        let (session_digits, first_digits) = split_at_space(rest);
        if version != VERSION {
            return None;
        }
        Some(DeliveryOffer { session: session(session_digits)?, first: number(first_digits)? })
    }

    /// What follows `#!-agent startup `.
    pub(super) fn text(self) -> String {
        assert!(self.session != 0, "zero stands for no session");
        assert!(self.first <= DELIVERY_NUMBER_MAX, "an event's number is not that great");
        format!("delivery 1 {:016x} {}", self.session, self.first)
    }
}

/// Appends an agent's word on which number its next event over this connection has; each one after it has one more.
///
/// # Panics
/// If the number is above [`DELIVERY_NUMBER_MAX`].
pub fn delivery_next(next: u64, out: &mut Vec<u8>) {
    assert!(next <= DELIVERY_NUMBER_MAX, "an event's number is not that great");
    out.extend_from_slice(super::CONTROL_PREFIX);
    out.extend_from_slice(super::from_agent::DELIVERY_NEXT);
    out.extend_from_slice(next.to_string().as_bytes());
}

/// The session that sixteen lower-case hexadecimal digits name; never zero.
pub(super) fn session(digits: &[u8]) -> Option<u64> {
    let is_one = digits.len() == SESSION_DIGITS
        && digits.iter().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'));
    if !is_one {
        return None;
    }
    // Zero stands for none wherever a session is kept.
    u64::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok().filter(|session| *session != 0)
}

/// The number that decimal digits name, if an event can have it.
pub(super) fn number(digits: &[u8]) -> Option<u64> {
    decimal_u64(digits).filter(|number| *number <= DELIVERY_NUMBER_MAX)
}

#[cfg(test)]
mod tests {
    use super::super::{ControlError, FromAgent, ToAgent, startup, startup_with_delivery};
    use super::*;
    use proptest::prelude::*;

    fn offer_in(text: &[u8]) -> Option<DeliveryOffer> {
        match FromAgent::parse(text) {
            Some(Ok(FromAgent::Startup { version: None, delivery, raw: _ })) => delivery,
            other => panic!("{other:?} is no start-up"),
        }
    }

    #[test]
    fn an_offer_is_a_plain_start_up_to_every_other_manager() {
        let offer = DeliveryOffer { session: 0x00c0_ffee_0000_0001, first: 17 };
        let mut text = Vec::new();
        startup_with_delivery(offer, &mut text);
        assert_eq!(text, b"#!-agent startup delivery 1 00c0ffee00000001 17");
        assert!(!text.contains(&b'{'), "the C managers would look for a version");
        assert_eq!(offer_in(&text), Some(offer));
        let mut plain = Vec::new();
        startup(None, &mut plain);
        assert_eq!(offer_in(&plain), None);
        for none in [
            "delivery",
            "delivery 1",
            "delivery 1 00c0ffee00000001",
            "delivery 1 00c0ffee00000001 ",
            "delivery 1 0000000000000000 17",
            "delivery 2 00c0ffee00000001 17",
            "delivery 01 00c0ffee00000001 17",
            "delivery 1 00C0FFEE00000001 17",
            "delivery 1 0c0ffee00000001 17",
            "delivery 1 +0c0ffee00000001 17",
            "delivery 1 00c0ffee00000001 17 and more",
            "delivery 1 00c0ffee00000001 -1",
            "delivery 1 00c0ffee00000001 9223372036854775808",
            "delivery 1 00c0ffee00000001 18446744073709551616",
            "delivery  1 00c0ffee00000001 17",
        ] {
            assert_eq!(offer_in(format!("#!-agent startup {none}").as_bytes()), None, "{none}");
        }
        let wazuh = br#"#!-agent startup {"version":"v4.14.7"}"#;
        assert!(matches!(
            FromAgent::parse(wazuh),
            Some(Ok(FromAgent::Startup { version: Some(_), delivery: None, raw: _ }))
        ));
    }

    #[test]
    fn words_of_both_sides() {
        let from = |text: &'static [u8]| FromAgent::parse(text).unwrap();
        let to = |text: &'static [u8]| ToAgent::parse(text);
        assert_eq!(from(b"#!-ringmaster next 0"), Ok(FromAgent::DeliveryNext { number: 0 }));
        assert_eq!(
            from(b"#!-ringmaster next 9223372036854775807"),
            Ok(FromAgent::DeliveryNext { number: DELIVERY_NUMBER_MAX })
        );
        assert_eq!(
            to(b"#!-ringmaster delivery 00000000000000ff"),
            Ok(ToAgent::DeliveryAgreed { session: 255 })
        );
        assert_eq!(to(b"#!-ringmaster taken 12"), Ok(ToAgent::DeliveryTaken { before: 12 }));
        for bad in [
            &b"#!-ringmaster next "[..],
            b"#!-ringmaster next x",
            b"#!-ringmaster next 1 ",
            b"#!-ringmaster next 9223372036854775808",
        ] {
            assert_eq!(FromAgent::parse(bad), Some(Err(ControlError::Delivery)), "{bad:?}");
        }
        for bad in [
            &b"#!-ringmaster delivery "[..],
            b"#!-ringmaster delivery ff",
            b"#!-ringmaster delivery 0000000000000000",
            b"#!-ringmaster taken ",
            b"#!-ringmaster taken 99999999999999999999999",
        ] {
            assert_eq!(ToAgent::parse(bad), Err(ControlError::Delivery), "{bad:?}");
        }
        assert_eq!(to(b"#!-ringmaster other 1"), Ok(ToAgent::Raw(b"ringmaster other 1")));
    }

    proptest! {
        #[test]
        fn what_is_written_comes_back(session in 1..=u64::MAX, number in 0..=DELIVERY_NUMBER_MAX) {
            let mut text = Vec::new();
            startup_with_delivery(DeliveryOffer { session, first: number }, &mut text);
            prop_assert_eq!(offer_in(&text), Some(DeliveryOffer { session, first: number }));
            text.clear();
            delivery_next(number, &mut text);
            prop_assert_eq!(FromAgent::parse(&text), Some(Ok(FromAgent::DeliveryNext { number })));
            for message in [ToAgent::DeliveryAgreed { session }, ToAgent::DeliveryTaken { before: number }] {
                text.clear();
                message.write(&mut text);
                prop_assert_eq!(ToAgent::parse(&text), Ok(message));
            }
        }
    }
}
