#![expect(unsafe_code, reason = "threads that outlive a call run a closure that borrows from it")]
//! Threads that compute together, and block when there is nothing to do.
//!
//! Work is cut into many more pieces than threads and taken from one counter, so a thread that the machine takes away
//! costs one piece and not a half of everything. The caller works too, and never waits for a thread that has not begun:
//! on a busy machine the step is slower but no one spins.

use std::{
    any::Any,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    thread::{Builder, JoinHandle},
};

use crate::backend::BackendError;

/// Looks at the next job before a thread blocks, about 20 µs: the operations of one step follow each other faster than
/// a blocked thread wakes, and a step apart is far longer, so an idle engine uses no processor time.
const LOOKS_BEFORE_BLOCKING: u32 = 1000;
/// Kernels keep their state in registers and small arrays.
const STACK_BYTES: usize = 512 << 10;

type Piece<'a> = dyn Fn(usize) + Sync + 'a;

#[derive(Clone, Copy)]
struct Job {
    /// Valid while the job is in [`State::job`] or a thread counts as inside.
    run: *const Piece<'static>,
    pieces: usize,
}

// SAFETY: the closure is `Sync`, and the pointer is followed only while `Pool::run` keeps the closure alive.
unsafe impl Send for Job {}

#[derive(Default)]
struct State {
    job: Option<Job>,
    /// Threads that run pieces of the job.
    inside: usize,
    panicked: bool,
    stop: bool,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    wake: Condvar,
    left: Condvar,
    /// Counts jobs and the stop; changes only with the lock held.
    version: AtomicU64,
    next_piece: AtomicUsize,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn work(&self, run: &Piece<'_>, pieces: usize) {
        loop {
            let piece = self.next_piece.fetch_add(1, Ordering::Relaxed);
            if piece >= pieces {
                return;
            }
            run(piece);
        }
    }
}

/// A fixed number of compute threads, the caller of [`Pool::run`] being one of them.
pub(crate) struct Pool {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
}

impl std::fmt::Debug for Pool {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Pool").field("threads", &(self.workers.len() + 1)).finish_non_exhaustive()
    }
}

impl Pool {
    pub(crate) fn start(threads: usize) -> Result<Self, BackendError> {
        let shared = Arc::new(Shared::default());
        let workers = (1..threads)
            .map(|index| {
                let shared = Arc::clone(&shared);
                Builder::new()
                    .name(format!("compute-{index}"))
                    .stack_size(STACK_BYTES)
                    .spawn(move || worker(&shared))
            })
            .collect::<Result<_, _>>()
            .map_err(|error| BackendError::Thread(error.to_string()))?;
        Ok(Self { shared, workers })
    }

    /// Calls `run` once with each of `0..pieces`, on several threads at once, and returns when all calls have.
    pub(crate) fn run(&mut self, pieces: usize, run: &Piece<'_>) -> Result<(), BackendError> {
        if pieces <= 1 || self.workers.is_empty() {
            (0..pieces).for_each(run);
            return Ok(());
        }
        #[expect(
            clippy::transmute_ptr_to_ptr,
            reason = "a cast cannot lengthen the lifetime of a trait object"
        )]
        // SAFETY: only the lifetime changes. `Finish` below takes the job away and waits until no thread is inside
        // before this call ends, even by a panic, so the closure outlives every use.
        let endless = unsafe { std::mem::transmute::<*const Piece<'_>, *const Piece<'static>>(run) };
        {
            let mut state = self.shared.lock();
            self.shared.next_piece.store(0, Ordering::Relaxed);
            state.job = Some(Job { run: endless, pieces });
            self.shared.version.fetch_add(1, Ordering::Release);
        }
        self.shared.wake.notify_all();
        let finish = Finish(&self.shared);
        self.shared.work(run, pieces);
        drop(finish);
        if self.shared.lock().panicked { Err(BackendError::WorkerPanicked) } else { Ok(()) }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        {
            let mut state = self.shared.lock();
            state.stop = true;
            self.shared.version.fetch_add(1, Ordering::Release);
        }
        self.shared.wake.notify_all();
        for worker in self.workers.drain(..) {
            // A worker catches the panics of its pieces, so it ends only when told.
            let _: Result<(), Box<dyn Any + Send>> = worker.join();
        }
    }
}

/// Ends a job: no thread may enter it, and those inside have left.
struct Finish<'a>(&'a Shared);

impl Drop for Finish<'_> {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.job = None;
        while state.inside > 0 {
            state = self.0.left.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

fn worker(shared: &Shared) {
    let mut seen = 0;
    let mut state = shared.lock();
    loop {
        if state.stop {
            return;
        }
        let version = shared.version.load(Ordering::Acquire);
        if version == seen {
            drop(state);
            look_for_change(shared, seen);
            state = shared.lock();
            if shared.version.load(Ordering::Acquire) == seen {
                state = shared.wake.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
            continue;
        }
        seen = version;
        let Some(job) = state.job else { continue };
        state.inside += 1;
        drop(state);
        // SAFETY: this thread counts as inside, so `Pool::run` has not returned and the closure is alive.
        let run = unsafe { &*job.run };
        let result = catch_unwind(AssertUnwindSafe(|| shared.work(run, job.pieces)));
        state = shared.lock();
        state.panicked |= result.is_err();
        state.inside -= 1;
        if state.inside == 0 {
            shared.left.notify_one();
        }
    }
}

fn look_for_change(shared: &Shared, seen: u64) {
    for _ in 0..LOOKS_BEFORE_BLOCKING {
        if shared.version.load(Ordering::Relaxed) != seen {
            return;
        }
        std::hint::spin_loop();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::Pool;

    #[test]
    fn every_piece_runs_exactly_once() {
        let mut pool = Pool::start(4).unwrap();
        for pieces in [0, 1, 2, 3, 17, 1000] {
            let counts: Vec<AtomicUsize> = (0..pieces).map(|_| AtomicUsize::new(0)).collect();
            pool.run(pieces, &|piece| {
                counts[piece].fetch_add(1, Ordering::Relaxed);
            })
            .unwrap();
            assert!(counts.iter().all(|count| count.load(Ordering::Relaxed) == 1), "{pieces} pieces");
        }
    }

    #[test]
    fn many_jobs_in_a_row_see_each_others_writes() {
        let mut pool = Pool::start(3).unwrap();
        let total = AtomicUsize::new(0);
        for _ in 0..5000 {
            pool.run(5, &|piece| {
                total.fetch_add(piece, Ordering::Relaxed);
            })
            .unwrap();
        }
        assert_eq!(total.load(Ordering::Relaxed), 5000 * 10);
    }

    #[test]
    fn a_panic_in_a_piece_is_not_a_hang() {
        let mut pool = Pool::start(2).unwrap();
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            pool.run(64, &|piece| assert_ne!(piece, 40, "deliberate"))
        }));
        // On the caller's own thread it unwinds; on another it is an error.
        assert!(!matches!(outcome, Ok(Ok(()))));
    }
}
