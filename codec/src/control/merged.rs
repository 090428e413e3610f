//! merged.mg: all shared files of a group in one, as a manager sends it and an agent takes it apart.
//!
//! ```text
//! [ "#" group NL ]                          Wazuh only
//! "!" size SP name NL | content: size |     for each file
//! ```

use super::SharedName;
use crate::text::decimal;
use std::fmt;
use std::io::Write;

/// A merged.mg, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Merged<'a> {
    /// The group that the files are for; Wazuh only.
    pub group: Option<&'a [u8]>,
    /// The files, in order.
    pub files: Vec<SharedFile<'a>>,
}

/// One shared file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SharedFile<'a> {
    /// Its name, which can't leave a folder.
    pub name: SharedName<'a>,
    /// All of it.
    pub content: &'a [u8],
}

impl<'a> Merged<'a> {
    /// Takes a merged.mg apart: all of it, or nothing.
    ///
    /// # Errors
    /// If a file's line is none, if its name could leave its folder (CVE-2026-48024), or if content is missing.
    ///
    /// Source: ossec-hids 4.3.0 and wazuh v4.14.7 `shared/file_op.c`, `UnmergeFiles`.
    pub fn parse(bytes: &'a [u8]) -> Result<Merged<'a>, MergedError> {
        let (group, mut rest) = match bytes.strip_prefix(b"#") {
            Some(after) => {
                let (group, rest) = line(after).ok_or(MergedError::Line)?;
                (Some(group), rest)
            }
            None => (None, bytes),
        };
        let mut files = Vec::new();
        while !rest.is_empty() {
            let (header, after) = rest.strip_prefix(b"!").and_then(line).ok_or(MergedError::Line)?;
            let (digits, name) = super::to_agent::split_at_space(header);
            let length = decimal(digits).ok_or(MergedError::Line)? as usize;
            let name = SharedName::new(name).map_err(|_| MergedError::Name)?;
            let (content, after) = after.split_at_checked(length).ok_or(MergedError::CutOff)?;
            files.push(SharedFile { name, content });
            rest = after;
        }
        Ok(Merged { group, files })
    }

    /// Appends the merged.mg.
    ///
    /// # Panics
    /// If the group's name holds a newline: the caller's mistake.
    ///
    /// Source: ossec-hids 4.3.0 and wazuh v4.14.7 `shared/file_op.c`, `MergeAppendFile`.
    pub fn write(&self, out: &mut Vec<u8>) {
        if let Some(group) = self.group {
            assert!(!group.contains(&b'\n'), "a group's name is one line");
            out.push(b'#');
            out.extend_from_slice(group);
            out.push(b'\n');
        }
        for SharedFile { name, content } in &self.files {
            write!(out, "!{} ", content.len()).expect("writing to a Vec can't fail");
            out.extend_from_slice(name.as_bytes());
            out.push(b'\n');
            out.extend_from_slice(content);
        }
    }
}

/// What stands before the first newline, and what after it; `None` if there is none.
fn line(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = bytes.iter().position(|byte| *byte == b'\n')?;
    Some((&bytes[..end], &bytes[end + 1..]))
}

/// Why a file is no merged.mg.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MergedError {
    /// It ends before a file's content does.
    CutOff,
    /// Where a file's line `!size name` should be, something else is.
    Line,
    /// A file's name is empty, too long, or could leave its folder.
    Name,
}

impl fmt::Display for MergedError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            MergedError::CutOff => "merged.mg ends before a file's content does",
            MergedError::Line => "merged.mg has no line '!size name' where one should be",
            MergedError::Name => {
                "merged.mg has a file whose name is empty, too long, or could leave its folder"
            }
        })
    }
}

impl std::error::Error for MergedError {}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_is_none() {
        let check = |bytes: &[u8], expected| {
            assert_eq!(Merged::parse(bytes).map(|merged| merged.files.len()), expected);
        };
        check(b"", Ok(0));
        check(b"#default\n", Ok(0));
        check(b"!0 a\n!1 b\nx", Ok(2));
        check(b"#default", Err(MergedError::Line));
        check(b"!1 a", Err(MergedError::Line));
        check(b"!1 a\n", Err(MergedError::CutOff));
        check(b"!4294967295 a\nx", Err(MergedError::CutOff));
        check(b"!-1 a\nx", Err(MergedError::Line));
        check(b"!1 a\nxrest", Err(MergedError::Line));
        check(b"! a\n", Err(MergedError::Line));
        for name in ["../a", "a/b", "..", "", "a\\b", "\x1b"] {
            check(format!("!1 {name}\nx").as_bytes(), Err(MergedError::Name));
        }
    }

    proptest! {
        #[test]
        fn merged_files_come_back(
            group in prop::option::of("[a-z]{0,8}"),
            files in prop::collection::vec(("[a-z_]{1,9}[.][a-z]{1,3}", prop::collection::vec(any::<u8>(), 0..60)), 0..5),
        ) {
            let files = files.iter().map(|(name, content)| {
                SharedFile { name: SharedName::new(name.as_bytes()).unwrap(), content }
            });
            let merged = Merged { group: group.as_deref().map(str::as_bytes), files: files.collect() };
            let mut bytes = Vec::new();
            merged.write(&mut bytes);
            prop_assert_eq!(Merged::parse(&bytes), Ok(merged));
        }
    }
}
