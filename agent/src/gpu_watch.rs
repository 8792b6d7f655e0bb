//! Asks the driver about the GPU in a thread of its own: a driver that hangs must hold up neither the loop nor the guard.

use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use std::{io, thread};

use sparkherd_gpu::{ClockJudge, Gpu, GpuError, GpuReport, GpuSource};

/// Memory that an engine gave back is seen within two passes of the loop, at a few milliseconds of the driver's time.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// What was last seen of the GPU that engines use.
#[derive(Clone, Debug)]
pub struct GpuSeen {
    pub gpu: Gpu,
    /// Its clock is stuck low.
    pub clock_degraded: bool,
    /// Since the driver answered last.
    pub age: Duration,
}

#[derive(Debug)]
struct Latest {
    gpu: Gpu,
    clock_degraded: bool,
    read_at: Instant,
}

/// The thread, where there is a GPU, and what it saw last. Ends when dropped.
#[derive(Debug)]
pub struct GpuWatch {
    watched: Option<(Arc<Mutex<Latest>>, Sender<()>)>,
}

impl GpuWatch {
    /// `first`: what the source has already said. Nothing is watched where there was no GPU in it.
    pub fn start(source: Arc<dyn GpuSource>, first: &Result<GpuReport, GpuError>) -> io::Result<Self> {
        let Some(gpu) = first.as_ref().ok().and_then(GpuReport::first).cloned() else {
            return Ok(Self { watched: None });
        };
        let latest = Arc::new(Mutex::new(Latest { gpu, clock_degraded: false, read_at: Instant::now() }));
        let (alive, ended) = channel();
        let shared = Arc::clone(&latest);
        thread::Builder::new().name("gpu watch".to_owned()).spawn(move || {
            let (mut judge, start, mut silent) = (ClockJudge::default(), Instant::now(), false);
            while ended.recv_timeout(LOOK_EVERY) == Err(RecvTimeoutError::Timeout) {
                let answer = source.read();
                let gpu = answer.as_ref().ok().and_then(GpuReport::first);
                if silent != gpu.is_none() {
                    silent = gpu.is_none();
                    let error = answer.as_ref().err().map(ToString::to_string);
                    tracing::warn!(silent, error, "the GPU's driver changed its mind");
                }
                let Some(gpu) = gpu.cloned() else { continue };
                let clock_degraded = judge.look(&gpu, start.elapsed());
                *lock(&shared) = Latest { gpu, clock_degraded, read_at: Instant::now() };
            }
        })?;
        Ok(Self { watched: Some((latest, alive)) })
    }

    /// `None`: there is no GPU.
    pub fn seen(&self) -> Option<GpuSeen> {
        let (latest, _) = self.watched.as_ref()?;
        let Latest { gpu, clock_degraded, read_at } = &*lock(latest);
        Some(GpuSeen { gpu: gpu.clone(), clock_degraded: *clock_degraded, age: read_at.elapsed() })
    }
}

fn lock(latest: &Mutex<Latest>) -> std::sync::MutexGuard<'_, Latest> {
    latest.lock().unwrap_or_else(PoisonError::into_inner)
}
