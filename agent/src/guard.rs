//! The last line before a wedged host: a thread that looks every 500 ms, needs no runtime and no API, and kills.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use std::{io, thread};

use crate::engine::{EngineId, KillReason};
use crate::memory::MemoryProbe;
use crate::supervise::ProcessGroup;

/// Often enough to catch an allocation at disk speed within a few GiB, rare enough to cost nothing.
const SAMPLE_EVERY: Duration = Duration::from_millis(500);

/// Samples in a row below half the reserve before anything is killed: one or two are a spike that passes.
const LOW_SAMPLES: u32 = 3;

/// An engine as the guard sees it, bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Suspect {
    pub engine: EngineId,
    pub footprint_bytes: u64,
    pub held_bytes: u64,
}

/// Pure: counts low samples and names the engine to kill.
#[derive(Clone, Copy, Debug, Default)]
pub struct Judge {
    low_samples: u32,
}

impl Judge {
    /// The engine over its footprint by most, else the newest (ids grow with time); `None` while there is no need.
    pub fn sample(
        &mut self,
        available_bytes: u64,
        reserve_bytes: u64,
        suspects: &[Suspect],
    ) -> Option<EngineId> {
        if available_bytes >= reserve_bytes / 2 {
            self.low_samples = 0;
            return None;
        }
        self.low_samples += 1;
        if self.low_samples < LOW_SAMPLES {
            return None;
        }
        let over = |suspect: &&Suspect| suspect.held_bytes.saturating_sub(suspect.footprint_bytes);
        let victim = suspects
            .iter()
            .filter(|suspect| over(suspect) > 0)
            .max_by_key(over)
            .or_else(|| suspects.iter().max_by_key(|suspect| suspect.engine))?;
        // Its memory takes a moment to come back: count anew before the next.
        self.low_samples = 0;
        Some(victim.engine)
    }
}

#[derive(Debug)]
struct Charge {
    footprint_bytes: u64,
    /// What it holds of the host's memory through the GPU's driver. The loop tells: the guard asks no driver.
    beside_bytes: u64,
    group: ProcessGroup,
}

#[derive(Debug, Default)]
struct Watched {
    engines: BTreeMap<EngineId, Charge>,
    reserve_bytes: u64,
}

/// The thread, and what it watches. Ends when dropped.
#[derive(Debug)]
pub struct Guard {
    watched: Arc<Mutex<Watched>>,
    kills: Arc<AtomicU64>,
    _alive: Sender<()>,
}

impl Guard {
    pub fn start(probe: MemoryProbe) -> io::Result<Self> {
        let watched = Arc::new(Mutex::new(Watched::default()));
        let kills = Arc::new(AtomicU64::new(0));
        let (alive, ended) = channel();
        let (shared, counter) = (Arc::clone(&watched), Arc::clone(&kills));
        thread::Builder::new()
            .name("memory guard".to_owned())
            .spawn(move || watch(&probe, &shared, &counter, &ended))?;
        Ok(Self { watched, kills, _alive: alive })
    }

    pub fn add(&self, engine: EngineId, footprint_bytes: u64, group: ProcessGroup) {
        self.lock().engines.insert(engine, Charge { footprint_bytes, beside_bytes: 0, group });
    }

    /// What an engine holds of the host's memory that procfs does not show.
    pub fn set_beside(&self, engine: EngineId, beside_bytes: u64) {
        if let Some(charge) = self.lock().engines.get_mut(&engine) {
            charge.beside_bytes = beside_bytes;
        }
    }

    pub fn remove(&self, engine: EngineId) {
        self.lock().engines.remove(&engine);
    }

    pub fn set_reserve(&self, reserve_bytes: u64) {
        self.lock().reserve_bytes = reserve_bytes;
    }

    /// Engines killed so far.
    pub fn kills(&self) -> u64 {
        self.kills.load(Ordering::Relaxed)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Watched> {
        self.watched.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn watch(probe: &MemoryProbe, watched: &Mutex<Watched>, kills: &AtomicU64, ended: &Receiver<()>) {
    let mut judge = Judge::default();
    while ended.recv_timeout(SAMPLE_EVERY) == Err(RecvTimeoutError::Timeout) {
        let watched = watched.lock().unwrap_or_else(PoisonError::into_inner);
        let processes: Vec<(u32, u64)> =
            watched.engines.values().map(|charge| (charge.group.pid(), charge.beside_bytes)).collect();
        let Ok(sample) = probe.sample(&processes) else { continue };
        let suspects: Vec<Suspect> = watched
            .engines
            .iter()
            .map(|(engine, charge)| Suspect {
                engine: *engine,
                footprint_bytes: charge.footprint_bytes,
                held_bytes: sample.held_bytes.get(&charge.group.pid()).copied().unwrap_or(0),
            })
            .collect();
        let victim = judge.sample(sample.available_bytes, watched.reserve_bytes, &suspects);
        if let Some((engine, charge)) = victim.and_then(|engine| watched.engines.get_key_value(&engine)) {
            let available_bytes = sample.available_bytes;
            let reserve_bytes = watched.reserve_bytes;
            tracing::error!(?engine, available_bytes, reserve_bytes, "memory guard kills an engine");
            if charge.group.kill(KillReason::Guard { available_bytes, reserve_bytes }) {
                kills.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Judge, Suspect};
    use crate::engine::EngineId;

    fn suspect(engine: u64, footprint_bytes: u64, held_bytes: u64) -> Suspect {
        Suspect { engine: EngineId(engine), footprint_bytes, held_bytes }
    }

    #[test]
    fn kills_after_three_low_samples_in_a_row_only() {
        let mut judge = Judge::default();
        let suspects = [suspect(1, 50, 50), suspect(2, 30, 30)];
        // Reserve 10: 5 is half of it and no cause; a sample above starts the count anew.
        for available in [5, 4, 4, 5, 4, 4] {
            assert_eq!(judge.sample(available, 10, &suspects), None, "{available}");
        }
        assert_eq!(judge.sample(4, 10, &suspects), Some(EngineId(2)), "the newest");
        assert_eq!(judge.sample(4, 10, &suspects), None, "its memory gets time to come back");
    }

    #[test]
    fn prefers_the_one_over_its_footprint() {
        let mut judge = Judge::default();
        let suspects = [suspect(1, 50, 53), suspect(2, 50, 52), suspect(3, 30, 30)];
        let verdicts: Vec<_> = (0..3).map(|_| judge.sample(0, 10, &suspects)).collect();
        assert_eq!(verdicts, [None, None, Some(EngineId(1))]);
        for _ in 0..9 {
            assert_eq!(judge.sample(0, 10, &[]), None, "nobody of ours to blame");
        }
    }
}
