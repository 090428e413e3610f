//! From settings to a running manager, and to its end.

use std::{
    collections::HashSet,
    fmt, io,
    net::{SocketAddr, TcpListener},
    path::PathBuf,
    process::ExitCode,
    rc::Rc,
    sync::Arc,
    thread::JoinHandle,
};

use arc_swap::ArcSwap;
use codec::AgentId;
use manager::{AgentTable, SenderCounter, ShardId};
use tracing::{error, info, warn};
use uring::{Unsupported, sockets};

use crate::{
    clock::Clock,
    command::CommandServer,
    conditions,
    control::{ControlError, ControlPlane, Face, KeySource, RetiredTables, Status},
    counters_store::CounterStore,
    delivery::Delivery,
    exposition::{ControlMetrics, Exposition},
    home::{Home, HomeError, HomeLock},
    listen::{self, BindError, Bound, Listener},
    logging::Limiter,
    mail::{self, MailSender},
    metrics::ShardMetrics,
    registry::{AgentInfo, Registry},
    service::{
        self, Identity, Inherited, InheritedError, PidFile, PrivilegeError, Remoted, as_remoted::program_name,
    },
    settings::{CORES_MAX, Cores, ListenerKind, Loaded, Product, Settings, Sources},
    shard::{self, NoticeReceiver, ShardError, ShardSpec},
};

/// Runs a manager on this process until SIGTERM or SIGINT, and says in one line what became of what it received.
///
/// Everything that can be refused is refused before the first shard starts. The caller has started the
/// [log](crate::logging::start).
pub fn run(settings: Settings) -> ExitCode {
    run_to_the_end(settings, None)
}

/// The same with settings that can be read again: on SIGHUP, or when `ringmaster reload` asks for it.
pub fn run_from(sources: Sources, loaded: Loaded) -> ExitCode {
    loaded.remarks.iter().for_each(|remark| warn!("{remark}"));
    let unused: Vec<&str> = loaded.unused.iter().map(|unused| unused.name.as_str()).collect();
    if !unused.is_empty() {
        info!("not used, `ringmaster check` says why: {}", unused.join(", "));
    }
    run_to_the_end(loaded.settings, Some(sources))
}

fn run_to_the_end(settings: Settings, sources: Option<Sources>) -> ExitCode {
    let ended = prepare(settings, sources).and_then(|prepared| {
        let (plane, _held) = prepared;
        plane.run().map_err(RunError::Control)
    });
    match ended {
        Ok(_) => ExitCode::SUCCESS,
        Err(error) => {
            error!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// What the program has on its home, until it ends.
struct Held {
    _lock: HomeLock,
    _pid: PidFile,
}

/// Does everything that can fail for the operator's sake, then starts the shards.
fn prepare(mut settings: Settings, sources: Option<Sources>) -> Result<(ControlPlane, Held), RunError> {
    uring::probe().map_err(RunError::Ring)?;
    let home = Home::prepare(&settings.home).map_err(RunError::Home)?;
    info!("Started (pid: {}).", std::process::id());
    if home.created() {
        info!("made a new home: {}", home.path().display());
    }
    home.is_free().map_err(RunError::Home)?;
    if let Some(remoted) = service::running_remoted(&home.run_folder()) {
        return Err(RunError::Remoted(remoted));
    }
    home.path().clone_into(&mut settings.home);
    service::raise_limits();
    sockets::set_nofile_to_hard();

    let cores = cores(&settings.shards.cores)?;
    let mut inherited = Inherited::take().map_err(RunError::Inherited)?;
    inherited.each_has(cores.len()).map_err(RunError::Inherited)?;
    let mut bound = listen::bind_beside(&settings, cores.len(), &mut inherited).map_err(RunError::Listen)?;
    inherited.all_taken().map_err(RunError::Inherited)?;
    let http = settings.metrics.address.map(metrics_listener).transpose()?;
    bound.remarks.drain(..).for_each(|remark| warn!("{remark}"));
    give_up_rights(&settings, &home)?;
    // Again, as whom the shards will ask: the host may allow rings to some users only.
    uring::probe().map_err(RunError::Ring)?;
    let held = hold(&home)?;

    let in_home = |part: &'static str| move |error: io::Error| RunError::Home(home_error(part, &error));
    let (mut keys, file) = KeySource::open(&home.keys_path()).map_err(in_home("etc/client.keys"))?;
    keys.say_problems(&file.problems);
    let (store, problems) = CounterStore::open(&home, &file.entries, settings.counters.unclean_margin)
        .map_err(in_home("queue/ringmaster/counters"))?;
    problems.iter().for_each(|problem| warn!("{problem}"));

    let counted = Arc::new(ControlMetrics::default());
    counted.agents.set(file.entries.len() as u64);
    counted.key_problems.set(file.problems.len() as u64);
    counted.key_loads.add(1);
    let senders = Arc::new(SenderCounter::new(store.sender()));
    let seed = store.seed(&file.entries);
    let file_ids: HashSet<AgentId> = file.entries.iter().map(|entry| entry.id).collect();
    let table = Arc::new(ArcSwap::from_pointee(AgentTable::build(file.entries, None, &seed)));

    let delivery = delivery(&home, &settings, &file_ids);
    let status = status(&home, &bound, http.as_ref(), cores.len(), table.load().agents().len());
    let shared = Shared { settings: Arc::new(settings), clock: Clock::start(), table, senders, delivery };
    let commands = CommandServer::bind(&home.command_path())
        .map_err(|error| RunError::Command { path: home.command_path(), kind: error.kind() })?;
    let agent_info = agent_info(&shared.settings, &home)?;
    let registry = registry(&shared);
    let Started { shards, metrics, mailers, notices } = start_shards(&shared, &cores, bound)?;
    let Shared { settings, clock, table, senders, delivery } = shared;
    let exposition = Exposition::new(clock, metrics.clone(), Arc::clone(&counted));
    let face = Rc::new(Face::new(clock, metrics.clone(), exposition));
    let plane = ControlPlane {
        clock,
        shards,
        metrics,
        mailers,
        table,
        retired: RetiredTables::default(),
        senders,
        delivery,
        store,
        keys,
        counted,
        repeated: Limiter::new(conditions::INTERVAL),
        registry,
        agent_info,
        notices,
        outward: None,
        commands,
        face,
        http,
        status,
        settings,
        sources,
    };
    Ok((plane, held))
}

/// Everything is bound: from here on the program is the installation's user, has no capability, and opens no file elsewhere.
/// Threads are started after this, so all of them are held to it.
fn give_up_rights(settings: &Settings, home: &Home) -> Result<(), RunError> {
    let rights = RunError::Privileges;
    let identity = Identity::of(&settings.run, home).map_err(rights)?;
    if let Some(identity) = identity {
        service::give_to(identity, home).map_err(|error| rights(PrivilegeError::Files(error)))?;
        service::drop_to(identity).map_err(rights)?;
        info!("runs as {identity}, without capabilities");
    } else if rustix::process::geteuid().is_root() {
        warn!("runs as root: give queue/rids to the user who should run it, or name one in run.user");
    }
    service::no_new_privileges().map_err(|error| rights(PrivilegeError::Files(error)))?;
    if settings.run.landlock {
        match service::confine(home.path()) {
            Ok(confinement) => info!("{confinement}"),
            Err(error) => warn!("Landlock: {error}; files are guarded by their permissions alone"),
        }
    }
    Ok(())
}

/// Takes the home, as the user who runs the program: what is made here is that user's.
fn hold(home: &Home) -> Result<Held, RunError> {
    let lock = home.lock().map_err(RunError::Home)?;
    // What an earlier run that was killed has left would send others to its addresses.
    let _ = std::fs::remove_file(home.status_path());
    let pid = PidFile::create(&home.run_folder(), program_name())
        .map_err(|error| RunError::Home(home_error("var/run", &error)))?;
    Ok(Held { _lock: lock, _pid: pid })
}

/// What every shard gets a share of.
struct Shared {
    settings: Arc<Settings>,
    clock: Clock,
    table: Arc<ArcSwap<AgentTable>>,
    senders: Arc<SenderCounter>,
    delivery: Option<Delivery>,
}

/// The shards at work.
struct Started {
    shards: Vec<JoinHandle<Result<(), ShardError>>>,
    metrics: Vec<Arc<ShardMetrics>>,
    mailers: Vec<MailSender>,
    notices: NoticeReceiver,
}

/// What acknowledged delivery keeps. Without it the program does all else: agents then rely on keep-alives.
fn delivery(home: &Home, settings: &Settings, listed: &HashSet<AgentId>) -> Option<Delivery> {
    let folder = home.path().join("queue/ringmaster");
    Delivery::open(&folder, settings, |agent| listed.contains(&agent)).unwrap_or_else(|error| {
        warn!(
            "{}/delivery: {error}; no agent is promised acknowledged delivery: make room, or give this user the file, \
             and start again",
            folder.display()
        );
        None
    })
}

/// The files by which OSSEC's tools know who is there. Wazuh's ask a database.
fn agent_info(settings: &Settings, home: &Home) -> Result<Option<AgentInfo>, RunError> {
    match settings.sink.queue.product {
        Product::Ossec => AgentInfo::prepare(home.path())
            .map(Some)
            .map_err(|error| RunError::Home(home_error("queue/agent-info", &error))),
        Product::Wazuh => Ok(None),
    }
}

fn registry(shared: &Shared) -> Registry {
    let settings = &shared.settings;
    let silent_after = settings.silence_deadline();
    Registry::new(shared.table.load_full(), silent_after, settings.sink.queue.product == Product::Ossec)
}

fn start_shards(shared: &Shared, cores: &[usize], bound: Bound) -> Result<Started, RunError> {
    let (mailers, boxes): (Vec<_>, Vec<_>) =
        mail::mailboxes(cores.len()).map_err(RunError::Thread)?.into_iter().unzip();
    let (notice_sender, notices) = shard::notices().map_err(RunError::Thread)?;
    let metrics: Vec<Arc<ShardMetrics>> = cores.iter().map(|_| Arc::default()).collect();
    let mut shards = Vec::new();
    for (index, ((core, mail), listeners)) in cores.iter().zip(boxes).zip(bound.shards).enumerate() {
        let spec = ShardSpec {
            id: ShardId(u8::try_from(index).expect("there are at most ShardId::MAX + 1 cores")),
            core: Some(*core),
            listeners,
            settings: Arc::clone(&shared.settings),
            clock: shared.clock,
            table: Arc::clone(&shared.table),
            senders: Arc::clone(&shared.senders),
            delivery: shared.delivery.clone(),
            metrics: Arc::clone(&metrics[index]),
            mail,
            mailers: mailers.clone(),
            notices: notice_sender.clone(),
        };
        shards.push(shard::spawn(spec).map_err(RunError::Thread)?);
    }
    Ok(Started { shards, metrics, mailers, notices })
}

/// The cores that carry a shard, in order.
///
/// # Errors
/// When a core is named that this process may not use.
pub(crate) fn cores(wanted: &Cores) -> Result<Vec<usize>, RunError> {
    const SHARDS_MAX: usize = ShardId::MAX.0 as usize + 1;
    let allowed = sockets::allowed_cores().map_err(|errno| RunError::Thread(errno.into()))?;
    let mut cores = match wanted {
        Cores::All => allowed,
        Cores::List(cores) => match cores.iter().find(|core| !allowed.contains(core)) {
            None => cores.clone(),
            Some(core) => return Err(RunError::Core { core: *core, allowed }),
        },
    };
    if cores.len() > SHARDS_MAX {
        warn!(
            "{} cores; the first {SHARDS_MAX} carry a shard each, which is the most there can be",
            cores.len()
        );
        cores.truncate(SHARDS_MAX);
    }
    Ok(cores)
}

fn metrics_listener(address: SocketAddr) -> Result<TcpListener, RunError> {
    TcpListener::bind(address).map_err(|error| RunError::Metrics { address, kind: error.kind() })
}

/// What is said about a program that listens, in `var/run/ringmaster.json` and in the log.
fn status(home: &Home, bound: &Bound, http: Option<&TcpListener>, shards: usize, agents: usize) -> Status {
    let of_kind = |kind| bound.listeners().filter(move |listener| listener.settings.kind == kind);
    let addresses =
        |kind| -> Vec<String> { of_kind(kind).map(|listener| listener.address.to_string()).collect() };
    let (listen, syslog) = (addresses(ListenerKind::Secure), addresses(ListenerKind::Syslog));
    let mut said: Vec<String> = of_kind(ListenerKind::Secure).map(spoken).collect();
    said.extend(of_kind(ListenerKind::Syslog).map(|listener| format!("{} for syslog", spoken(listener))));
    let metrics = http.and_then(|listener| listener.local_addr().ok()).map(|address| address.to_string());
    let text = serde_json::json!({
        "pid": std::process::id(), "listen": listen, "syslog": syslog, "metrics": metrics
    });
    let line = format!(
        "listening on {} with {shards} shards for {agents} agents; metrics on {}; home {}",
        said.join(", "),
        metrics.as_deref().unwrap_or("none"),
        home.path().display()
    );
    Status { path: home.status_path(), text: format!("{text}\n"), line }
}

/// An address, and over what is listened there.
fn spoken(listener: &Listener) -> String {
    let over = match (&listener.udp, &listener.tcp) {
        (Some(_), Some(_)) => "UDP and TCP",
        (Some(_), None) => "UDP",
        (None, Some(_) | None) => "TCP",
    };
    format!("{} over {over}", listener.address)
}

fn home_error(part: &str, error: &io::Error) -> HomeError {
    HomeError::NotMade { path: part.into(), kind: error.kind() }
}

/// Why the program did not start, or ended otherwise than it was told to. Displays as one line.
#[derive(Debug)]
pub enum RunError {
    /// The command socket can't be made.
    Command {
        /// Where.
        path: PathBuf,
        /// What the kernel said.
        kind: io::ErrorKind,
    },
    /// While it ran.
    Control(ControlError),
    /// This core may not be used.
    Core {
        /// Which.
        core: usize,
        /// Which may.
        allowed: Vec<usize>,
    },
    /// The home can't be used.
    Home(HomeError),
    /// The service manager handed over sockets that can't be used.
    Inherited(InheritedError),
    /// An address can't be listened on.
    Listen(BindError),
    /// The address of `/metrics` can't be listened on.
    Metrics {
        /// Which.
        address: SocketAddr,
        /// What the kernel said.
        kind: io::ErrorKind,
    },
    /// It can't have the rights that it should have.
    Privileges(PrivilegeError),
    /// The C manager runs here.
    Remoted(Remoted),
    /// The host can't run the rings.
    Ring(Unsupported),
    /// The process can't have what a thread needs.
    Thread(io::Error),
}

impl std::error::Error for RunError {}

impl fmt::Display for RunError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RunError::Command { path, kind } => write!(
                formatter,
                "{}: {kind}; give this user the right to write there, and the home a path of at most 80 bytes",
                path.display()
            ),
            RunError::Control(error) => error.fmt(formatter),
            RunError::Core { core, allowed } => write!(
                formatter,
                "core {core} is not there or not allowed to this process: use {}",
                Cores::List(allowed.iter().copied().take(CORES_MAX).collect())
            ),
            RunError::Home(error) => error.fmt(formatter),
            RunError::Inherited(error) => error.fmt(formatter),
            RunError::Listen(error) => error.fmt(formatter),
            RunError::Metrics { address, kind } => write!(
                formatter,
                "can't serve metrics on {address}: {kind}; change metrics.address, or \"none\" for no metrics"
            ),
            RunError::Privileges(error) => error.fmt(formatter),
            RunError::Remoted(remoted) => remoted.fmt(formatter),
            RunError::Ring(unsupported) => unsupported.fmt(formatter),
            RunError::Thread(error) => {
                write!(formatter, "no thread or descriptor is left ({error}): raise the limits")
            }
        }
    }
}
