//! What the files of an installation say, before ringmaster.toml has its word: internal_options.conf, then
//! local_internal_options.conf, then ossec.conf, each over the one before.

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
};

use super::{CryptoAccept, Listener, ListenerKind, NotUsed, Origin, Settings, SettingsError};
use crate::ossec_conf::{
    ConfError, FILE_BYTES_MAX, Flag, INTERNAL_OPTIONS, Installation, InternalOptions, LOCAL_INTERNAL_OPTIONS,
    OSSEC_CONF, OssecConf, Remark, Seconds, Unused, read_bounded,
};

/// The settings that ringmaster.toml starts from.
#[derive(Debug, Default)]
pub(super) struct Installed {
    pub(super) settings: Settings,
    pub(super) origins: BTreeMap<String, Origin>,
    /// Whether there is an installation at all.
    pub(super) found: bool,
    /// The listeners of ossec.conf; `None` if it names none.
    pub(super) listeners: Option<Vec<Listener>>,
    /// Whether analysisd writes archives.log, and archives.json.
    pub(super) logall: Option<Flag>,
    pub(super) logall_json: Option<Flag>,
    pub(super) remarks: Vec<String>,
    pub(super) unused: Vec<NotUsed>,
}

impl Installed {
    /// Reads the files of a home. One that is no installation has the defaults.
    ///
    /// # Errors
    /// When a file can't be read, or says what can't be.
    pub(super) fn read(home: &Path) -> Result<Installed, SettingsError> {
        let Some(installation) = Installation::of(home) else { return Ok(Installed::default()) };
        let mut installed = Installed { found: true, ..Installed::default() };
        installed.be_in(&installation);
        for file in [INTERNAL_OPTIONS, LOCAL_INTERNAL_OPTIONS] {
            let Some(bytes) = bytes_of(home, file)? else { continue };
            let options = InternalOptions::parse(&bytes).map_err(|error| refused(home, file, error))?;
            if let Some((replay, line)) = options.replay {
                installed.settings.agents.replay = replay;
                installed.set("agents.replay", Origin::File { path: home.join(file), line });
            }
            installed.note(file, &options.remarks, &options.unused);
        }
        if let Some(bytes) = bytes_of(home, OSSEC_CONF)? {
            let conf = OssecConf::parse(&bytes).map_err(|error| refused(home, OSSEC_CONF, error))?;
            installed.take(home, &installation, &conf);
        }
        Ok(installed)
    }

    /// Events go to the installation's analysisd, which writes archives.log itself if it is told to.
    fn be_in(&mut self, installation: &Installation) {
        let sink = &mut self.settings.sink;
        sink.queue.enabled = true;
        sink.queue.path = PathBuf::from(installation.queue);
        sink.queue.product = installation.product;
        sink.archives.text = false;
        for key in ["sink.queue.enabled", "sink.queue.path", "sink.queue.product", "sink.archives.text"] {
            self.set(key, Origin::Installation(installation.because));
        }
    }

    fn take(&mut self, home: &Path, installation: &Installation, conf: &OssecConf) {
        let product = installation.product;
        self.logall = conf.logall;
        self.logall_json = conf.logall_json;
        if let Some(Seconds { seconds, line }) = conf.disconnection {
            self.settings.agents.silence_deadline_seconds = seconds;
            self.set("agents.silence_deadline_seconds", Origin::File { path: home.join(OSSEC_CONF), line });
        }
        self.note(OSSEC_CONF, &conf.remarks, &conf.unused);
        self.note(OSSEC_CONF, &conf.listener_remarks(product), &[]);
        if conf.remotes.is_empty() {
            let text = "no <remote> says where to listen: the default is used".to_owned();
            self.remarks.push(format!("{OSSEC_CONF}: {text}"));
            return;
        }
        let secure = conf.remotes.iter().find(|remote| remote.kind == ListenerKind::Secure);
        if let Some(secure) = secure.filter(|secure| secure.crypto_accept != CryptoAccept::Both) {
            self.settings.agents.crypto_accept = secure.crypto_accept;
            let origin = Origin::File { path: home.join(OSSEC_CONF), line: secure.line };
            self.set("agents.crypto_accept", origin);
        }
        self.set("listen.addresses", Origin::Replaced(format!("<remote> of {OSSEC_CONF}")));
        self.listeners = Some(conf.listeners(product, OSSEC_CONF));
    }

    fn set(&mut self, key: &str, origin: Origin) {
        self.origins.insert(key.to_owned(), origin);
    }

    fn note(&mut self, file: &str, remarks: &[Remark], unused: &[Unused]) {
        self.remarks.extend(remarks.iter().map(|Remark { line, text }| format!("{file}:{line}: {text}")));
        for Unused { line, name, because } in unused {
            let place = format!("{file}:{line}");
            // What local_internal_options.conf says goes before what internal_options.conf says, without a word.
            match self.unused.iter_mut().find(|known| known.name == *name) {
                Some(known) => known.place = place,
                None => self.unused.push(NotUsed { place, name: name.clone(), because }),
            }
        }
    }
}

/// The bytes of a file of the installation, `None` if it is not there.
fn bytes_of(home: &Path, file: &str) -> Result<Option<Vec<u8>>, SettingsError> {
    match read_bounded(&home.join(file), FILE_BYTES_MAX) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(SettingsError::Unreadable { path: home.join(file), kind: error.kind() }),
    }
}

fn refused(home: &Path, file: &str, ConfError { line, problem }: ConfError) -> SettingsError {
    SettingsError::RefusedLine { path: home.join(file), line, problem }
}

#[cfg(test)]
mod tests;
