//! How the benches run: one configuration, fixtures made only for what is measured, and the clock of one thread.

use std::sync::OnceLock;
use std::time::Duration;

use codec::Method;
use criterion::measurement::WallTime;
use criterion::{Bencher, BenchmarkGroup, Criterion};
use rustix::time::{ClockId, clock_gettime};

/// Fleets are this small when the benches run as tests.
const TEST_AGENTS: usize = 48;

/// The configuration of every bench: short, so that all of them together stay below fifteen minutes on two cores.
pub fn criterion() -> Criterion {
    Criterion::default()
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1))
        .sample_size(20)
        .nresamples(10_000)
}

/// Benches `routine` over a fixture that `make` makes: once, and only if the bench is not filtered out. Criterion calls a
/// bench's function once for each sample.
///
/// # Panics
/// Never: the fixture is made before the first sample.
pub fn bench_with<Fixture>(
    group: &mut BenchmarkGroup<'_, WallTime>,
    id: impl Into<String>,
    make: impl FnOnce() -> Fixture,
    mut routine: impl FnMut(&mut Bencher<'_>, &mut Fixture),
) {
    let (mut make, mut fixture) = (Some(make), None);
    group.bench_function(id, |bencher| {
        if let Some(make) = make.take() {
            fixture = Some(make());
        }
        routine(bencher, fixture.as_mut().expect("it was made for the first sample"));
    });
}

/// Whether the benches run once each, as tests.
pub fn is_test() -> bool {
    std::env::args().any(|argument| argument == "--test")
}

/// How many agents a fleet of `agents` has: as many, but in a test few.
pub fn fleet_size(agents: usize) -> usize {
    if is_test() { agents.min(TEST_AGENTS) } else { agents }
}

/// A method as a bench's name has it.
pub fn label(method: Method) -> &'static str {
    match method {
        Method::AesOssec => "aes-ossec",
        Method::AesWazuh => "aes-wazuh",
        Method::Blowfish => "blowfish",
    }
}

/// The processor time of the calling thread so far, user's and system's: what waiting does not add to.
///
/// # Panics
/// Never: the clock is there on every Linux, and does not run backwards to before zero.
pub fn thread_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.cast_unsigned(), u32::try_from(time.tv_nsec).expect("less than a second"))
}

/// The cores for the one who is measured and for the one who feeds it; `None` if there is only one.
pub fn cores_apart() -> Option<(usize, usize)> {
    // Found once: a thread that is pinned is allowed one core, and so are its children.
    static CORES: OnceLock<Option<(usize, usize)>> = OnceLock::new();
    *CORES.get_or_init(|| match uring::sockets::allowed_cores().ok()?[..] {
        [measured, feeding, ..] => Some((measured, feeding)),
        [_] | [] => None,
    })
}
