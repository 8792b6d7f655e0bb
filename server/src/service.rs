//! What all requests of one engine share.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use sha2::{Digest, Sha256};
use sparkherd_engine::ClientKey;
use tokio::sync::{Semaphore, watch};
use tokio::time::timeout;

use crate::access::Audience;
use crate::body::BodyBudget;
use crate::client::ClientHasher;
use crate::engine::ChatEngine;
use crate::health::Health;
use crate::metrics::{Metrics, ProcessUse};
use crate::openai::{ApiError, TOLD_MAX, VECTOR_BYTES_MAX};
use crate::phase::Lifecycle;
use crate::room::{Room, RoomShare};
use crate::tally::Tally;
use crate::unread::UnreadAnswers;

/// Prompts tokenised at once: it takes some 350 bytes a token while it lasts, for which the footprint's runtime part has room
/// once, and megabytes a second, which is fast beside generating.
const TOKENISING_MAX: usize = 1;
/// Grammars compiled at once, as many as the engine compiles, and one of an account: one may take seconds, and the others wait
/// without a thread each, so that there is always one for tokenising.
const COMPILING_MAX: usize = 2;

/// How long a request waits for room that others have: as long as engines let one wait for its turn, unless told otherwise.
const ROOM_LIMIT: Duration = Duration::from_mins(5);

/// What a [`Service`] is told at start.
#[derive(Debug)]
pub struct ServiceSettings {
    pub audience: Audience,
    /// This life of this process; ids of answers begin with its hash.
    pub incarnation: String,
    /// Seed of the seeds of requests that bring none.
    pub seed: u64,
    /// Age of a step from which the engine counts as stalled.
    pub stall_limit: Duration,
    /// Unix time in seconds.
    pub clock: fn() -> u64,
    /// What the process holds of the machine's memory, bytes.
    pub held_bytes: fn() -> u64,
    /// Of a GPU, which are not among those; they do not change.
    pub device_bytes: u64,
    /// What all threads of the process have computed.
    pub cpu_time: fn() -> Duration,
}

#[derive(Debug)]
pub struct Service {
    engine: Arc<dyn ChatEngine>,
    audience: watch::Sender<Arc<Audience>>,
    lifecycle: Lifecycle,
    health: Health,
    metrics: Metrics,
    body_budget: BodyBudget,
    clients: ClientHasher,
    /// Requests under way that take no place of the engine.
    passes: Tally,
    unread: UnreadAnswers,
    tokenising: Arc<Semaphore>,
    compiling: Room,
    /// For each probability that is told.
    probabilities: Room,
    /// For each byte of vectors that are being written.
    vectors: Room,
    seed: u64,
    id_base: String,
    requests: AtomicU64,
    seeds: AtomicU64,
    clock: fn() -> u64,
    held_bytes: fn() -> u64,
    device_bytes: u64,
    cpu_time: fn() -> Duration,
    started_unix: u64,
}

impl Service {
    pub fn new(engine: Arc<dyn ChatEngine>, settings: ServiceSettings) -> Result<Self, prometheus::Error> {
        let ServiceSettings {
            audience,
            incarnation,
            seed,
            stall_limit,
            clock,
            held_bytes,
            device_bytes,
            cpu_time,
        } = settings;
        Ok(Self {
            metrics: Metrics::new(audience.first_name(), &incarnation, engine.cache_size())?,
            audience: watch::Sender::new(Arc::new(audience)),
            lifecycle: Lifecycle::default(),
            health: Health::new(stall_limit),
            body_budget: BodyBudget::new(engine.info().context),
            clients: ClientHasher::new(seed, &incarnation),
            engine,
            passes: Tally::default(),
            unread: UnreadAnswers::default(),
            tokenising: Arc::new(Semaphore::new(TOKENISING_MAX)),
            probabilities: room_of(TOLD_MAX),
            vectors: room_of(VECTOR_BYTES_MAX),
            compiling: Room::new(COMPILING_MAX, 1),
            seed,
            id_base: format!("{:016x}", digest_u64(incarnation.as_bytes())),
            requests: AtomicU64::new(0),
            seeds: AtomicU64::new(0),
            clock,
            held_bytes,
            device_bytes,
            cpu_time,
            started_unix: clock(),
        })
    }

    pub(crate) fn engine(&self) -> &dyn ChatEngine {
        &*self.engine
    }

    pub(crate) fn engine_arc(&self) -> &Arc<dyn ChatEngine> {
        &self.engine
    }

    /// From now on these keys and names count; requests already accepted go on.
    pub fn set_audience(&self, audience: Audience) {
        self.audience.send_replace(Arc::new(audience));
    }

    pub(crate) fn audience(&self) -> Arc<Audience> {
        Arc::clone(&self.audience.borrow())
    }

    pub fn lifecycle(&self) -> &Lifecycle {
        &self.lifecycle
    }

    pub fn health(&self) -> &Health {
        &self.health
    }

    pub(crate) fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    pub(crate) fn body_budget(&self) -> &BodyBudget {
        &self.body_budget
    }

    pub(crate) fn clients(&self) -> &ClientHasher {
        &self.clients
    }

    pub(crate) fn passes(&self) -> &Tally {
        &self.passes
    }

    pub(crate) fn unread(&self) -> &UnreadAnswers {
        &self.unread
    }

    pub(crate) fn probabilities(&self) -> &Room {
        &self.probabilities
    }

    pub(crate) fn vectors(&self) -> &Room {
        &self.vectors
    }

    pub(crate) fn unix_time(&self) -> u64 {
        (self.clock)()
    }

    /// What the process holds, of a GPU too.
    pub(crate) fn held_bytes(&self) -> u64 {
        (self.held_bytes)().saturating_add(self.device_bytes)
    }

    pub(crate) fn process_use(&self) -> ProcessUse {
        ProcessUse { held_bytes: self.held_bytes(), cpu_time: (self.cpu_time)() }
    }

    pub(crate) fn started_unix(&self) -> u64 {
        self.started_unix
    }

    /// Ids are unique over incarnations and in order within one.
    pub(crate) fn next_id(&self, prefix: &str) -> String {
        format!("{prefix}{}{:08x}", self.id_base, self.requests.fetch_add(1, Ordering::Relaxed))
    }

    pub(crate) fn next_seed(&self) -> u64 {
        let request = self.seeds.fetch_add(1, Ordering::Relaxed);
        digest_u64(&[self.seed.to_le_bytes(), request.to_le_bytes()].concat())
    }

    /// When a refused client should come again, in whole seconds: up to half as long again as the engine thinks, another for
    /// each, so that those refused together do not come back together.
    pub(crate) fn retry_after_seconds(&self, retry_after: Duration) -> u32 {
        let jitter = self.next_seed() as f64 / u64::MAX as f64;
        let seconds = (retry_after.as_secs_f64() * (1.0 + jitter / 2.0)).ceil();
        // openai-python takes no notice of longer ones.
        let seconds =
            Duration::try_from_secs_f64(seconds).map_or(u64::MAX, |seconds| seconds.as_secs()).clamp(1, 60);
        u32::try_from(seconds).unwrap_or(u32::MAX)
    }

    /// Waits for so much room, for a while, or until requests under way are to be ended.
    pub(crate) async fn take(
        &self,
        room: &Room,
        account: ClientKey,
        count: u32,
    ) -> Result<RoomShare, ApiError> {
        // In this order: requests that end make room for those that have to end as well.
        tokio::select! {
            biased;
            () = self.lifecycle.aborting() => Err(ApiError::Draining),
            share = timeout(ROOM_LIMIT, room.take(account, count)) => match share {
                Ok(share) => share.map_err(|_| ApiError::EngineFailed),
                Err(_) => Err(ApiError::QueueTimeout { seconds: ROOM_LIMIT.as_secs() }),
            },
        }
    }

    /// Runs CPU work where blocking is allowed, a few at a time. `held` goes with it and comes back with what it made. `None`
    /// if it panicked.
    pub(crate) async fn blocking<T: Send + 'static, H: Send + 'static>(
        &self,
        held: H,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Option<(T, H)> {
        let permit = Arc::clone(&self.tokenising).acquire_owned().await.ok()?;
        run_blocking(permit, held, work).await
    }

    /// The same for grammars, so that a slow one delays no prompt, and those of one account no other's.
    pub(crate) async fn compiling<T: Send + 'static, H: Send + 'static>(
        &self,
        account: ClientKey,
        held: H,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<(T, H), ApiError> {
        let share = self.take(&self.compiling, account, 1).await?;
        run_blocking(share, held, work).await.ok_or(ApiError::EngineFailed)
    }
}

/// Room for two of the largest requests, of two accounts.
fn room_of(request_max: u32) -> Room {
    let request_max = usize::try_from(request_max).unwrap_or(usize::MAX / 2);
    Room::new(2 * request_max, request_max)
}

/// The permit and what is held go with the work, which goes on when whoever waits for it is gone: clients that ask and leave
/// cannot pile work up, and what their requests count as is given back when their work has ended.
async fn run_blocking<T: Send + 'static, H: Send + 'static>(
    permit: impl Send + 'static,
    held: H,
    work: impl FnOnce() -> T + Send + 'static,
) -> Option<(T, H)> {
    // The permit comes last: where nobody waits it is given back when all else is gone.
    let work = move || (work(), held, permit);
    let (done, held, _permit) = tokio::task::spawn_blocking(work).await.ok()?;
    Some((done, held))
}

fn digest_u64(bytes: &[u8]) -> u64 {
    Sha256::digest(bytes).iter().take(8).fold(0, |value, byte| value << 8 | u64::from(*byte))
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, mpsc};

    use futures::poll;
    use sparkherd_engine::ClientKey;

    use super::run_blocking;
    use crate::room::Room;

    #[tokio::test]
    async fn work_that_nobody_waits_for_any_more_keeps_its_permit_and_what_it_holds_to_its_end() {
        let room = Room::new(2, 1);
        let (mine, yours) = (ClientKey(1), ClientKey(2));
        let (end, until) = mpsc::channel::<()>();
        let held = Arc::new(());
        let kept = Arc::downgrade(&held);
        let share = room.take(mine, 1).await.unwrap();
        let mut asked = Box::pin(run_blocking(share, held, move || until.recv()));
        assert!(poll!(&mut asked).is_pending(), "begun");
        drop(asked);
        assert_eq!((room.free(), kept.strong_count()), (1, 1));
        let mut next = Box::pin(room.take(mine, 1));
        assert!(poll!(&mut next).is_pending(), "not begun");
        assert!(poll!(Box::pin(room.take(yours, 1))).is_ready(), "another account's");
        end.send(()).unwrap();
        let share = next.await.unwrap();
        assert_eq!(kept.strong_count(), 0);
        assert_eq!(run_blocking(share, "held", || 7).await, Some((7, "held")));
    }
}
