//! Reading a request's body within bounds of size, time and memory.
//!
//! ```text
//! chunk comes ─► room in the pool? ─► kept ─► the next chunk, which has to come soon
//!                     └ no: wait for the pool, or for the lane, whose one body needs no more room
//! ```
//!
//! Room is taken as bytes come, so that a client which only declares a large body holds none of it. Bodies that wait for
//! each other cannot lock one another out: one of them goes through the lane.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, BufMut};
use futures::{Stream, StreamExt};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout, timeout_at};
use warp::http::HeaderMap;
use warp::http::header::CONTENT_LENGTH;

use crate::openai::{ApiError, PromptSize};

/// The largest body of any engine: a context of a million tokens is about 4 MiB of English; twice that leaves room for other
/// scripts and for JSON's own.
const BODY_BYTES_MAX: usize = 8 << 20;
/// The largest list of prompts, where a context allows no larger one: 2048 texts, which is OpenAI's limit, of a thousand
/// letters, which is how clients cut theirs, and half as much again for other scripts.
const LIST_BYTES: usize = 3 << 20;
/// What a body may have beside its prompt.
const BODY_BYTES_BASE: usize = 64 << 10;
/// Bytes of body for each token of the context. Prose has 5 bytes a token, other scripts written as `\uXXXX` 6 to 12, lists
/// of token numbers up to 8; no prompt that fits averages more than this.
const BODY_BYTES_PER_TOKEN: usize = 32;
/// The largest body over a link of 3 Mbit/s, waiting for room included.
const READ_TIMEOUT: Duration = Duration::from_secs(30);
/// So much more of a body has to come within [`STALL_TIMEOUT`]: 3 KiB a second, less than any link that is in use.
const PROGRESS_BYTES: usize = 16 << 10;
/// A few lost packets long.
const STALL_TIMEOUT: Duration = Duration::from_secs(5);
/// How much of a body that is too large is read and thrown away, so that the client reads the error instead of a reset.
const DISCARD_BYTES_MAX: usize = 8 * BODY_BYTES_MAX;
/// A permit stands for this many bytes.
const PERMIT_BYTES: usize = 1024;

/// What a body may ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BodyKind {
    /// One prompt, which has to fit the context.
    Prompt,
    /// One, or a list of prompts, each of which has to.
    Prompts,
    /// A list of texts, each of which has to.
    Texts,
}

/// Bounds the bytes of bodies that are kept, all together, to two of the largest: what [`BodyShare`] counts. What a
/// connection has in hand and what tokens take come on top.
#[derive(Clone, Debug)]
pub(crate) struct BodyBudget {
    context: u32,
    prompt_bytes_max: usize,
    list_bytes_max: usize,
    /// Room for one of the largest, shared by all.
    pool: Arc<Semaphore>,
    /// Room for one of the largest, used by one.
    lane: Arc<Semaphore>,
    read_timeout: Duration,
    stall_timeout: Duration,
}

/// The room a body takes, until what was read from it is done with.
#[derive(Debug)]
pub(crate) enum BodyShare {
    /// A permit for each [`PERMIT_BYTES`] that came.
    Pool(OwnedSemaphorePermit),
    Lane {
        _permit: OwnedSemaphorePermit,
    },
}

/// A body, and the room it takes.
#[derive(Debug)]
pub(crate) struct Body {
    bytes: Vec<u8>,
    share: BodyShare,
}

impl BodyBudget {
    pub(crate) fn new(context: u32) -> Self {
        let tokens = usize::try_from(context).unwrap_or(usize::MAX);
        let prompt_bytes_max =
            BODY_BYTES_BASE.saturating_add(tokens.saturating_mul(BODY_BYTES_PER_TOKEN)).min(BODY_BYTES_MAX);
        let list_bytes_max = prompt_bytes_max.max(LIST_BYTES);
        Self {
            context,
            prompt_bytes_max,
            list_bytes_max,
            pool: Arc::new(Semaphore::new(permits(list_bytes_max))),
            lane: Arc::new(Semaphore::new(1)),
            read_timeout: READ_TIMEOUT,
            stall_timeout: STALL_TIMEOUT,
        }
    }

    const fn bytes_max(&self, kind: BodyKind) -> usize {
        match kind {
            BodyKind::Prompt => self.prompt_bytes_max,
            BodyKind::Prompts | BodyKind::Texts => self.list_bytes_max,
        }
    }

    fn too_large(&self, kind: BodyKind, body_bytes: usize) -> ApiError {
        if kind == BodyKind::Texts {
            return ApiError::BodyTooLarge { limit: self.list_bytes_max };
        }
        if body_bytes > BODY_BYTES_MAX {
            return ApiError::BodyTooLarge { limit: BODY_BYTES_MAX };
        }
        let prompt = PromptSize::BodyBytes(body_bytes);
        ApiError::ContextLength { param: None, prompt, context: self.context }
    }

    /// The share of a body of which nothing has come.
    fn no_share(&self) -> Result<BodyShare, ApiError> {
        let none = Arc::clone(&self.pool).try_acquire_many_owned(0);
        none.map(BodyShare::Pool).map_err(|_| ApiError::BodyBroken)
    }
}

const fn permits(bytes: usize) -> usize {
    bytes / PERMIT_BYTES + 1
}

impl BodyShare {
    /// Makes room for a body of so many bytes.
    async fn grow(&mut self, body_bytes: usize, budget: &BodyBudget) -> Result<(), ApiError> {
        let Self::Pool(held) = self else { return Ok(()) };
        let missing = u32::try_from(permits(body_bytes).saturating_sub(held.num_permits()));
        let missing = missing.unwrap_or(u32::MAX);
        if missing == 0 {
            return Ok(());
        }
        tokio::select! {
            biased;
            more = Arc::clone(&budget.pool).acquire_many_owned(missing) => {
                held.merge(more.map_err(|_| ApiError::BodyBroken)?);
            }
            lane = Arc::clone(&budget.lane).acquire_owned() => {
                *self = Self::Lane { _permit: lane.map_err(|_| ApiError::BodyBroken)? };
            }
        }
        Ok(())
    }
}

impl Body {
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Forgets the bytes, once what they say stands on its own. The share is kept for that.
    pub(crate) fn into_share(self) -> BodyShare {
        self.share
    }
}

pub(crate) async fn read_body(
    headers: &HeaderMap,
    body: impl Stream<Item = Result<impl Buf, warp::Error>> + Send,
    kind: BodyKind,
    budget: &BodyBudget,
) -> Result<Body, ApiError> {
    let late = ApiError::BodyTimeout { seconds: budget.read_timeout.as_secs() };
    timeout(budget.read_timeout, read(headers, body, kind, budget)).await.unwrap_or(Err(late))
}

async fn read(
    headers: &HeaderMap,
    body: impl Stream<Item = Result<impl Buf, warp::Error>> + Send,
    kind: BodyKind,
    budget: &BodyBudget,
) -> Result<Body, ApiError> {
    let declared = headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<usize>().ok());
    let mut body = pin!(body);
    if declared.is_some_and(|length| length > budget.bytes_max(kind)) {
        return Err(budget.too_large(kind, discard(body, 0).await));
    }
    let mut share = budget.no_share()?;
    let mut bytes = Vec::new();
    let mut progress = Progress::new(budget.stall_timeout, Instant::now());
    while let Some(chunk) = progress.next(&mut body).await? {
        let chunk = chunk.map_err(|_| ApiError::BodyBroken)?;
        let body_bytes = bytes.len() + chunk.remaining();
        if body_bytes > budget.bytes_max(kind) {
            drop((bytes, chunk));
            return Err(budget.too_large(kind, discard(body, body_bytes).await));
        }
        let came = Instant::now();
        share.grow(body_bytes, budget).await?;
        progress.note(body_bytes, came, Instant::now());
        bytes.put(chunk);
    }
    Ok(Body { bytes, share })
}

/// How a body comes along.
struct Progress {
    stall_timeout: Duration,
    /// Bytes by when the deadline was set.
    body_bytes: usize,
    deadline: Instant,
}

impl Progress {
    fn new(stall_timeout: Duration, now: Instant) -> Self {
        Self { stall_timeout, body_bytes: 0, deadline: now + stall_timeout }
    }

    async fn next<T>(&self, body: &mut (impl Stream<Item = T> + Unpin)) -> Result<Option<T>, ApiError> {
        let stalled = |_| ApiError::BodyStalled { seconds: self.stall_timeout.as_secs() };
        timeout_at(self.deadline, body.next()).await.map_err(stalled)
    }

    /// Waiting for room, from when the last bytes had come until `now`, is no fault of the client's.
    fn note(&mut self, body_bytes: usize, came: Instant, now: Instant) {
        self.deadline += now - came;
        if body_bytes - self.body_bytes >= PROGRESS_BYTES {
            self.body_bytes = body_bytes;
            self.deadline = now + self.stall_timeout;
        }
    }
}

/// Reads and forgets the rest of a body of which `body_bytes` have been read; returns its length, or where it gave up.
async fn discard(
    mut body: impl Stream<Item = Result<impl Buf, warp::Error>> + Unpin,
    mut body_bytes: usize,
) -> usize {
    while body_bytes < DISCARD_BYTES_MAX
        && let Some(Ok(chunk)) = body.next().await
    {
        body_bytes += chunk.remaining();
    }
    body_bytes
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use futures::stream::{empty, iter, pending};

    use super::*;

    type Chunk = Result<Bytes, warp::Error>;

    fn chunks(bytes: usize) -> impl Stream<Item = Chunk> + Unpin {
        let whole = bytes / PROGRESS_BYTES;
        let sizes = std::iter::repeat_n(PROGRESS_BYTES, whole).chain([bytes - whole * PROGRESS_BYTES]);
        iter(sizes.map(|size| Ok(Bytes::from(vec![b' '; size]))).collect::<Vec<_>>())
    }

    async fn read(body: impl Stream<Item = Chunk> + Send, budget: &BodyBudget) -> Result<Body, ApiError> {
        read_body(&HeaderMap::new(), body, BodyKind::Prompts, budget).await
    }

    fn free(budget: &BodyBudget) -> (usize, usize) {
        (budget.pool.available_permits(), budget.lane.available_permits())
    }

    #[tokio::test]
    async fn a_body_that_does_not_come_along_is_given_up() {
        let all = free(&BodyBudget::new(16));
        let begun = || iter([Chunk::Ok(Bytes::from_static(b"{"))]).chain(pending());
        let stalls = BodyBudget { stall_timeout: Duration::from_millis(10), ..BodyBudget::new(16) };
        assert_eq!(read(begun(), &stalls).await.unwrap_err(), ApiError::BodyStalled { seconds: 0 });
        let ends = BodyBudget { read_timeout: Duration::from_millis(10), ..BodyBudget::new(16) };
        assert_eq!(read(begun(), &ends).await.unwrap_err(), ApiError::BodyTimeout { seconds: 0 });
        assert_eq!([free(&stalls), free(&ends)], [all; 2], "what they held is given back");
    }

    #[test]
    fn drops_are_no_progress() {
        let begin = Instant::now();
        let second = |seconds| begin + Duration::from_secs(seconds);
        let mut progress = Progress::new(STALL_TIMEOUT, begin);
        progress.note(1, second(1), second(1));
        progress.note(PROGRESS_BYTES - 1, second(4), second(4));
        assert_eq!(progress.deadline, second(5));
        progress.note(PROGRESS_BYTES - 1, second(4), second(7));
        assert_eq!(progress.deadline, second(8), "it waited for three seconds");
        progress.note(PROGRESS_BYTES, second(7), second(7));
        assert_eq!(progress.deadline, second(12));
    }

    /// Bodies that together need more than there is wait, and each comes through.
    #[tokio::test]
    async fn bodies_do_not_lock_each_other_out() {
        let budget = BodyBudget::new(16);
        let all = free(&budget);
        let size = LIST_BYTES / 2 + PROGRESS_BYTES;
        let reads = (0..8).map(|_| {
            // One chunk of each in turn.
            let body = chunks(size).then(|chunk| async {
                tokio::task::yield_now().await;
                chunk
            });
            let budget = budget.clone();
            async move { read(Box::pin(body), &budget).await.map(|body| body.bytes().len()) }
        });
        let read = futures::future::join_all(reads).await;
        assert!(read.iter().all(|bytes| *bytes == Ok(size)), "{read:?}");
        assert_eq!(free(&budget), all);
    }

    /// However large the bodies that others only begin, a request finds room.
    #[tokio::test]
    async fn whoever_only_declares_a_large_body_holds_nobody_up() {
        let budget = BodyBudget::new(16);
        let length = budget.list_bytes_max.to_string().parse().unwrap();
        let headers = HeaderMap::from_iter([(CONTENT_LENGTH, length)]);
        let dribbled = || {
            let begun = iter([Chunk::Ok(Bytes::from_static(b"{"))]).chain(pending());
            Box::pin(read_body(&headers, begun, BodyKind::Prompts, &budget))
        };
        let mut dribblers: Vec<_> = (0..16).map(|_| dribbled()).collect();
        for dribbler in &mut dribblers {
            assert!(futures::poll!(dribbler).is_pending());
        }
        // They do not even run into their time-outs, as nobody polls them.
        assert_eq!(read(chunks(LIST_BYTES), &budget).await.unwrap().bytes().len(), LIST_BYTES);
    }

    #[tokio::test]
    async fn what_is_kept_is_bounded_and_waiting_for_room_counts_as_reading() {
        let budget = BodyBudget::new(16);
        let pool = read(chunks(LIST_BYTES - PERMIT_BYTES), &budget).await.unwrap();
        let lane = read(chunks(LIST_BYTES), &budget).await.unwrap();
        assert!(matches!((&pool.share, &lane.share), (BodyShare::Pool(_), BodyShare::Lane { .. })));
        let impatient = BodyBudget { read_timeout: Duration::from_millis(10), ..budget.clone() };
        let given_up = read(chunks(PROGRESS_BYTES), &impatient).await.unwrap_err();
        assert_eq!(given_up, ApiError::BodyTimeout { seconds: 0 });
        drop(lane);
        assert_eq!(read(chunks(LIST_BYTES), &budget).await.unwrap().bytes().len(), LIST_BYTES);
        drop(pool);
        assert!(read(empty(), &budget).await.unwrap().bytes().is_empty());
    }

    #[tokio::test]
    async fn a_share_is_of_the_bytes_that_came_and_outlives_them() {
        let budget = BodyBudget::new(16);
        let (all, _) = free(&budget);
        let body = read(chunks(5 * PERMIT_BYTES), &budget).await.unwrap();
        let share = body.into_share();
        assert_eq!(free(&budget).0, all - permits(5 * PERMIT_BYTES));
        drop(share);
        assert_eq!(free(&budget).0, all);
    }

    #[test]
    fn lists_may_be_larger_than_one_prompt() {
        let small = BodyBudget::new(512);
        assert_eq!(small.bytes_max(BodyKind::Prompt), (64 << 10) + 512 * 32);
        assert_eq!([BodyKind::Prompts, BodyKind::Texts].map(|kind| small.bytes_max(kind)), [LIST_BYTES; 2]);
        assert_eq!(small.too_large(BodyKind::Texts, 4 << 20), ApiError::BodyTooLarge { limit: LIST_BYTES });
        let prompt = PromptSize::BodyBytes(4 << 20);
        let too_long = ApiError::ContextLength { param: None, prompt, context: 512 };
        assert_eq!(small.too_large(BodyKind::Prompts, 4 << 20), too_long);
        let large = BodyBudget::new(u32::MAX);
        assert_eq!(
            [BodyKind::Prompt, BodyKind::Prompts].map(|kind| large.bytes_max(kind)),
            [BODY_BYTES_MAX; 2]
        );
    }
}
