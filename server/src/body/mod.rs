//! Reading a request's body within bounds of size, time and memory.
//!
//! ```text
//! chunk comes ─► room in the pool? ─► kept ─► the next chunk, which has to come soon
//!                     └ no: wait for the pool, or for the lane, whose one body needs no more room
//! ```
//!
//! Room is taken as bytes come, so that a client which only declares a large body holds none of it. Bodies that wait for
//! each other cannot lock one another out: one of them goes through the lane. An account has half of the pool at most, so that
//! it cannot lock others out either.

mod room;

use std::pin::pin;
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes};
use futures::{Stream, StreamExt};
use sparkherd_engine::ClientKey;
use tokio::time::{Instant, timeout_at};
use warp::http::HeaderMap;
use warp::http::header::CONTENT_LENGTH;

use crate::openai::ApiError;

pub(crate) use room::{BodyBudget, BodyKind, BodyShare};

use room::BODY_BYTES_MAX;

/// The largest body over a link of 3 Mbit/s; as long may it wait for room.
const READ_TIMEOUT: Duration = Duration::from_secs(30);
/// After which a body that found no room may try again: others are read meanwhile, and what is read takes no room for long.
const FULL_RETRY_SECONDS: u32 = 2;
/// So much more of a body has to come within [`STALL_TIMEOUT`]: 3 KiB a second, less than any link that is in use.
const PROGRESS_BYTES: usize = 16 << 10;
/// A few lost packets long.
const STALL_TIMEOUT: Duration = Duration::from_secs(5);
/// How much of a body that is too large is read and thrown away, so that the client reads the error instead of a reset.
const DISCARD_BYTES_MAX: usize = 8 * BODY_BYTES_MAX;

/// A body, and the room it takes.
#[derive(Debug)]
pub(crate) struct Body {
    bytes: Vec<u8>,
    share: BodyShare,
}

impl Body {
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Both as one: the room is given back with the last of the bytes.
    pub(crate) fn into_shared(self) -> Bytes {
        Bytes::from_owner(self)
    }

    /// Forgets the bytes, once what they say stands on its own. The share is kept for that.
    pub(crate) fn into_share(self) -> BodyShare {
        self.share
    }
}

impl AsRef<[u8]> for Body {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

pub(crate) async fn read_body(
    headers: &HeaderMap,
    body: impl Stream<Item = Result<impl Buf, warp::Error>> + Send,
    kind: BodyKind,
    account: ClientKey,
    budget: &BodyBudget,
) -> Result<Body, ApiError> {
    let declared = headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<usize>().ok());
    let mut body = pin!(body);
    if declared.is_some_and(|length| length > budget.bytes_max(kind)) {
        return Err(budget.too_large(kind, discard(body, 0).await));
    }
    let closed = |_| ApiError::BodyBroken;
    let mut share = budget.no_share(account).await.map_err(closed)?;
    let mut bytes = Vec::new();
    let mut progress = Progress::new(budget, Instant::now());
    while let Some(chunk) = progress.next(&mut body).await? {
        let chunk = chunk.map_err(|_| ApiError::BodyBroken)?;
        let body_bytes = bytes.len() + chunk.remaining();
        if body_bytes > budget.bytes_max(kind) {
            drop((bytes, chunk));
            return Err(budget.too_large(kind, discard(body, body_bytes).await));
        }
        let came = Instant::now();
        let room = timeout_at(progress.waiting_end, share.grow(body_bytes, account, budget)).await;
        progress.note(body_bytes, came, Instant::now());
        let Ok(room) = room else {
            drop((bytes, chunk, share));
            let _ = timeout_at(progress.end, discard(body, body_bytes)).await;
            return Err(ApiError::BodiesFull { retry_after_seconds: FULL_RETRY_SECONDS });
        };
        room.map_err(closed)?;
        bytes.put(chunk);
    }
    Ok(Body { bytes, share })
}

/// How a body comes along.
struct Progress {
    read_timeout: Duration,
    stall_timeout: Duration,
    /// Bytes by when the deadline was set.
    body_bytes: usize,
    deadline: Instant,
    /// Of the whole body.
    end: Instant,
    /// Of all waiting for room.
    waiting_end: Instant,
}

impl Progress {
    fn new(budget: &BodyBudget, now: Instant) -> Self {
        let BodyBudget { read_timeout, stall_timeout, .. } = *budget;
        let (deadline, end) = (now + stall_timeout, now + read_timeout);
        Self { read_timeout, stall_timeout, body_bytes: 0, deadline, end, waiting_end: end }
    }

    async fn next<T>(&self, body: &mut (impl Stream<Item = T> + Unpin)) -> Result<Option<T>, ApiError> {
        let late = |_| {
            if self.end <= self.deadline {
                ApiError::BodyTimeout { seconds: self.read_timeout.as_secs() }
            } else {
                ApiError::BodyStalled { seconds: self.stall_timeout.as_secs() }
            }
        };
        timeout_at(self.deadline.min(self.end), body.next()).await.map_err(late)
    }

    /// Waiting for room, from when the last bytes had come until `now`, is no fault of the client's.
    fn note(&mut self, body_bytes: usize, came: Instant, now: Instant) {
        self.deadline += now - came;
        self.end += now - came;
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
    use futures::stream::{empty, iter, pending};

    use super::room::{LIST_BYTES, PERMIT_BYTES, permits};
    use super::*;
    use crate::openai::PromptSize;

    type Chunk = Result<Bytes, warp::Error>;

    fn chunks(bytes: usize) -> impl Stream<Item = Chunk> + Unpin {
        let whole = bytes / PROGRESS_BYTES;
        let sizes = std::iter::repeat_n(PROGRESS_BYTES, whole).chain([bytes - whole * PROGRESS_BYTES]);
        iter(sizes.map(|size| Ok(Bytes::from(vec![b' '; size]))).collect::<Vec<_>>())
    }

    async fn read(body: impl Stream<Item = Chunk> + Send, budget: &BodyBudget) -> Result<Body, ApiError> {
        read_of(1, body, budget).await
    }

    async fn read_of(
        account: u64,
        body: impl Stream<Item = Chunk> + Send,
        budget: &BodyBudget,
    ) -> Result<Body, ApiError> {
        read_body(&HeaderMap::new(), body, BodyKind::Prompts, ClientKey(account), budget).await
    }

    fn free(budget: &BodyBudget) -> (usize, usize) {
        (budget.pool.free(), budget.lane.free())
    }

    #[tokio::test]
    async fn a_body_that_does_not_come_along_is_given_up() {
        let all = free(&BodyBudget::new(16));
        let begun = || iter([Chunk::Ok(Bytes::from_static(b"{"))]).chain(pending());
        let mut stalls = BodyBudget::new(16);
        stalls.stall_timeout = Duration::from_millis(10);
        assert_eq!(read(begun(), &stalls).await.unwrap_err(), ApiError::BodyStalled { seconds: 0 });
        let mut ends = BodyBudget::new(16);
        ends.read_timeout = Duration::from_millis(10);
        assert_eq!(read(begun(), &ends).await.unwrap_err(), ApiError::BodyTimeout { seconds: 0 });
        assert_eq!([free(&stalls), free(&ends)], [all; 2], "what they held is given back");
    }

    #[test]
    fn drops_are_no_progress() {
        let begin = Instant::now();
        let second = |seconds| begin + Duration::from_secs(seconds);
        let mut progress = Progress::new(&BodyBudget::new(16), begin);
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
        let length = budget.bytes_max(BodyKind::Prompts).to_string().parse().unwrap();
        let headers = HeaderMap::from_iter([(CONTENT_LENGTH, length)]);
        let dribbled = || {
            let begun = iter([Chunk::Ok(Bytes::from_static(b"{"))]).chain(pending());
            Box::pin(read_body(&headers, begun, BodyKind::Prompts, ClientKey(1), &budget))
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
        let half = LIST_BYTES / 2;
        let first = read_of(1, chunks(half), &budget).await.unwrap();
        let lane = read_of(1, chunks(LIST_BYTES), &budget).await.unwrap();
        assert!(matches!((&first.share, &lane.share), (BodyShare::Pool(_), BodyShare::Lane { .. })));
        // What one account holds leaves the other half to the others.
        let second = read_of(2, chunks(half - PERMIT_BYTES), &budget).await.unwrap();
        assert!(matches!(second.share, BodyShare::Pool(_)));
        let mut impatient = budget.clone();
        impatient.read_timeout = Duration::from_millis(10);
        for account in [1, 2, 3] {
            let given_up = read_of(account, chunks(PROGRESS_BYTES), &impatient).await.unwrap_err();
            assert!(matches!(given_up, ApiError::BodiesFull { .. }), "{given_up}");
        }
        drop(lane);
        assert_eq!(read_of(3, chunks(LIST_BYTES), &budget).await.unwrap().bytes().len(), LIST_BYTES);
        drop(first);
        assert!(read_of(1, chunks(half), &budget).await.is_ok());
        assert!(read_of(3, empty(), &budget).await.unwrap().bytes().is_empty());
    }

    /// Of an account that sends many, one waits for the lane, and not all of them before everybody else.
    #[tokio::test]
    async fn the_lane_goes_to_another_account_next() {
        let budget = BodyBudget::new(16);
        let half = read_of(1, chunks(LIST_BYTES / 2), &budget).await.unwrap();
        let lane = read_of(1, chunks(LIST_BYTES), &budget).await.unwrap();
        let mut mine: Vec<_> = (0..8).map(|_| Box::pin(read_of(1, chunks(LIST_BYTES), &budget))).collect();
        for read in &mut mine {
            assert!(futures::poll!(read).is_pending());
        }
        let mut other = Box::pin(read_of(2, chunks(LIST_BYTES), &budget));
        assert!(futures::poll!(&mut other).is_pending());
        drop(lane);
        assert_eq!(other.await.unwrap().bytes().len(), LIST_BYTES);
        drop(half);
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
