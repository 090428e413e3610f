//! A certificate of the server's own, and its key.

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use crate::tls::{CERTIFICATE_NAME, Fingerprint};

/// Makes a pair and writes it, the key readable by its user only. Overwrites nothing.
///
/// # Errors
/// If a file is there already, or can't be written.
pub fn make(certificate: &Path, key: &Path) -> Result<Fingerprint, String> {
    let made = rcgen::generate_simple_self_signed(vec![CERTIFICATE_NAME.to_owned()]);
    let made = made.map_err(|error| format!("no certificate could be made: {error}"))?;
    write_new(key, &made.signing_key.serialize_pem(), 0o600)?;
    write_new(certificate, &made.cert.pem(), 0o644)?;
    Ok(Fingerprint::of(made.cert.der()))
}

fn write_new(path: &Path, text: &str, mode: u32) -> Result<(), String> {
    let file = File::options().write(true).create_new(true).mode(mode).open(path);
    let written = file.and_then(|mut file| file.write_all(text.as_bytes()));
    written.map_err(|error| format!("{}: {error}; nothing is overwritten", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn nothing_is_overwritten_and_the_key_is_private() {
        let scratch = tempfile::tempdir().unwrap();
        let (certificate, key) = (scratch.path().join("c.pem"), scratch.path().join("k.pem"));
        make(&certificate, &key).unwrap();
        assert_eq!(std::fs::metadata(&key).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(make(&certificate, &key).unwrap_err().contains("overwritten"));
    }
}
