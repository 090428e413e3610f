//! Findings for people, for machines, and as an exit status.

use std::fmt::Write;
use std::io;

use serde_json::{Value, json};

use super::findings::{Finding, Reading, State};
use super::knobs::Want;

/// One line for each finding, in columns, and one for them all.
#[must_use]
pub fn text(findings: &[Finding]) -> String {
    let mut rows = vec![["knob", "have", "want", "state", "why"].map(str::to_owned)];
    rows.extend(findings.iter().map(|finding| {
        let state = state(finding.state).to_owned();
        [finding.name.to_owned(), have(&finding.have), want(finding.want), state, finding.why.to_owned()]
    }));
    let widths: [usize; 4] =
        std::array::from_fn(|column| rows.iter().map(|row| row[column].len()).max().unwrap_or(0));
    let mut text = String::new();
    for row in &rows {
        for (cell, width) in row.iter().zip(widths) {
            write!(text, "{cell:width$}  ").expect("a String takes all");
        }
        writeln!(text, "{}", row[4]).expect("a String takes all");
    }
    let (wrong, unread) = counts(findings);
    let verdict = match (wrong, unread) {
        (0, 0) => "all as wanted".to_owned(),
        (wrong, 0) => format!("{wrong} not as wanted; tuning/README.md says how to change and undo each"),
        (wrong, unread) => format!("{wrong} not as wanted, {unread} not readable; see tuning/README.md"),
    };
    text + &verdict + "\n"
}

/// A list of objects `{name, have, want, state, why}`; numbers as numbers, `null` where nothing was read.
#[must_use]
pub fn json(findings: &[Finding]) -> String {
    let objects = findings.iter().map(|finding| {
        json!({
            "name": finding.name,
            "have": match &finding.have {
                Reading::Absent | Reading::Unreadable(_) => Value::Null,
                Reading::Number(number) => json!(number),
                Reading::Word(word) => json!(word),
            },
            "want": match finding.want {
                Want::Any => Value::Null,
                Want::AtLeast(number) => json!({ "at_least": number }),
                Want::AtMost(number) => json!({ "at_most": number }),
                Want::Word(word) => json!({ "word": word }),
            },
            "state": state(finding.state),
            "why": finding.why,
        })
    });
    format!("{:#}\n", Value::Array(objects.collect()))
}

/// 0: all as wanted. 1: something is not. 2: nothing is known to be wrong, but something can't be read.
#[must_use]
pub fn exit_status(findings: &[Finding]) -> u8 {
    match counts(findings) {
        (0, 0) => 0,
        (0, _) => 2,
        (_, _) => 1,
    }
}

/// How many are not as wanted, and how many not readable.
fn counts(findings: &[Finding]) -> (usize, usize) {
    findings.iter().fold((0, 0), |(wrong, unread), finding| match finding.state {
        State::High | State::Low | State::Wrong => (wrong + 1, unread),
        State::Ok => (wrong, unread),
        State::Unreadable => (wrong, unread + 1),
    })
}

fn have(reading: &Reading) -> String {
    match reading {
        Reading::Absent => "none".to_owned(),
        Reading::Number(number) => number.to_string(),
        Reading::Unreadable(io::ErrorKind::PermissionDenied) => "denied".to_owned(),
        Reading::Unreadable(_) => "unreadable".to_owned(),
        Reading::Word(word) => word.clone(),
    }
}

fn want(want: Want) -> String {
    match want {
        Want::Any => "any".to_owned(),
        Want::AtLeast(number) => format!(">= {number}"),
        Want::AtMost(number) => format!("<= {number}"),
        Want::Word(word) => word.to_owned(),
    }
}

fn state(state: State) -> &'static str {
    match state {
        State::High => "high",
        State::Low => "low",
        State::Ok => "ok",
        State::Unreadable => "not readable",
        State::Wrong => "wrong",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finding(have: Reading, want: Want, state: State) -> Finding {
        Finding { name: "knob.name", have, want, state, why: "because" }
    }

    fn ok() -> Finding {
        finding(Reading::Number(7), Want::AtLeast(7), State::Ok)
    }

    fn low() -> Finding {
        finding(Reading::Number(6), Want::AtLeast(7), State::Low)
    }

    fn unread() -> Finding {
        finding(Reading::Absent, Want::AtMost(0), State::Unreadable)
    }

    #[test]
    fn the_exit_status_says_what_was_found() {
        let check = |findings: &[Finding], expected: u8| assert_eq!(exit_status(findings), expected);
        check(&[], 0);
        check(&[ok()], 0);
        check(&[ok(), low()], 1);
        check(&[ok(), unread()], 2);
        check(&[unread(), low()], 1);
        check(&[finding(Reading::Number(1), Want::AtMost(0), State::High)], 1);
        check(&[finding(Reading::Word("a".into()), Want::Word("b"), State::Wrong)], 1);
    }

    #[test]
    fn text_is_columns_and_a_verdict() {
        assert_eq!(
            text(&[ok(), unread(), low()]),
            "knob       have  want  state         why\n\
             knob.name  7     >= 7  ok            because\n\
             knob.name  none  <= 0  not readable  because\n\
             knob.name  6     >= 7  low           because\n\
             1 not as wanted, 1 not readable; see tuning/README.md\n"
        );
        assert!(text(&[ok()]).ends_with("\nall as wanted\n"));
    }

    #[test]
    fn json_has_numbers_as_numbers() {
        let value: Value = serde_json::from_str(&json(&[low(), unread()])).unwrap();
        assert_eq!(
            value,
            json!([
                { "name": "knob.name", "have": 6, "want": { "at_least": 7 }, "state": "low", "why": "because" },
                { "name": "knob.name", "have": null, "want": { "at_most": 0 }, "state": "not readable", "why": "because" },
            ])
        );
    }
}
