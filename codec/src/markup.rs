//! The markup of ossec.conf: elements, their texts and their lines.
//!
//! What the C programs' reader takes is near XML, not XML: several roots, text beside them, comments that begin with `<!`
//! and end with `!>` or `-->`, `\<` for a `<`, an `&` that means itself. Comments and `\<` are blanked out first, byte for
//! byte, so that every line keeps its number; the rest is quick-xml's. Nothing is ever expanded but the five entities
//! and characters by number, and a document type is refused, so a text is never longer than the file.
//!
//! Source: ossec-hids 4.3.0 `os_xml/os_xml.c`, `_ReadElem` and `_oscomment`.

use quick_xml::{
    Reader,
    events::{BytesRef, Event},
};

use std::fmt;

use crate::text::Escaped;

/// The largest file. The C programs have no bound; the largest real ones have some hundred KiB.
pub const FILE_BYTES_MAX: usize = 8 << 20;
/// How deep elements may lie inside each other; real files have five levels.
const DEPTH_MAX: usize = 32;
/// How many elements a file may have.
const ELEMENTS_MAX: usize = 100_000;
/// The longest text of one element: the C programs' own bound.
const TEXT_BYTES_MAX: usize = 8_192;

/// One element.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Element {
    /// What stands in its tags.
    pub name: String,
    /// What stands between its tags, without what stands in its children, and without blanks around it.
    pub text: String,
    /// The line of its `<`, counted from 1.
    pub line: usize,
    /// The elements inside it, in order.
    pub children: Vec<Element>,
}

/// The roots of a file.
///
/// # Errors
/// When a bound is hit, when a tag is not closed or closed by another, or when there is a document type.
pub fn parse(bytes: &[u8]) -> Result<Vec<Element>, ConfError> {
    if bytes.len() > FILE_BYTES_MAX {
        let problem = format!("more than {} MiB: no ossec.conf is as long", FILE_BYTES_MAX >> 20);
        return Err(ConfError { line: 1, problem });
    }
    // Taken off here, since the reader does not count a byte order mark that it takes off itself.
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let text = blanked(&String::from_utf8_lossy(bytes))?;
    let mut reader = Reader::from_str(&text);
    reader.config_mut().allow_dangling_amp = true;
    let mut lines = Lines { text: &text, at: 0, line: 1 };
    let mut tree = Tree::default();
    loop {
        let line = lines.of(reader.buffer_position());
        let event = match reader.read_event() {
            Ok(event) => event,
            Err(error) => {
                let problem = format!("{}: mend it", shown(&error.to_string()));
                return Err(ConfError { line: lines.of(reader.error_position()), problem });
            }
        };
        match event {
            Event::Start(tag) => tree.open(tag.name().into_inner(), line)?,
            Event::Empty(tag) => {
                tree.open(tag.name().into_inner(), line)?;
                tree.close();
            }
            Event::End(_) => tree.close(),
            Event::Text(text) => tree.write(&text.into_inner(), line)?,
            Event::CData(text) => tree.write(&text.into_inner(), line)?,
            Event::GeneralRef(reference) => tree.write(&meaning(&reference), line)?,
            Event::DocType(_) => return Err(document_type(line)),
            Event::Comment(_) | Event::Decl(_) | Event::PI(_) => {}
            Event::Eof => return tree.finish(),
        }
    }
}

/// Why a file can't be used: the line, and the problem with its cure.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ConfError {
    /// Counted from 1.
    pub line: usize,
    /// One line, whatever the file says.
    pub problem: String,
}

impl std::error::Error for ConfError {}

impl fmt::Display for ConfError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "line {}: {}", self.line, self.problem)
    }
}

/// A text of the file as a line of ours may show it: short, and without control characters.
pub fn shown(text: &str) -> String {
    const CHARACTERS_MAX: usize = 200;
    let cut: String = text.chars().take(CHARACTERS_MAX).collect();
    let dots = if cut.len() < text.len() { "..." } else { "" };
    format!("{}{dots}", Escaped(cut.as_bytes()))
}

/// The elements so far.
#[derive(Default)]
struct Tree {
    roots: Vec<Element>,
    /// From a root down to the innermost.
    open: Vec<Element>,
    elements: usize,
}

impl Tree {
    fn open(&mut self, name: &str, line: usize) -> Result<(), ConfError> {
        self.elements += 1;
        if self.elements > ELEMENTS_MAX {
            return Err(ConfError {
                line,
                problem: format!("more than {ELEMENTS_MAX} elements: take some away"),
            });
        }
        if self.open.len() >= DEPTH_MAX {
            let problem = format!("elements lie more than {DEPTH_MAX} deep inside each other: close them");
            return Err(ConfError { line, problem });
        }
        self.open.push(Element { name: name.to_owned(), line, ..Element::default() });
        Ok(())
    }

    fn write(&mut self, text: &str, line: usize) -> Result<(), ConfError> {
        // Text beside the roots means nothing.
        let Some(element) = self.open.last_mut() else { return Ok(()) };
        // Blanks at the front of a text are never needed, and those between a section's options are many.
        let text = if element.text.is_empty() { text.trim_start() } else { text };
        if element.text.len() + text.len() > TEXT_BYTES_MAX {
            let name = shown(&element.name);
            return Err(ConfError {
                line,
                problem: format!("<{name}> holds more than {TEXT_BYTES_MAX} bytes"),
            });
        }
        element.text.push_str(text);
        Ok(())
    }

    /// The reader has seen that the tags match.
    fn close(&mut self) {
        let Some(mut element) = self.open.pop() else { return };
        element.text.truncate(element.text.trim_end().len());
        match self.open.last_mut() {
            Some(parent) => parent.children.push(element),
            None => self.roots.push(element),
        }
    }

    fn finish(self) -> Result<Vec<Element>, ConfError> {
        match self.open.last() {
            None => Ok(self.roots),
            Some(Element { name, line, .. }) => Err(ConfError {
                line: *line,
                problem: format!("<{0}> is never closed: add </{0}>", shown(name)),
            }),
        }
    }
}

/// What `&name;` stands for: itself, unless it is one of the five or a character by number.
fn meaning(reference: &BytesRef<'_>) -> String {
    if let Ok(Some(character)) = reference.resolve_char_ref() {
        return character.to_string();
    }
    let name: &str = reference;
    match name {
        "amp" => "&".to_owned(),
        "apos" => "'".to_owned(),
        "gt" => ">".to_owned(),
        "lt" => "<".to_owned(),
        "quot" => "\"".to_owned(),
        other => format!("&{other};"),
    }
}

/// The text with a blank for every byte of a comment, and for the `<` of `\<`. Lines stay where they are.
fn blanked(text: &str) -> Result<String, ConfError> {
    let mut kept = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('<') {
        let (before, tag) = rest.split_at(at);
        kept.push_str(before);
        rest = if let Some(comment) = tag.strip_prefix("<!") {
            let line = || 1 + kept.matches('\n').count();
            let opening = comment.trim_start().get(..7).unwrap_or_default();
            if opening.eq_ignore_ascii_case("doctype") || opening.to_ascii_lowercase().starts_with("entity") {
                return Err(document_type(line()));
            }
            let Some(end) = comment_end(comment) else {
                return Err(ConfError {
                    line: line(),
                    problem: "a comment that never ends: add -->".to_owned(),
                });
            };
            let (comment, after) = tag.split_at("<!".len() + end);
            kept.extend(comment.bytes().map(|byte| if byte == b'\n' { '\n' } else { ' ' }));
            after
        } else {
            kept.push(if before.ends_with('\\') { ' ' } else { '<' });
            &tag[1..]
        };
    }
    kept.push_str(rest);
    Ok(kept)
}

/// Behind the first `!>` or `-->`.
fn comment_end(comment: &str) -> Option<usize> {
    let ends = |at: &usize| comment[..*at].ends_with('!') || comment[..*at].ends_with("--");
    comment.match_indices('>').map(|(at, _)| at).find(ends).map(|at| at + 1)
}

fn document_type(line: usize) -> ConfError {
    let problem = "a document type (<!DOCTYPE, <!ENTITY) is never read: take it away".to_owned();
    ConfError { line, problem }
}

/// Byte positions to lines, for positions that only grow.
struct Lines<'a> {
    text: &'a str,
    at: usize,
    line: usize,
}

impl Lines<'_> {
    fn of(&mut self, at: u64) -> usize {
        let at = usize::try_from(at).unwrap_or(usize::MAX).min(self.text.len());
        if at > self.at {
            self.line += self.text.as_bytes()[self.at..at].iter().filter(|byte| **byte == b'\n').count();
            self.at = at;
        }
        self.line
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `name@line=text(children)`, or the error.
    fn show(elements: &[Element]) -> String {
        let one = |element: &Element| {
            let Element { name, text, line, children } = element;
            let children = if children.is_empty() { String::new() } else { format!("({})", show(children)) };
            format!("{name}@{line}={text}{children}")
        };
        elements.iter().map(one).collect::<Vec<_>>().join(" ")
    }

    fn check(text: &[u8], expected: &str) {
        let said = match parse(text) {
            Ok(roots) => show(&roots),
            Err(ConfError { line, problem }) => format!("line {line}: {problem}"),
        };
        assert_eq!(said, expected, "{:?}", String::from_utf8_lossy(text));
    }

    #[test]
    fn what_the_c_programs_read() {
        check(b"", "");
        check(b"<a>\n <b> x </b>\n</a>\nstray\n<a/>", "a@1=(b@2=x) a@5=");
        check(b"\xef\xbb\xbf<?xml version='1.0'?>\n<a k=\"v\" l='>'>x</a>", "a@2=x");
        check(b"<a>1<!-- <b>\n -- \n</b> -->2</a><b/>", "a@1=1        \n    \n        2 b@3=");
        check(b"<a><! old comment !><b>x</b><!-- other !></a>", "a@1=(b@1=x)");
        check(b"<a><b>a && b & c</b><c>\\<d></c></a>", "a@1=(b@1=a && b & c c@1=\\ d>)");
        check(b"<a>&lt;&#65;&#x42;&unknown;&amp;</a>", "a@1=<AB&unknown;&");
        check(b"<a><!-->1<!-- -- !>2<!--->3</a>", "a@1=1          2      3");
        check(b"<a>caf\xe9</a>", "a@1=caf\u{fffd}");
    }

    #[test]
    fn refusals_name_their_line() {
        check(b"<a>\n<b></a>", "line 2: ill-formed document: expected `</b>`, but `</a>` was found: mend it");
        check(b"\n<a>\n<b>", "line 3: <b> is never closed: add </b>");
        check(b"<a>\n<!-- x\n", "line 2: a comment that never ends: add -->");
        check(
            b"<a>\n<!DOCTYPE x [<!ENTITY a \"b\">]></a>",
            "line 2: a document type (<!DOCTYPE, <!ENTITY) is never read: take it away",
        );
        check(
            b"<! entity a -->",
            "line 1: a document type (<!DOCTYPE, <!ENTITY) is never read: take it away",
        );
        let deep = b"<a>\n".repeat(33);
        check(&deep, "line 33: elements lie more than 32 deep inside each other: close them");
        let many = b"<a/>".repeat(100_001);
        check(&many, "line 1: more than 100000 elements: take some away");
        let long = [&b"<a>"[..], &b"x".repeat(8_193), b"</a>"].concat();
        check(&long, "line 1: <a> holds more than 8192 bytes");
        check(&b" ".repeat(FILE_BYTES_MAX + 1), "line 1: more than 8 MiB: no ossec.conf is as long");
        check(&b"<!-->".repeat(50_000), "");
        check(&b"&\\<".repeat(50_000), "");
        check(b"</a>", "line 1: ill-formed document: close tag `</a>` does not match any open tag: mend it");
    }
}
