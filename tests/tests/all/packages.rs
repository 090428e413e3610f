//! What is shipped beside the programs: units and packages, held to what there is.

use std::path::{Path, PathBuf};

/// Programs with a package of their own beside the manager's, and their units.
const PACKAGES: [(&str, &str, &[&str]); 2] = [
    ("agent", "ringmaster-agent", &["ringmaster-agent"]),
    ("broker", "ringmaster-broker", &["ringmaster-broker-client", "ringmaster-broker-server"]),
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn shipped(file: &str) -> String {
    std::fs::read_to_string(root().join(file)).unwrap_or_else(|error| panic!("{file}: {error}"))
}

#[test]
fn all_files_of_the_packages_are_there_or_built() {
    let built = shipped("tuning/debian/build.sh");
    for (folder, program, units) in PACKAGES {
        let manifest: toml::Table = shipped(&format!("{folder}/Cargo.toml")).parse().unwrap();
        let package = &manifest["package"]["metadata"]["deb"];
        let pairs: Vec<(String, String)> = package["assets"]
            .as_array()
            .unwrap()
            .iter()
            .map(|asset| (asset[0].as_str().unwrap().to_owned(), format!("/{}", asset[1].as_str().unwrap())))
            .collect();
        let made = format!("package/{program}/");
        for (from, _) in &pairs {
            let is_there = match from.strip_prefix("target/release/") {
                Some(name) if name == program => true,
                // `man/*.1` and `completions/SHELL`
                Some(name) => name
                    .strip_prefix(&made)
                    .and_then(|name| name.split('/').next())
                    .is_some_and(|kind| built.contains(&format!("$made/{kind}"))),
                None => root().join(folder).join(from).is_file(),
            };
            assert!(is_there, "{program}: {from}");
        }
        for unit in units {
            let from = format!("../tuning/systemd/{unit}.service");
            assert!(pairs.iter().any(|(one, _)| *one == from), "{program} brings {unit}.service");
        }
        for file in package["conf-files"].as_array().unwrap().iter().map(|file| file.as_str().unwrap()) {
            let brings = |(from, to): &(String, String)| {
                to == file
                    || (to.ends_with('/')
                        && Some(format!("{to}{}", from.rsplit('/').next().unwrap())) == Some(file.to_owned()))
            };
            assert!(pairs.iter().any(brings), "{program}: {file} is in the package");
        }
        for script in ["postinst", "prerm", "postrm"] {
            let text = shipped(&format!("tuning/debian/{folder}/{script}"));
            assert!(text.starts_with("#!/bin/sh\n") && text.contains("\nset -e\n"), "{folder}/{script}");
        }
    }
    assert!(built.contains("daemon agent broker"), "all are built");
}

/// What every unit takes away from its program, whatever the program is.
#[test]
fn all_units_are_as_narrow_as_the_managers() {
    let is_narrowing = |line: &&str| {
        const EACH_ITS_OWN: [&str; 2] = ["RestrictAddressFamilies=", "PrivateNetwork="];
        [
            "Protect",
            "Private",
            "Restrict",
            "Lock",
            "MemoryDeny",
            "NoNew",
            "SystemCallArch",
            "SystemCallError",
            "UMask",
        ]
        .iter()
        .any(|start| line.starts_with(start))
            && !EACH_ITS_OWN.iter().any(|start| line.starts_with(start))
    };
    let manager = shipped("tuning/systemd/ringmaster.service");
    let narrowing: Vec<&str> = manager.lines().filter(is_narrowing).collect();
    assert!(narrowing.len() > 15, "{narrowing:?}");
    for (_, program, units) in PACKAGES {
        for unit in units {
            let text = shipped(&format!("tuning/systemd/{unit}.service"));
            // Restart is no restriction.
            for line in narrowing.iter().filter(|line| !line.starts_with("Restart")) {
                assert!(text.lines().any(|one| one == *line), "{unit}.service has no line {line}");
            }
            for line in ["Type=notify", "SystemCallFilter=@system-service", "Restart=on-failure"] {
                assert!(text.lines().any(|one| one == line), "{unit}.service has no line {line}");
            }
            let start = format!("ExecStart=/usr/bin/{program} ");
            assert!(text.lines().any(|line| line.starts_with(&start)), "{unit}.service starts {program}");
            assert!(text.contains("CapabilityBoundingSet="), "{unit}.service names its capabilities");
        }
    }
}
