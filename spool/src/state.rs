//! The file `state`: how far records are forgotten, where numbers went on at the last open, whether the last end was clean,
//! and the session. One line of text, replaced whole.

use std::fs::{self, File};
use std::io::{self, Write};
use std::num::NonZeroU64;
use std::path::Path;

use crate::Sequence;

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct State {
    /// The first record that is not forgotten, as far as is known.
    pub(crate) first: Sequence,
    /// The first number that was free when the spool was opened.
    pub(crate) base: Sequence,
    pub(crate) is_clean: bool,
    /// Whose numbers they are, if somebody wanted to know. A file of an earlier version has none.
    pub(crate) session: Option<NonZeroU64>,
}

/// A spool that is new was never ended badly.
const NEW: State = State { first: Sequence(0), base: Sequence(0), is_clean: true, session: None };
const UNREADABLE: State = State { is_clean: false, ..NEW };

pub(crate) fn read(folder: &Path) -> io::Result<State> {
    match fs::read(folder.join("state")) {
        Ok(bytes) => Ok(parse(&bytes).unwrap_or(UNREADABLE)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(NEW),
        Err(error) => Err(error),
    }
}

/// Replaces it; `sync`: and waits until the disk has it.
pub(crate) fn write(folder: &Path, state: State, sync: bool) -> io::Result<()> {
    let new = folder.join("state.new");
    let mut file = File::create(&new)?;
    file.write_all(line(state).as_bytes())?;
    if sync {
        file.sync_data()?;
    }
    fs::rename(new, folder.join("state"))?;
    if sync { File::open(folder)?.sync_all() } else { Ok(()) }
}

fn line(State { first, base, is_clean, session }: State) -> String {
    let word = if is_clean { "clean" } else { "open" };
    let session = session.map_or_else(String::new, |session| format!(" session {session:016x}"));
    let text = format!("{word} {} {}{session}", first.0, base.0);
    format!("{text} {:08x}\n", crc32fast::hash(text.as_bytes()))
}

fn parse(bytes: &[u8]) -> Option<State> {
    let text = std::str::from_utf8(bytes).ok()?;
    let mut words = text.split_ascii_whitespace();
    let is_clean = words.next()? == "clean";
    let mut number = || words.next()?.parse().ok().filter(|number| *number < 1 << 62).map(Sequence);
    let (first, base) = (number()?, number()?);
    let session = match words.next()? {
        "session" => Some(u64::from_str_radix(words.next()?, 16).ok().and_then(NonZeroU64::new)?),
        _checksum => None,
    };
    // What is written again is the same: so the checksum is right, and nothing stands behind it.
    let state = State { first, base, is_clean, session };
    (line(state) == text).then_some(state)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comes_back_and_a_changed_one_does_not() {
        for (first, base, is_clean, session) in [
            (0, 0, true, None),
            (77, 5, false, NonZeroU64::new(0xfe)),
            (1 << 60, 1 << 61, true, NonZeroU64::new(!0)),
        ] {
            let state = State { first: Sequence(first), base: Sequence(base), is_clean, session };
            let text = line(state);
            assert_eq!(parse(text.as_bytes()), Some(state));
            for at in 0..text.len() {
                let mut changed = text.clone().into_bytes();
                changed[at] ^= 1;
                assert_eq!(parse(&changed), None, "byte {at} of {text}");
                assert_eq!(parse(&text.as_bytes()[..at]), None, "{at} bytes of {text}");
            }
        }
    }

    #[test]
    fn a_file_of_the_version_before_sessions_is_read() {
        let state = State { first: Sequence(77), base: Sequence(5), is_clean: true, session: None };
        assert_eq!(parse(b"clean 77 5 aa17de99\n"), Some(state));
    }
}
