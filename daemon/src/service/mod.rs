//! What makes a program a daemon: whose rights it has, what it may touch, how others find it, who hands it its sockets.
//!
//! ```text
//! privileges    bind as root, then become the installation's user; no capabilities, no new privileges
//! confinement   Landlock: the installation's folders and nothing else
//! pid_file      var/run/<program>-<pid>.pid, and whether a remoted runs already
//! as_remoted    called as `ossec-remoted`: its options, and into the background as ossec-control expects
//! inherited     sockets that systemd has bound for us
//! pages         man pages and shell completions
//! ```

pub mod as_remoted;
mod confinement;
mod inherited;
pub mod pages;
mod pid_file;
mod privileges;

pub use confinement::{Confinement, confine};
pub use inherited::{Inherited, InheritedError};
pub use pid_file::{PidFile, Remoted, running_remoted};
pub use privileges::{Identity, PrivilegeError, drop_to, give_to, no_new_privileges, raise_limits};

#[cfg(test)]
mod tests {
    use std::path::Path;

    fn shipped(file: &str) -> String {
        std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(file)).unwrap()
    }

    #[test]
    fn the_unit_gives_what_the_program_would_take_as_root() {
        let unit = shipped("../tuning/systemd/ringmaster.service");
        let limits = shipped("../tuning/systemd/ringmaster.service.d/limits.conf");
        for limit in limits.lines().filter(|line| line.starts_with("Limit")) {
            assert!(unit.lines().any(|line| line == limit), "ringmaster.service has no line {limit}");
        }
        assert!(limits.contains(&format!("LimitNOFILE={}\n", super::privileges::NOFILE)));
        assert!(limits.contains(&format!("LimitMEMLOCK={}\n", super::privileges::MEMLOCK_BYTES)));
        for call in ["landlock_restrict_self", "pidfd_getfd", "@system-service"] {
            assert!(unit.contains(call), "the unit's filter of system calls lacks {call}");
        }
    }

    #[test]
    fn all_files_of_the_debian_package_are_there_or_built() {
        let manifest: toml::Table = shipped("Cargo.toml").parse().unwrap();
        let package = &manifest["package"]["metadata"]["deb"];
        let assets = package["assets"].as_array().unwrap();
        let built = shipped("../tuning/debian/build.sh");
        assert!(assets.len() > 15, "the list is read");
        for asset in assets {
            let from = asset[0].as_str().unwrap();
            let is_there = match from.strip_prefix("target/release/") {
                Some("ringmaster") => true,
                // `package/man/*.1` and `package/completions/SHELL`
                Some(made) => made.split('/').nth(1).is_some_and(|kind| built.contains(kind)),
                None => Path::new(env!("CARGO_MANIFEST_DIR")).join(from).is_file(),
            };
            assert!(is_there, "{from}");
        }
        let targets: Vec<_> = assets.iter().map(|asset| format!("/{}", asset[1].as_str().unwrap())).collect();
        for file in package["conf-files"].as_array().unwrap() {
            assert!(
                targets.iter().any(|target| target == file.as_str().unwrap()),
                "{file} is in the package"
            );
        }
    }
}
