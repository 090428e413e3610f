//! Whether a home is an installation of OSSEC or of Wazuh, and which.

use std::{
    fs::File,
    io::{self, Read},
    path::Path,
};

use crate::settings::Product;

/// The file that makes a home an installation.
pub const OSSEC_CONF: &str = "etc/ossec.conf";

/// An installation of OSSEC or Wazuh that a home is.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Installation {
    /// Whose.
    pub product: Product,
    /// The socket of its analysisd, below the home.
    pub queue: &'static str,
    /// What tells.
    pub because: &'static str,
}

impl Installation {
    /// Looks at a home. `None` if it has no `etc/ossec.conf`.
    pub fn of(home: &Path) -> Option<Installation> {
        if !home.join(OSSEC_CONF).exists() {
            return None;
        }
        let is_folder = |path: &str| home.join(path).is_dir();
        let (ossec, wazuh) = (is_folder("queue/ossec"), is_folder("queue/sockets"));
        // Written by installers: OSSEC's to this day, Wazuh's before 4.2.
        let init = read_bounded(&home.join("etc/ossec-init.conf"), INIT_BYTES_MAX).ok();
        let says_wazuh =
            |init: &Vec<u8>| String::from_utf8_lossy(init).lines().any(|line| line == "NAME=\"Wazuh\"");
        let (product, because) = if home.join("bin/wazuh-control").exists() {
            (Product::Wazuh, "bin/wazuh-control is there")
        } else if init.as_ref().is_some_and(says_wazuh) {
            (Product::Wazuh, "etc/ossec-init.conf says so")
        } else if init.is_some() {
            (Product::Ossec, "etc/ossec-init.conf says so")
        } else if home.join("bin/ossec-control").exists() {
            (Product::Ossec, "bin/ossec-control is there")
        } else if wazuh && !ossec {
            (Product::Wazuh, "queue/sockets is there")
        } else {
            (Product::Ossec, "etc/ossec.conf is there")
        };
        let queue = match product {
            Product::Wazuh if wazuh || !ossec => "queue/sockets/queue",
            Product::Ossec | Product::Wazuh => "queue/ossec/queue",
        };
        Some(Installation { product, queue, because })
    }
}

/// The longest `etc/ossec-init.conf` that is looked at.
const INIT_BYTES_MAX: usize = 64 << 10;

/// A file's bytes, and one more than `bytes_max` if there are more.
///
/// # Errors
/// When it can't be read.
pub(crate) fn read_bounded(path: &Path, bytes_max: usize) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(bytes_max as u64 + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn products_are_told_apart() {
        let check = |parts: &[&str], init: Option<&str>, expected: Option<(Product, &str)>| {
            let home = tempfile::tempdir().unwrap();
            std::fs::create_dir_all(home.path().join("etc")).unwrap();
            for part in parts {
                let path = home.path().join(part);
                std::fs::create_dir_all(path.parent().unwrap()).unwrap();
                if part.starts_with("queue") {
                    std::fs::create_dir(path).unwrap();
                } else {
                    std::fs::write(path, "").unwrap();
                }
            }
            if let Some(init) = init {
                std::fs::write(home.path().join("etc/ossec-init.conf"), init).unwrap();
            }
            let found = Installation::of(home.path());
            let found = found.as_ref().map(|found| (found.product, found.queue));
            assert_eq!(found, expected, "{parts:?} {init:?}");
        };
        let (ossec, wazuh) = ((Product::Ossec, "queue/ossec/queue"), (Product::Wazuh, "queue/sockets/queue"));
        let ossec_init = "DIRECTORY=\"/var/ossec\"\nVERSION=\"v4.3.0\"\nTYPE=\"server\"\n";
        let wazuh_init = "DIRECTORY=\"/var/ossec\"\nNAME=\"Wazuh\"\nVERSION=\"v4.1.5\"\nTYPE=\"server\"\n";
        check(&["queue/ossec", "queue/sockets", "bin/wazuh-control"], None, None);
        check(&["etc/ossec.conf"], None, Some(ossec));
        check(&["etc/ossec.conf", "queue/ossec"], None, Some(ossec));
        check(&["etc/ossec.conf", "queue/sockets"], None, Some(wazuh));
        check(&["etc/ossec.conf", "queue/sockets", "queue/ossec"], None, Some(ossec));
        check(&["etc/ossec.conf", "queue/sockets", "queue/ossec", "bin/wazuh-control"], None, Some(wazuh));
        check(&["etc/ossec.conf", "queue/sockets", "bin/ossec-control"], None, Some(ossec));
        check(&["etc/ossec.conf", "queue/ossec"], Some(ossec_init), Some(ossec));
        check(
            &["etc/ossec.conf", "queue/ossec"],
            Some(wazuh_init),
            Some((Product::Wazuh, "queue/ossec/queue")),
        );
    }
}
