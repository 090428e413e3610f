//! The body of the fuzz target `ossec_conf`, with what it asserts: it takes any bytes and must return.

use super::{InternalOptions, OssecConf};
use crate::settings::{ListenerKind, Product};

/// An ossec.conf, and with it an internal_options.conf.
///
/// # Panics
/// If a line that an operator would see forges another, if a line's number is not one of the file's, or if a listener
/// has rules that are not its kind's.
pub fn ossec_conf(bytes: &[u8]) {
    let lines = 1 + bytes.iter().filter(|byte| **byte == b'\n').count();
    let shown = |line: usize, text: &str| {
        assert!((1..=lines).contains(&line), "line {line} of {lines}");
        assert!(!text.contains(char::is_control), "{text:?}");
    };
    match InternalOptions::parse(bytes) {
        Err(error) => shown(error.line, &error.problem),
        Ok(options) => options.remarks.iter().for_each(|remark| shown(remark.line, &remark.text)),
    }
    let conf = match OssecConf::parse(bytes) {
        Err(error) => return shown(error.line, &error.problem),
        Ok(conf) => conf,
    };
    conf.unused.iter().for_each(|unused| shown(unused.line, &unused.name));
    for product in [Product::Ossec, Product::Wazuh] {
        let remarks = conf.listener_remarks(product);
        conf.remarks.iter().chain(&remarks).for_each(|remark| shown(remark.line, &remark.text));
        let listeners = conf.listeners(product, "etc/ossec.conf");
        assert_eq!(listeners.len(), conf.remotes.len());
        for listener in listeners {
            assert!(listener.transports.udp || listener.transports.tcp);
            assert_ne!(listener.address.port(), 0);
            let has_rules = !listener.allowed.is_empty() || !listener.denied.is_empty();
            assert!(listener.kind == ListenerKind::Syslog || !has_rules);
            shown(1, &listener.to_string());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use proptest::prelude::*;

    use super::ossec_conf;

    /// Every file of the corpus, and each file's every beginning.
    #[test]
    fn corpus() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus/ossec_conf");
        let mut files = 0;
        for entry in std::fs::read_dir(&folder).unwrap() {
            let bytes = std::fs::read(entry.unwrap().path()).unwrap();
            for length in (0..=bytes.len()).rev().take(1_500) {
                ossec_conf(&bytes[..length]);
            }
            files += 1;
        }
        assert!(files >= 5, "{} has {files} files", folder.display());
    }

    /// Pieces that mean something to the reader, in any order.
    fn pieces() -> impl Strategy<Value = Vec<u8>> {
        let words: Vec<&'static str> = vec![
            "<ossec_config>",
            "</ossec_config>",
            "<remote>",
            "</remote>",
            "<global>",
            "</global>",
            "<connection>",
            "</connection>",
            "secure",
            "syslog",
            "<port>",
            "</port>",
            "1514",
            "<allowed-ips>",
            "</allowed-ips>",
            "any",
            "<!--",
            "-->",
            "<!",
            "!>",
            "!",
            "-",
            "<",
            ">",
            "/>",
            "\\",
            "&",
            ";",
            "&#0;",
            "&#x110000;",
            "&lt;",
            "<?",
            "?>",
            "<![CDATA[",
            "]]>",
            "\"",
            "'",
            "=",
            " ",
            "\n",
            "\r",
            "\0",
            "\u{202e}",
            "remoted.verify_msg_id=",
            "1",
        ];
        prop::collection::vec(prop::sample::select(words), 0..60)
            .prop_map(|words| words.concat().into_bytes())
    }

    proptest! {
        #[test]
        fn any_bytes_return(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            ossec_conf(&bytes);
        }

        #[test]
        fn any_pieces_return(bytes in pieces()) {
            ossec_conf(&bytes);
        }
    }
}
