//! The log lines of the fleet: realistic, all different, and each says whose it is.
//!
//! ```text
//! 1:/var/log/auth.log:Nov 22 01:02:03 web-17 sshd[4711]: Failed password for ... lg=RRRRRRRR.AAAAAA.SSSSSSSS.HHHHHHHH
//! | |                 |                                                          |        |      |        |
//! | location          line                                                       run      agent  sequence hash
//! queue
//! ```
//! The mark has a fixed width and ends the line, so that a reader finds it from the end whatever the manager wrote
//! before it. The hash covers the bytes before it: a line that was mixed with another one does not pass.

use std::fmt::Write as _;

use crate::plan::mix;

/// Shortest text of an event: location, mark, and a few bytes for the hash to cover.
pub const BYTES_MIN: u32 = 96;

const MARK: &[u8] = b" lg=";
/// The mark up to and without the last dot and the hash.
const MARK_NAMED_BYTES: usize = MARK.len() + 8 + 1 + 6 + 1 + 8;
const MARK_BYTES: usize = MARK_NAMED_BYTES + 1 + 8;
/// The longest location of [`start_line`], with its colon.
const LOCATION_BYTES_MAX: usize = 26;
const _: () = assert!(MARK_BYTES + LOCATION_BYTES_MAX + 2 < BYTES_MIN as usize);

/// Which run, agent and event a line says it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark {
    /// The run: lines of another one are not ours.
    pub run: u32,
    /// Index of the agent in the fleet.
    pub agent: u32,
    /// The agent's event, counted from 0.
    pub sequence: u64,
}

/// What a reader makes of some bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    /// A line of ours, unharmed.
    Ours(Mark),
    /// A line with our mark and run whose bytes before the mark are not what was sent.
    Corrupt,
    /// Anything else: what agents say by themselves, another run's lines.
    Foreign,
}

/// Makes and reads the lines of one run.
#[derive(Debug, Clone)]
pub struct Lines {
    run: u32,
    seed: u64,
    bytes: usize,
}

impl Lines {
    /// Lines of `bytes` bytes (the text of an event, queue and location included) for one run.
    ///
    /// # Panics
    /// If `bytes` is below [`BYTES_MIN`], which the command line refuses.
    pub fn new(run: u32, seed: u64, bytes: u32) -> Lines {
        assert!(bytes >= BYTES_MIN, "{bytes} bytes do not hold the marks of a line");
        Lines { run, seed, bytes: bytes as usize }
    }

    /// Writes the text of one event over `out`: the same for the same run, seed, agent and sequence.
    pub fn write(&self, agent: u32, sequence: u64, out: &mut String) {
        let mut chance = Chance(mix(self.seed ^ mix((u64::from(agent) << 32) | sequence)));
        out.clear();
        start_line(&mut chance, agent, sequence, out);
        let body_bytes = self.bytes - MARK_BYTES;
        while out.len() < body_bytes {
            add_field(&mut chance, out);
        }
        out.truncate(body_bytes);
        let mark = Mark { run: self.run, agent, sequence };
        write!(out, " lg={:08x}.{:06}.{:08}", mark.run, mark.agent, mark.sequence)
            .expect("a String takes everything");
        let hash = self.hash(out.as_bytes(), mark);
        write!(out, ".{hash:08x}").expect("a String takes everything");
        debug_assert_eq!(out.len(), self.bytes);
    }

    /// Finds the mark in what a manager wrote: a queue datagram, a line of archives.log or of archives.json.
    pub fn find(&self, written: &[u8]) -> Found {
        let Some(at) = mark_at(written) else { return Found::Foreign };
        let Some((mark, hash)) = parse_mark(&written[at..]) else { return Found::Foreign };
        if mark.run != self.run {
            return Found::Foreign;
        }
        if self.hash(&written[..at + MARK_NAMED_BYTES], mark) == hash {
            Found::Ours(mark)
        } else {
            Found::Corrupt
        }
    }

    /// Hash of the line's bytes before the mark, as far as no manager writes anything between them.
    fn hash(&self, written: &[u8], mark: Mark) -> u32 {
        let covered_bytes = self.bytes - MARK_BYTES - LOCATION_BYTES_MAX - 2;
        let end = written.len() - MARK_NAMED_BYTES;
        let Some(start) = end.checked_sub(covered_bytes) else { return 0 };
        let mut hash = (u64::from(mark.agent) << 32) | mark.sequence;
        for word in written[start..end].chunks(8) {
            let mut bytes = [0; 8];
            bytes[..word.len()].copy_from_slice(word);
            hash = (hash ^ u64::from_le_bytes(bytes)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
            hash ^= hash >> 32;
        }
        hash as u32 | 1 // never 0, which is what a line that is too short hashes to
    }
}

fn mark_at(written: &[u8]) -> Option<usize> {
    let from_end = |ending: usize| {
        let at = written.len().checked_sub(MARK_BYTES + ending)?;
        written[at..].starts_with(MARK).then_some(at)
    };
    // A NUL or a newline ends what managers write; a JSON line goes on behind it.
    from_end(1).or_else(|| from_end(0)).or_else(|| memchr::memmem::rfind(written, MARK))
}

fn parse_mark(bytes: &[u8]) -> Option<(Mark, u32)> {
    let bytes = bytes.get(MARK.len()..MARK_BYTES)?;
    let dots = [bytes[8], bytes[15], bytes[24]];
    if dots != [b'.'; 3] {
        return None;
    }
    let mark = Mark {
        run: number(&bytes[..8], 16)? as u32,
        agent: number(&bytes[9..15], 10)? as u32,
        sequence: number(&bytes[16..24], 10)?,
    };
    Some((mark, number(&bytes[25..33], 16)? as u32))
}

fn number(digits: &[u8], radix: u64) -> Option<u64> {
    digits.iter().try_fold(0, |sum, digit| {
        let value = u64::from(DIGIT_VALUES[usize::from(*digit)]);
        (value < radix).then(|| sum * radix + value)
    })
}

/// The value of each byte as a digit, 255 if it is none: a reader looks up thirty an event.
const DIGIT_VALUES: [u8; 256] = {
    let mut values = [255; 256];
    let mut value = 0;
    while value < 16 {
        values[b"0123456789abcdef"[value as usize] as usize] = value;
        values[b"0123456789ABCDEF"[value as usize] as usize] = value;
        value += 1;
    }
    values
};

/// The chance of one line.
struct Chance(u64);

impl Chance {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = mix(self.0);
        self.0 % bound
    }

    fn pick<'w>(&mut self, words: &[&'w str]) -> &'w str {
        words[self.below(words.len() as u64) as usize]
    }
}

const USERS: &[&str] =
    &["root", "admin", "deploy", "oracle", "git", "www-data", "postgres", "backup", "jenkins", "test"];
const PATHS: &[&str] = &[
    "/index.html",
    "/api/v1/login",
    "/static/app.js",
    "/wp-login.php",
    "/health",
    "/images/logo.png",
    "/search",
    "/cart",
];
const AGENTS_OF_USERS: &[&str] =
    &["Mozilla/5.0 (X11; Linux x86_64)", "curl/8.5.0", "Go-http-client/1.1", "python-requests/2.32"];
const FIELDS: &[&str] = &[
    "session", "request", "duration", "bytes", "thread", "queue", "pid", "tty", "uid", "status", "peer",
    "zone",
];

/// The beginning of a line as one of the programs that agents watch most writes it.
fn start_line(chance: &mut Chance, agent: u32, sequence: u64, out: &mut String) {
    let second = sequence % 86_400;
    let clock = format!("Nov 22 {:02}:{:02}:{:02} web-{agent}", second / 3600, second / 60 % 60, second % 60);
    let address = format!("203.0.{}.{}", chance.below(114), chance.below(255));
    let (pid, port) = (chance.below(32_000) + 300, chance.below(28_000) + 32_768);
    let user = chance.pick(USERS);
    let written = match chance.below(6) {
        0 => write!(
            out,
            "1:/var/log/auth.log:{clock} sshd[{pid}]: Failed password for {user} from {address} port {port} ssh2"
        ),
        1 => write!(
            out,
            "1:/var/log/auth.log:{clock} sshd[{pid}]: Accepted publickey for {user} from {address} port {port} ssh2"
        ),
        2 => write!(
            out,
            "1:/var/log/auth.log:{clock} sudo[{pid}]: {user} : TTY=pts/{} ; PWD=/home/{user} ; USER=root ;",
            pid % 9
        ),
        3 => write!(
            out,
            "1:/var/log/nginx/access.log:{address} - {user} [22/Nov/2026:{:02}:{:02}:{:02} +0000] GET {}?id={port} {} {}",
            second / 3600,
            second / 60 % 60,
            second % 60,
            chance.pick(PATHS),
            200 + chance.below(304),
            chance.pick(AGENTS_OF_USERS),
        ),
        4 => write!(
            out,
            "1:/var/log/kern.log:{clock} kernel: [{pid}.{port}] IN=eth0 OUT= SRC={address} DST=192.0.2.{} PROTO=TCP SPT={port}",
            agent % 250,
        ),
        _ => write!(
            out,
            "1:/var/log/syslog:{clock} postfix/smtpd[{pid}]: connect from unknown[{address}] helo={user}.example"
        ),
    };
    written.expect("a String takes everything");
}

fn add_field(chance: &mut Chance, out: &mut String) {
    let name = chance.pick(FIELDS);
    let value = match chance.below(4) {
        0 => chance.below(100_000_000) as f64 / 1000.0,
        _ => chance.below(65_536) as f64,
    };
    write!(out, " {name}={value}").expect("a String takes everything");
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    fn lines(bytes: u32) -> Lines {
        Lines::new(0xC0FF_EE01, 3, bytes)
    }

    #[test]
    fn lines_have_their_length_are_all_different_and_say_whose_they_are() {
        for bytes in [BYTES_MIN, 97, 200, 600, 6_016] {
            let lines = lines(bytes);
            let mut line = String::new();
            let mut seen = HashSet::new();
            for agent in [0, 1, 19_999, 999_999] {
                for sequence in [0, 1, 86_399, 99_999_999] {
                    lines.write(agent, sequence, &mut line);
                    assert_eq!(line.len(), bytes as usize);
                    assert_eq!(&line[..2], "1:");
                    let mark = Mark { run: 0xC0FF_EE01, agent, sequence };
                    assert_eq!(lines.find(line.as_bytes()), Found::Ours(mark));
                    assert!(seen.insert(line.clone()));
                    assert!(
                        line.bytes()
                            .all(|byte| (b' '..=b'~').contains(&byte) && byte != b'"' && byte != b'\\')
                    );
                }
            }
        }
    }

    #[test]
    fn the_mark_is_found_in_every_form_a_manager_writes() {
        let lines = lines(200);
        let mut line = String::new();
        lines.write(17, 4, &mut line);
        let rest = &line[2..];
        let (location, text) = rest.split_once(':').unwrap();
        let ours = Found::Ours(Mark { run: 0xC0FF_EE01, agent: 17, sequence: 4 });
        let forms = [
            format!("1:(agent-17) any->{rest}\0"),
            format!("1:[017] (agent-17) any->{rest}\0"),
            format!("2026 Nov 22 01:33:08 (agent-17) any->{location} {text}\n"),
            format!(r#"{{"agent":{{"id":"017"}},"full_log":"{text}","location":"{location}"}}"#) + "\n",
        ];
        for form in forms {
            assert_eq!(lines.find(form.as_bytes()), ours, "{form}");
        }
    }

    #[test]
    fn harm_is_seen_and_strangers_are_not_taken_for_ours() {
        let lines = lines(200);
        let mut line = String::new();
        lines.write(17, 4, &mut line);
        let other_run = Lines::new(1, 3, 200);
        assert_eq!(other_run.find(line.as_bytes()), Found::Foreign);
        for at in 60..200 {
            let mut harmed = line.clone().into_bytes();
            harmed[at] ^= 1;
            assert!(!matches!(lines.find(&harmed), Found::Ours(_)), "byte {at}");
        }
        for stranger in
            [&b""[..], b"1:ossec:ossec: Agent started: 'a->any'.", b" lg=", &line.as_bytes()[..199]]
        {
            assert_eq!(lines.find(stranger), Found::Foreign);
        }
        assert_eq!(lines.find(&line.as_bytes()[100..]), Found::Corrupt, "the line's beginning is gone");
    }
}
