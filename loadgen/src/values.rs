//! Values of the command line that have a form of their own.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// A share of events between 0 and 1.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd)]
pub struct Share(pub f64);

impl FromStr for Share {
    type Err = String;

    fn from_str(text: &str) -> Result<Share, String> {
        let cure = || format!("`{text}` is no share of events; write 0.001 or 0.1%");
        let (digits, divisor) = match text.strip_suffix('%') {
            Some(digits) => (digits, 100.0),
            None => (text, 1.0),
        };
        let share = digits.trim().parse::<f64>().map_err(|_| cure())? / divisor;
        if (0.0..=1.0).contains(&share) { Ok(Share(share)) } else { Err(cure()) }
    }
}

impl fmt::Display for Share {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}%", (self.0 * 1e8).round() / 1e6)
    }
}

/// A set of cores.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cores(pub Vec<usize>);

impl FromStr for Cores {
    type Err = String;

    fn from_str(text: &str) -> Result<Cores, String> {
        let cure = || format!("`{text}` is no list of cores; write 0 or 0-3,6");
        let mut cores = BTreeSet::new();
        for part in text.split(',') {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let first: usize = first.trim().parse().map_err(|_| cure())?;
            let last: usize = last.trim().parse().map_err(|_| cure())?;
            if first > last || last >= 1024 {
                return Err(cure());
            }
            cores.extend(first..=last);
        }
        Ok(Cores(cores.into_iter().collect()))
    }
}

/// A duration with or without its unit; seconds if it has none.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, String> {
    let cure = || format!("`{text}` is no time; write 10, 10s, 500ms or 2m");
    let digits = text.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
    let seconds_each = match &text[digits.len()..] {
        "" | "s" => 1.0,
        "ms" => 0.001,
        "m" | "min" => 60.0,
        _ => return Err(cure()),
    };
    let seconds = digits.parse::<f64>().map_err(|_| cure())? * seconds_each;
    if seconds.is_finite() && (0.0..=86_400.0).contains(&seconds) {
        Ok(Duration::from_secs_f64(seconds))
    } else {
        Err(cure())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_durations_and_cores_are_read_as_they_are_written() {
        for (text, expected) in
            [("0", Some(0.0)), ("0.1%", Some(0.001)), ("0.25", Some(0.25)), ("2", None), ("x", None)]
        {
            assert_eq!(text.parse::<Share>().ok().map(|share| share.0), expected, "{text}");
        }
        for (text, milliseconds) in
            [("10", Some(10_000)), ("1.5s", Some(1_500)), ("2m", Some(120_000)), ("7ms", Some(7))]
        {
            assert_eq!(parse_duration(text).ok().map(|time| time.as_millis()), milliseconds, "{text}");
        }
        for wrong in ["", "-1", "1h", "s", "NaN", "1e9"] {
            assert!(parse_duration(wrong).unwrap_err().contains("500ms"), "{wrong}");
        }
        for (text, cores) in
            [("0", Some(vec![0])), ("0-2,5", Some(vec![0, 1, 2, 5])), ("3-1", None), ("", None)]
        {
            assert_eq!(text.parse::<Cores>().ok().map(|cores| cores.0), cores, "{text}");
        }
    }
}
