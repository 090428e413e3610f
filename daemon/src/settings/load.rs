//! From the file to [`Settings`]: every refusal names file, line and column, the value, and the cure.

use std::{
    collections::BTreeMap,
    fmt, fs, io,
    path::{Path, PathBuf},
};

use toml::de::{DeTable, DeValue};

use super::{Listener, ListenerError, ListenerKind, Settings, installed::Installed, listener};
use crate::ossec_conf::{Flag, OSSEC_CONF};

/// The settings of a home, and which lines set what.
#[derive(Clone, Debug, PartialEq)]
pub struct Loaded {
    /// What is in effect.
    pub settings: Settings,
    /// Dotted key -> where it was set. A key that is missing here has its default.
    pub origins: BTreeMap<String, Origin>,
    /// What an operator should know, one line each.
    pub remarks: Vec<String>,
    /// What the files of an installation say to the C managers and means nothing here.
    pub unused: Vec<NotUsed>,
}

/// An option of ossec.conf or internal_options.conf that means nothing here.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct NotUsed {
    /// File and line.
    pub place: String,
    /// As the file calls it.
    pub name: String,
    /// Why.
    pub because: &'static str,
}

impl fmt::Display for NotUsed {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let NotUsed { place, name, because } = self;
        write!(formatter, "{name} is not used: {because}  # {place}")
    }
}

/// Where an effective value came from.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Origin {
    /// An option of the command line.
    CommandLine,
    /// A line of the settings file.
    File {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
    },
    /// The installation that the home is; what tells.
    Installation(&'static str),
    /// It is not used: this is in its place.
    Replaced(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::CommandLine => formatter.write_str("command line"),
            Origin::File { path, line } => write!(formatter, "{}:{line}", path.display()),
            Origin::Installation(because) => write!(formatter, "installation: {because}"),
            Origin::Replaced(by) => write!(formatter, "default, not used: {by} takes its place"),
        }
    }
}

/// Reads a settings file, over what the installation's own files say if the home is one. Only an installation can be
/// without the settings file.
///
/// # Errors
/// When a file can't be read, is no TOML or no ossec.conf, names an unknown setting, or holds a value that can't be used.
pub fn load(path: &Path, home: &Path) -> Result<Loaded, SettingsError> {
    let installed = Installed::read(home)?;
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound && installed.found => String::new(),
        Err(error) => {
            return Err(SettingsError::Unreadable { path: path.to_owned(), kind: error.kind() });
        }
    };
    parse(&text, path, home, installed)
}

/// What [`load`] does, with the settings file's text at hand.
fn parse(text: &str, path: &Path, home: &Path, installed: Installed) -> Result<Loaded, SettingsError> {
    let refusal = |error: &toml::de::Error| {
        let at = error.span().map_or(0, |span| span.start);
        // toml's own messages may take several lines (a list of what it expected); ours take one.
        let problem = error.message().lines().map(str::trim).collect::<Vec<_>>().join("; ");
        SettingsError::refused(path, text, at, problem)
    };
    let document = DeTable::parse(text).map_err(|error| refusal(&error))?;
    let mut positions = BTreeMap::new();
    collect_positions("", document.get_ref(), &mut positions);

    let said: Settings = toml::from_str(text).map_err(|error| refusal(&error))?;
    let mut settings = if installed.found { overlaid(&installed.settings, text) } else { said };
    settings.home = home.to_owned();
    let mut origins = installed.origins.clone();
    let line = |at: usize| Place::of(text, at).line;
    let file = |at: usize| Origin::File { path: path.to_owned(), line: line(at) };
    origins.extend(positions.iter().map(|(key, at)| (key.clone(), file(*at))));
    archive_alone(&mut settings, &mut origins, &installed);
    check_relations(&settings).and_then(|()| check_archives(&settings, &installed)).map_err(
        |(key, problem)| {
            SettingsError::refused(path, text, positions.get(key).copied().unwrap_or(0), problem)
        },
    )?;

    let shown = path.strip_prefix(home).unwrap_or(path).display();
    let origin = |at: usize| format!("{shown}:{}", line(at));
    let addresses = positions.get("listen.addresses").map(|at| origin(*at));
    let tables: Vec<String> =
        table_positions(document.get_ref(), "listener").into_iter().map(origin).collect();
    if addresses.is_some() || !tables.is_empty() {
        if addresses.is_none() {
            let by = Origin::Replaced(format!("[[listener]] of {shown}"));
            origins.insert("listen.addresses".to_owned(), by);
        }
        settings.listen_on(listener::merged(named(&settings, addresses.as_deref(), &tables))?);
    } else if let Some(mut listeners) = installed.listeners {
        if positions.contains_key("agents.crypto_accept") {
            let secure = listeners.iter_mut().filter(|listener| listener.kind == ListenerKind::Secure);
            secure.for_each(|listener| listener.crypto_accept = settings.agents.crypto_accept);
        }
        settings.listen_on(listener::merged(listeners)?);
    }
    let Installed { remarks, unused, .. } = installed;
    Ok(Loaded { settings, origins, remarks, unused })
}

/// The settings of an installation with the file's in their place. The file has been read before.
fn overlaid(installed: &Settings, text: &str) -> Settings {
    fn put_over(below: &mut toml::Table, above: toml::Table) {
        for (key, value) in above {
            match (below.get_mut(&key), value) {
                (Some(toml::Value::Table(below)), toml::Value::Table(above)) => put_over(below, above),
                (_, value) => drop(below.insert(key, value)),
            }
        }
    }
    let mut table = toml::Table::try_from(installed).expect("settings are plain tables");
    put_over(&mut table, text.parse().expect("the text was read as settings before"));
    table.try_into().expect("every value was taken before")
}

/// The listeners that the file names, if it names any.
fn named(settings: &Settings, addresses: Option<&str>, tables: &[String]) -> Vec<Listener> {
    let crypto_accept = settings.agents.crypto_accept;
    let mut listeners = Vec::new();
    if let Some(origin) = addresses {
        let secure = |address| Listener { crypto_accept, ..Listener::secure(address, origin) };
        listeners.extend(settings.listen.addresses.iter().copied().map(secure));
    }
    let tables = settings.listener.iter().zip(tables);
    listeners.extend(tables.map(|(table, origin)| table.listener(crypto_accept, origin.clone())));
    listeners
}

/// Where no analysisd writes the archives, what its own switches say counts for ours.
fn archive_alone(settings: &mut Settings, origins: &mut BTreeMap<String, Origin>, installed: &Installed) {
    if settings.sink.queue.enabled {
        return;
    }
    let archives = &mut settings.sink.archives;
    for (key, flag, on) in [
        ("sink.archives.text", installed.logall, &mut archives.text),
        ("sink.archives.json", installed.logall_json, &mut archives.json),
    ] {
        let said = matches!(origins.get(key), Some(Origin::File { .. }));
        if let Some(Flag { on: wanted, line }) = flag
            && !said
        {
            *on = wanted;
            origins.insert(key.to_owned(), Origin::File { path: settings.home.join(OSSEC_CONF), line });
        }
    }
}

/// Two programs must not write one file: each event would be there twice. Returns the key to blame, and the problem.
fn check_archives(settings: &Settings, installed: &Installed) -> Result<(), (&'static str, String)> {
    let archives = &settings.sink.archives;
    for (key, ours, flag, option) in [
        ("sink.archives.text", archives.text, installed.logall, "logall"),
        ("sink.archives.json", archives.json, installed.logall_json, "logall_json"),
    ] {
        if let Some(Flag { on: true, line }) = flag
            && ours
            && settings.sink.queue.enabled
        {
            let problem = format!(
                "{key} is on and analysisd writes the same file ({OSSEC_CONF}:{line}: <{option}>): switch one of them off"
            );
            return Err((key, problem));
        }
    }
    Ok(())
}

/// What no single value can get wrong. Returns the key to blame, and the problem with its cure.
fn check_relations(settings: &Settings) -> Result<(), (&'static str, String)> {
    let sink = &settings.sink;
    if sink.soft_bytes >= sink.hard_bytes {
        let blamed = if sink.hard_bytes == super::Sink::default().hard_bytes {
            "sink.soft_bytes"
        } else {
            "sink.hard_bytes"
        };
        return Err((
            blamed,
            format!(
                "sink.soft_bytes ({}) is not below sink.hard_bytes ({}): lower it",
                sink.soft_bytes, sink.hard_bytes
            ),
        ));
    }
    let agents = &settings.agents;
    if agents.unauthenticated_per_address_max > agents.unauthenticated_max {
        return Err((
            "agents.unauthenticated_per_address_max",
            format!(
                "agents.unauthenticated_per_address_max ({}) is above agents.unauthenticated_max ({}): lower it",
                agents.unauthenticated_per_address_max, agents.unauthenticated_max
            ),
        ));
    }
    Ok(())
}

/// Remembers the byte position of each value's key.
fn collect_positions(prefix: &str, table: &DeTable<'_>, positions: &mut BTreeMap<String, usize>) {
    for (key, value) in table {
        let dotted =
            if prefix.is_empty() { key.get_ref().to_string() } else { format!("{prefix}.{}", key.get_ref()) };
        if let DeValue::Table(inner) = value.get_ref() {
            collect_positions(&dotted, inner, positions);
        } else {
            positions.insert(dotted, key.span().start);
        }
    }
}

/// The byte position of each table of an array.
fn table_positions(table: &DeTable<'_>, key: &str) -> Vec<usize> {
    match table.iter().find(|(name, _)| name.get_ref().as_ref() == key).map(|(_, value)| value.get_ref()) {
        Some(DeValue::Array(tables)) => tables.iter().map(|table| table.span().start).collect(),
        Some(_) | None => Vec::new(),
    }
}

/// Line and column of a byte of a text, both counted from 1; the column in characters.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Place {
    line: usize,
    column: usize,
}

impl Place {
    fn of(text: &str, at: usize) -> Place {
        let before = text.get(..at).unwrap_or(text);
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        Place { line: before.matches('\n').count() + 1, column: before[line_start..].chars().count() + 1 }
    }
}

/// Why a settings file can't be used. Displays as one line.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum SettingsError {
    /// The listeners can't be had together.
    Listeners(ListenerError),
    /// A line says what can't be.
    Refused {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
        /// Counted from 1, in characters.
        column: usize,
        /// The value and the cure.
        problem: String,
    },
    /// A line of a file of the installation says what can't be.
    RefusedLine {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
        /// The value and the cure.
        problem: String,
    },
    /// The file can't be read at all.
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        kind: io::ErrorKind,
    },
}

impl SettingsError {
    fn refused(path: &Path, text: &str, at: usize, problem: String) -> SettingsError {
        let Place { line, column } = Place::of(text, at);
        SettingsError::Refused { path: path.to_owned(), line, column, problem }
    }
}

impl std::error::Error for SettingsError {}

impl From<ListenerError> for SettingsError {
    fn from(error: ListenerError) -> SettingsError {
        SettingsError::Listeners(error)
    }
}

impl fmt::Display for SettingsError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SettingsError::Refused { path, line, column, problem } => {
                write!(formatter, "{}:{line}:{column}: {problem}", path.display())
            }
            SettingsError::Listeners(error) => error.fmt(formatter),
            SettingsError::RefusedLine { path, line, problem } => {
                write!(formatter, "{}:{line}: {problem}", path.display())
            }
            SettingsError::Unreadable { path, kind: io::ErrorKind::PermissionDenied } => {
                write!(
                    formatter,
                    "{}: permission denied; give this user the right to read it",
                    path.display()
                )
            }
            SettingsError::Unreadable { path, kind } => {
                write!(
                    formatter,
                    "{}: {kind}; `ringmaster` without arguments writes a new home",
                    path.display()
                )
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::{Cores, Replay};

    fn parse(text: &str, path: &Path, home: &Path) -> Result<Loaded, SettingsError> {
        super::parse(text, path, home, Installed::default())
    }

    fn check(text: &str, expected: &str) {
        let outcome = match parse(text, Path::new("r.toml"), Path::new("/home")) {
            Ok(_) => "taken".to_owned(),
            Err(error) => error.to_string(),
        };
        assert_eq!(outcome, expected, "{text}");
    }

    #[test]
    fn refusals_name_place_value_and_cure() {
        check("", "taken");
        check(
            "[listen]\naddresses = []\n",
            "r.toml:2:13: no address to listen on: name one, as \"[::]:1514\"",
        );
        check(
            "[listen]\naddresses = [\"localhost\"]\n",
            "r.toml:2:13: \"localhost\" is no address and port: write 192.0.2.1:1514, or [::]:1514 for every address",
        );
        check("[shards]\ncores = [1, 1]\n", "r.toml:2:9: core 1 is named twice: name it once");
        check("[shards]\ncores = 3\n", "r.toml:2:9: not cores: use \"all\" or a list as [0, 1]");
        check("[shards]\nstream_buffers = 1000\n", "r.toml:2:18: 1000 is no power of two: use 512 or 1024");
        check(
            "[agents]\nreplay = \"maybe\"\n",
            "r.toml:2:10: unknown variant `maybe`, expected one of `off`, `strict`, `window`",
        );
        check("\n[stop]\n  grace_seconds = -1\n", "r.toml:3:19: -1 is out of range: use 0 to 3600");
        check("[stop]\ngrace = 1\n", "r.toml:2:1: unknown field `grace`, expected `grace_seconds`");
        check(
            "[metrics]\naddress = \"off\"",
            "r.toml:2:11: \"off\" is no address and port: write 127.0.0.1:9514, or \"none\" for no listener",
        );
        check(
            "[sink]\nsoft_bytes = 65536\nhard_bytes = 65536\n",
            "r.toml:3:1: sink.soft_bytes (65536) is not below sink.hard_bytes (65536): lower it",
        );
        check(
            "[agents]\nunauthenticated_per_address_max = 20_000",
            "r.toml:2:1: agents.unauthenticated_per_address_max (20000) is above agents.unauthenticated_max (16384): lower it",
        );
    }

    #[test]
    fn no_toml_is_refused_with_its_place() {
        let error = parse("[listen\n", Path::new("r.toml"), Path::new("/")).unwrap_err().to_string();
        assert!(error.starts_with("r.toml:1:8: "), "{error}");
        assert_eq!(error.lines().count(), 1, "{error}");
    }

    #[test]
    fn what_is_set_is_in_effect_and_has_its_line() {
        let text = "[agents]\nreplay = \"window\"\n\n[shards]\ncores = [1]\n";
        let loaded = parse(text, Path::new("r.toml"), Path::new("/home")).unwrap();
        let mut expected = Settings::with_home("/home");
        expected.agents.replay = Replay::Window;
        expected.shards.cores = Cores::List(vec![1]);
        assert_eq!(loaded.settings, expected);
        let origin = |line| Origin::File { path: PathBuf::from("r.toml"), line };
        let expected =
            BTreeMap::from([("agents.replay".to_owned(), origin(2)), ("shards.cores".to_owned(), origin(5))]);
        assert_eq!(loaded.origins, expected);
    }
}
