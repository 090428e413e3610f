//! ossec.conf and internal_options.conf of an installation, of OSSEC and of Wazuh: what of them concerns the manager.
//!
//! What ossec-remoted or wazuh-remoted refuses is refused; what they ignore with a warning is ignored with a remark. The
//! sections of other daemons are theirs to judge: they are skipped.

#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
mod installation;
mod internal_options;
mod remote;

use std::ops::Range;

pub(crate) use installation::read_bounded;
pub use installation::{Installation, OSSEC_CONF};
pub use internal_options::{INTERNAL_OPTIONS, InternalOptions, LOCAL_INTERNAL_OPTIONS};
pub use remote::Remote;

pub use codec::markup::{ConfError, FILE_BYTES_MAX};

use crate::settings::SILENCE_DEADLINE_SECONDS;
use codec::markup::{self, Element, shown};

/// What an ossec.conf says to the manager.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct OssecConf {
    /// Its `<remote>` blocks, in order.
    pub remotes: Vec<Remote>,
    /// `<logall>` of `<global>`: whether archives.log is written.
    pub logall: Option<Flag>,
    /// `<logall_json>` of `<global>`: whether archives.json is written.
    pub logall_json: Option<Flag>,
    /// `<agents_disconnection_time>` of `<global>`, which only Wazuh knows: the silence after which an agent counts as gone.
    pub disconnection: Option<Seconds>,
    /// What is ignored although it is said, each with its line.
    pub remarks: Vec<Remark>,
    /// What is understood, and means nothing here.
    pub unused: Vec<Unused>,
}

/// A `yes` or `no`, and where it stands.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Flag {
    /// Whether it is `yes`.
    pub on: bool,
    /// Counted from 1.
    pub line: usize,
}

/// A time, and where it stands.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Seconds {
    /// How long, within what `agents.silence_deadline_seconds` may be.
    pub seconds: u32,
    /// Counted from 1.
    pub line: usize,
}

/// Something that an operator should know of a line.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Remark {
    /// Counted from 1.
    pub line: usize,
    /// What, and what to do.
    pub text: String,
}

/// An option that is understood, and means nothing here.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Unused {
    /// Counted from 1.
    pub line: usize,
    /// As the file calls it.
    pub name: String,
    /// Why it means nothing.
    pub because: &'static str,
}

impl OssecConf {
    /// Reads a file's bytes.
    ///
    /// Source: ossec-hids 4.3.0 `config/config.c`, `ReadConfig` and `read_main_elements`.
    ///
    /// # Errors
    /// When it is no markup, has another root than `<ossec_config>`, or says what can't be of the manager.
    pub fn parse(bytes: &[u8]) -> Result<OssecConf, ConfError> {
        let mut conf = OssecConf::default();
        for root in markup::parse(bytes)? {
            if root.name != "ossec_config" {
                let problem = format!("<{}> is no root of this file: use <ossec_config>", shown(&root.name));
                return Err(ConfError { line: root.line, problem });
            }
            for section in root.children {
                match section.name.as_str() {
                    "global" => conf.read_global(&section)?,
                    "remote" => {
                        let remote = Remote::read(&section, &mut conf)?;
                        conf.remotes.push(remote);
                    }
                    name if SECTIONS.contains(&name) => {}
                    name => conf.remark(
                        section.line,
                        format!("<{}> is no section that OSSEC or Wazuh knows: skipped", shown(name)),
                    ),
                }
            }
        }
        Ok(conf)
    }

    /// What of `<global>` concerns the manager. The rest is analysisd's, monitord's and maild's.
    fn read_global(&mut self, section: &Element) -> Result<(), ConfError> {
        for option in &section.children {
            match option.name.as_str() {
                "agents_disconnection_time" => self.disconnection = Some(time(option)?),
                "logall" => self.logall = Some(flag(option)?),
                "logall_json" => self.logall_json = Some(flag(option)?),
                _ => {}
            }
        }
        Ok(())
    }

    /// Notes what is ignored. A file that is wrong all over says so for its first lines.
    fn remark(&mut self, line: usize, text: String) {
        if self.remarks.len() < REMARKS_MAX {
            self.remarks.push(Remark { line, text });
        }
    }

    fn unused(&mut self, option: &Element, because: &'static str) {
        let name = format!("<{}>", option.name);
        if !self.unused.iter().any(|unused| unused.name == name) {
            self.unused.push(Unused { line: option.line, name, because });
        }
    }
}

/// How many remarks one file gets.
const REMARKS_MAX: usize = 50;

/// The sections of other daemons, of OSSEC 4.3.0 and of Wazuh 4.14.
const SECTIONS: &[&str] = &[
    "active-response",
    "agent-key-polling",
    "agent-upgrade",
    "agentless",
    "alerts",
    "anti_tampering",
    "auth",
    "client",
    "client_buffer",
    "cluster",
    "command",
    "database_output",
    "email_alerts",
    "fluent-forward",
    "gcp-bucket",
    "gcp-pubsub",
    "github",
    "indexer",
    "integration",
    "labels",
    "localfile",
    "logging",
    "ms-graph",
    "office365",
    "reports",
    "rootcheck",
    "rule_test",
    "rules",
    "ruleset",
    "sca",
    "socket",
    "syscheck",
    "syslog_output",
    "task-manager",
    "vulnerability-detection",
    "vulnerability-detector",
    "wdb",
    "wodle",
];

fn flag(option: &Element) -> Result<Flag, ConfError> {
    let on = match option.text.as_str() {
        "yes" => true,
        "no" => false,
        _ => return Err(wrong(option, "use yes or no")),
    };
    Ok(Flag { on, line: option.line })
}

/// A number of seconds, or of what its last letter says. What is beyond our bounds counts as the bound.
///
/// Source: wazuh v4.14.7 `shared/string_op.c`, `w_parse_time`.
fn time(option: &Element) -> Result<Seconds, ConfError> {
    let digits = option.text.trim_end_matches(|last: char| !last.is_ascii_digit());
    let unit = match &option.text[digits.len()..] {
        "" | "s" => Some(1),
        "m" => Some(60),
        "h" => Some(3_600),
        "d" => Some(86_400),
        "w" => Some(604_800),
        _ => None,
    };
    match (digits.parse::<u64>(), unit) {
        (Ok(count @ 1..), Some(unit)) => {
            let Range { start, end } = SILENCE_DEADLINE_SECONDS;
            let seconds = count.saturating_mul(unit).clamp(start, end - 1);
            let seconds = u32::try_from(seconds).expect("the bounds fit 32 bits");
            Ok(Seconds { seconds, line: option.line })
        }
        (Ok(_) | Err(_), _) => Err(wrong(option, "use a time such as 900 or 15m")),
    }
}

/// The error of an option whose value can't be used.
fn wrong(option: &Element, cure: &str) -> ConfError {
    let problem = format!("<{}>: '{}' can't be used: {cure}", shown(&option.name), shown(&option.text));
    ConfError { line: option.line, problem }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_roots_and_the_sections_of_others() {
        let text = "<ossec_config>\n<global>\n<logall>yes</logall>\n<email_notification>maybe</email_notification>\n\
            </global>\n<syscheck><frequency>x</frequency></syscheck>\n</ossec_config>\n\n<ossec_config>\n<global>\n\
            <logall_json>no</logall_json></global>\n<rules><include>a.xml</include></rules><new-thing>1</new-thing>\n\
            <remote><connection>secure</connection></remote>\n</ossec_config>\n";
        let conf = OssecConf::parse(text.as_bytes()).unwrap();
        assert_eq!(conf.logall, Some(Flag { on: true, line: 3 }));
        assert_eq!(conf.logall_json, Some(Flag { on: false, line: 11 }));
        assert_eq!(conf.remotes.len(), 1);
        assert_eq!(conf.remotes[0].line, 13);
        let remark = "<new-thing> is no section that OSSEC or Wazuh knows: skipped".to_owned();
        assert_eq!(conf.remarks, [Remark { line: 12, text: remark }]);
    }

    #[test]
    fn times() {
        let check = |text: &str, expected: Option<u32>| {
            let option = format!("<agents_disconnection_time>{text}</agents_disconnection_time>");
            let conf = OssecConf::parse(
                format!("<ossec_config><global>{option}</global></ossec_config>").as_bytes(),
            );
            let seconds = conf.ok().and_then(|conf| conf.disconnection).map(|time| time.seconds);
            assert_eq!(seconds, expected, "{text}");
        };
        check("900", Some(900));
        check("20s", Some(20));
        check("15m", Some(900));
        check("2h", Some(7_200));
        check("1d", Some(86_400));
        check("1w", Some(604_800));
        check("1", Some(10));
        check("3000w", Some(604_800));
        check("18446744073709551615w", Some(604_800));
        for text in ["", "0", "-1", "m", "1 m", "1mm", "1y", "1.5m", "99999999999999999999"] {
            check(text, None);
        }
    }

    #[test]
    fn refused() {
        let check = |text: &str, expected: &str| {
            assert_eq!(OssecConf::parse(text.as_bytes()).unwrap_err().to_string(), expected, "{text}");
        };
        check(
            "\n<agent_config></agent_config>",
            "line 2: <agent_config> is no root of this file: use <ossec_config>",
        );
        check(
            "<ossec_config><global><logall>\u{202e}ja</logall></global></ossec_config>",
            "line 1: <logall>: '\\u{202e}ja' can't be used: use yes or no",
        );
    }
}
