//! The generator threads of a run.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::{self, JoinHandle};

use crate::account::Account;
use crate::fleet::{FleetProgress, FleetSpec, play};
use crate::leg::Leg;

/// All generators at work.
#[derive(Debug)]
pub struct Crew {
    progress: Arc<FleetProgress>,
    threads: Vec<JoinHandle<Result<Account, String>>>,
    generators: u64,
}

impl Crew {
    /// Starts the threads; they connect their agents.
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

    /// Gives the generators a leg, which they send when its clock starts. The one before must be finished.
    ///
    /// # Panics
    /// If it is not.
    pub fn begin(&self, leg: Leg) {
        let begun = self.progress.legs.load(Ordering::Relaxed);
        assert!(begun == 0 || self.is_finished(), "a leg begins where the one before was finished");
        self.progress.finished.store(0, Ordering::Relaxed);
        self.progress.accounts().clear();
        *self.progress.leg() = Some(Arc::new(leg));
        self.progress.legs.store(begun + 1, Ordering::Release);
    }

    /// The account of a leg that is finished; `None` until it is.
    pub fn account(&self) -> Option<Account> {
        let accounts = self.progress.accounts();
        self.is_finished().then(|| accounts.iter().fold(Account::default(), Account::plus))
    }

    /// Whether all that is due of the leg is with the kernel, and nothing more will be.
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

    /// Ends all generators and sums the last leg up, finished or not.
    ///
    /// # Errors
    /// What one of them failed of.
    pub fn finish(mut self) -> Result<Account, String> {
        self.progress.stop.store(true, Ordering::Relaxed);
        let mut sum = Account::default();
        for thread in std::mem::take(&mut self.threads) {
            sum = sum.plus(&join(thread)?);
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

fn join(thread: JoinHandle<Result<Account, String>>) -> Result<Account, String> {
    thread.join().expect("a generator that panics has ended the program already: panic = abort")
}
