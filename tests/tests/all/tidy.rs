//! Rules that matter, checked: the directions of dependencies, the size of files, and what must not be in them.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use cargo_metadata::{DependencyKind, MetadataCommand};

const FILE_LINES_MAX: usize = 600;

/// Who may use whom, as docs/ARCHITECTURE.md draws it. Dependencies of tests alone are free.
fn allowed(user: &str) -> &'static [&'static str] {
    match user {
        "codec" | "uring" | "spool" => &[],
        "manager" => &["codec"],
        "agent" | "broker" => &["codec", "spool"],
        "daemon" => &["manager", "uring", "codec"],
        "loadgen" => &["agent", "uring", "codec", "daemon", "spool"],
        "bench" => &["codec", "manager", "agent", "uring"],
        "tests" => &["codec", "uring", "spool", "manager", "agent", "daemon", "broker", "loadgen", "bench"],
        _ => panic!("{user} is not in the list: draw its place in docs/ARCHITECTURE.md and add it here"),
    }
}

#[test]
fn dependencies_point_one_way() {
    let manifest = root().join("Cargo.toml");
    let metadata =
        MetadataCommand::new().manifest_path(manifest).no_deps().other_options(offline()).exec().unwrap();
    assert!(metadata.packages.len() >= 8, "all members are looked at");
    for package in &metadata.packages {
        let user = package.name.strip_prefix("ringmaster-").expect("packages are named ringmaster-*");
        let used =
            package.dependencies.iter().filter(|dependency| dependency.kind != DependencyKind::Development);
        for used in used.filter_map(|dependency| dependency.name.strip_prefix("ringmaster-")) {
            assert!(allowed(user).contains(&used), "{user} must not depend on {used}");
        }
    }
}

/// A meter must not share a bug with what it measures: loadgen knows the daemon for its embedded start only.
#[test]
fn loadgen_knows_the_daemon_in_one_file() {
    let users: Vec<_> = sources()
        .into_iter()
        .filter(|(path, text)| path.starts_with("loadgen") && text.contains("daemon::"))
        .map(|(path, _)| path)
        .collect();
    assert!(users.len() <= 1, "{users:?}");
}

/// docs/COMPATIBILITY.md promises a test for each row: the last cell of a row names a function that is there.
#[test]
fn every_row_of_compatibility_names_its_test() {
    let page = std::fs::read_to_string(root().join("docs/COMPATIBILITY.md")).unwrap();
    let sources = sources();
    let rows = page.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| feature"));
    let mut count = 0;
    for row in rows {
        let cell = row.trim_end_matches([' ', '|']).rsplit('|').next().unwrap().trim();
        let test = cell.trim_matches('`');
        let function = format!("fn {test}(");
        assert!(sources.iter().any(|(_, text)| text.contains(&function)), "no test {cell} for: {row}");
        count += 1;
    }
    assert!(count > 30, "the tables are read: {count} rows");
}

#[test]
fn files_are_short() {
    for (path, text) in sources() {
        let lines = text.lines().count();
        assert!(lines <= FILE_LINES_MAX, "{} has {lines} lines: split it", path.display());
    }
}

#[test]
fn nothing_is_left_undone() {
    // Written so that this file does not find itself.
    for marker in [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("XX", "X:"), concat!("#[ig", "nore")] {
        for (path, text) in sources() {
            assert!(!text.contains(marker), "{} has the marker {marker}", path.display());
        }
    }
}

#[test]
fn unsafe_is_in_uring_and_where_the_codec_asks_the_processor() {
    for (path, text) in sources() {
        let is_rust = path.extension().is_some_and(|extension| extension == "rs");
        if !is_rust || path.starts_with("uring") || path == Path::new("codec/src/fast/cpu.rs") {
            continue;
        }
        let unsafe_lines =
            text.lines().map(str::trim_start).filter(|line| !line.starts_with("//")).filter(|line| {
                ["fn", "impl", "{", "extern"]
                    .iter()
                    .any(|what| line.contains(&format!("{} {what}", "unsafe")))
            });
        assert_eq!(
            unsafe_lines.count(),
            0,
            "{} has unsafe code; it belongs into uring, or codec/src/fast/cpu.rs",
            path.display()
        );
    }
}

#[test]
fn no_path_of_a_development_machine() {
    let paths =
        [concat!("/wo", "rk/"), concat!("/tmp/", "wt/"), concat!("/ro", "ot/"), concat!("/tmp/", "plan")];
    for (path, text) in sources() {
        for foreign in paths {
            assert!(!text.contains(foreign), "{} names {foreign}", path.display());
        }
    }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("the package is a folder of the workspace")
        .to_owned()
}

/// The test needs no registry: a fresh machine has it, an offline one not.
fn offline() -> Vec<String> {
    vec!["--offline".to_owned()]
}

/// Every text of ours below the root, with its path from there.
fn sources() -> Vec<(PathBuf, String)> {
    let extensions: BTreeSet<&str> =
        ["rs", "toml", "md", "sh", "yml", "conf", "service", "socket"].into_iter().collect();
    let (mut folders, mut found) = (vec![root()], Vec::new());
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            let is_made = name.starts_with('.') || name == "target" || name.ends_with("-home");
            let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
            if path.is_dir() && !is_made {
                folders.push(path);
            } else if extensions.contains(extension) {
                let text = std::fs::read_to_string(&path).unwrap();
                found.push((path.strip_prefix(root()).unwrap().to_owned(), text));
            }
        }
    }
    assert!(found.len() > 20, "the sources are found");
    found
}
