//! The generator threads of a run.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::{self, JoinHandle};

use hdrhistogram::Histogram;

use crate::fleet::{FleetProgress, FleetSpec, GeneratorAccount, play};
use crate::tally::nanoseconds_histogram;

/// All generators at work.
#[derive(Debug)]
pub struct Crew {
    progress: Arc<FleetProgress>,
    threads: Vec<JoinHandle<Result<GeneratorAccount, String>>>,
    generators: u64,
}

/// The account of all generators together.
#[derive(Debug)]
pub struct CrewAccount {
    /// Events that were due.
    pub due: u64,
    /// Events that were due to agents that speak TCP.
    pub due_tcp: u64,
    /// Events whose bytes the kernel took, at least in part.
    pub taken: u64,
    /// Events that the kernel refused.
    pub refused: u64,
    /// How late writes were taken from the plan.
    pub lateness: Histogram<u64>,
    /// Acknowledgements, of start-ups and keep-alives.
    pub acknowledgements: u64,
}

impl Crew {
    /// Starts the threads; they connect their agents, and send when the run's clock starts.
    ///
    /// # Errors
    /// If the system has no thread left.
    pub fn start(spec: FleetSpec) -> Result<Crew, String> {
        let spec = Arc::new(spec);
        let progress = Arc::new(FleetProgress::default());
        let threads = (0..spec.generators)
            .map(|number| {
                let (spec, progress) = (Arc::clone(&spec), Arc::clone(&progress));
                let thread = thread::Builder::new().name(format!("generator-{number}"));
                thread
                    .spawn(move || play(&spec, &progress, number))
                    .map_err(|error| format!("no thread: {error}"))
            })
            .collect::<Result<_, String>>()?;
        Ok(Crew { progress, threads, generators: u64::from(spec.generators) })
    }

    /// What the generators say while they work.
    pub fn progress(&self) -> &FleetProgress {
        &self.progress
    }

    /// Whether all that is due is with the kernel, and nothing more will be.
    pub fn is_finished(&self) -> bool {
        self.progress.finished.load(Ordering::Relaxed) == self.generators
    }

    /// Sees whether a generator has ended by itself.
    ///
    /// # Errors
    /// What it ended of.
    pub fn check(&mut self) -> Result<(), String> {
        match self.threads.iter().position(JoinHandle::is_finished) {
            None => Ok(()),
            Some(ended) => match join(self.threads.swap_remove(ended)) {
                Ok(_) => Err("a generator ended before it was told to".into()),
                Err(error) => Err(error),
            },
        }
    }

    /// Ends all generators and sums up.
    ///
    /// # Errors
    /// What one of them failed of.
    ///
    /// # Panics
    /// Never: all histograms have the same bounds.
    pub fn finish(mut self) -> Result<CrewAccount, String> {
        self.progress.stop.store(true, Ordering::Relaxed);
        let mut sum = CrewAccount {
            due: 0,
            due_tcp: 0,
            taken: 0,
            refused: 0,
            lateness: nanoseconds_histogram(),
            acknowledgements: 0,
        };
        for thread in std::mem::take(&mut self.threads) {
            let account = join(thread)?;
            sum.due += account.due;
            sum.due_tcp += account.due_tcp;
            sum.taken += account.taken;
            sum.refused += account.refused;
            sum.acknowledgements += account.acknowledgements;
            sum.lateness.add(&account.lateness).expect("both histograms have the same bounds");
        }
        Ok(sum)
    }
}

impl Drop for Crew {
    /// An error elsewhere must not leave threads that play on.
    fn drop(&mut self) {
        self.progress.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            // Whatever it says, the run has failed already.
            let _ = join(thread);
        }
    }
}

fn join(thread: JoinHandle<Result<GeneratorAccount, String>>) -> Result<GeneratorAccount, String> {
    thread.join().expect("a generator that panics has ended the program already: panic = abort")
}
