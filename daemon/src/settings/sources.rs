//! Everything that settings come from, so that they can be read again.

use std::{collections::BTreeMap, net::SocketAddr, path::PathBuf};

use super::{Cores, Loaded, Origin, Run, Settings, SettingsError, load};

/// A home with its files, and what the command line said.
#[derive(Clone, Debug)]
pub struct Sources {
    /// The home.
    pub home: PathBuf,
    /// ringmaster.toml.
    pub file: PathBuf,
    /// `--cores`.
    pub cores: Option<Cores>,
    /// `--listen`; it takes the place of every listener.
    pub listen: Vec<SocketAddr>,
    /// `-u` and `-g` of the C program, over what the files say.
    pub run: Option<Run>,
}

impl Sources {
    /// Reads everything.
    ///
    /// # Errors
    /// When a file can't be read or says what can't be.
    pub fn load(&self) -> Result<Loaded, SettingsError> {
        let mut loaded = load(&self.file, &self.home)?;
        self.take_the_place(&mut loaded.settings, &mut loaded.origins);
        Ok(loaded)
    }

    /// Puts what the command line said over what the files say.
    pub(crate) fn take_the_place(&self, settings: &mut Settings, origins: &mut BTreeMap<String, Origin>) {
        if let Some(cores) = &self.cores {
            settings.shards.cores = cores.clone();
            origins.insert("shards.cores".to_owned(), Origin::CommandLine);
        }
        if let Some(run) = &self.run {
            settings.run = run.clone();
        }
        if !self.listen.is_empty() {
            settings.listen_only_on(&self.listen, "command line");
            origins.insert("listen.addresses".to_owned(), Origin::CommandLine);
            origins.insert("listener".to_owned(), Origin::CommandLine);
        }
    }
}
