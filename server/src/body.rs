//! Reading a request's body within bounds of size, time and memory.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, BufMut};
use futures::{Stream, StreamExt};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use warp::http::HeaderMap;
use warp::http::header::CONTENT_LENGTH;

use crate::openai::{ApiError, PromptSize};

/// The largest body of any engine: a context of a million tokens is about 4 MiB of English; twice that leaves room for other
/// scripts and for JSON's own.
const BODY_BYTES_MAX: usize = 8 << 20;
/// What a body may have beside its prompt.
const BODY_BYTES_BASE: usize = 64 << 10;
/// Bytes of body for each token of the context. Prose has 5 bytes a token, other scripts written as `\uXXXX` 6 to 12, lists
/// of token numbers up to 8; no prompt that fits averages more than this.
const BODY_BYTES_PER_TOKEN: usize = 32;
/// Largest bodies that may be held at once. A body is copied a few times on its way to tokens; with usual bodies the same
/// bytes serve thousands of requests (I18).
const BODIES_MAX: usize = 2;
/// The largest body over a link of 3 Mbit/s, waiting for the budget included.
const READ_TIMEOUT: Duration = Duration::from_secs(30);
/// How much of a body that is too large is read and thrown away, so that the client reads the error instead of a reset.
const DISCARD_BYTES_MAX: usize = 8 * BODY_BYTES_MAX;
/// A permit stands for this many bytes.
const PERMIT_BYTES: usize = 1024;

/// Bounds the memory of all bodies together, by what the engine's context can use.
#[derive(Clone, Debug)]
pub(crate) struct BodyBudget {
    context: u32,
    body_bytes_max: usize,
    permits: Arc<Semaphore>,
    timeout: Duration,
}

impl BodyBudget {
    pub(crate) fn new(context: u32) -> Self {
        let tokens = usize::try_from(context).unwrap_or(usize::MAX);
        let body_bytes_max =
            BODY_BYTES_BASE.saturating_add(tokens.saturating_mul(BODY_BYTES_PER_TOKEN)).min(BODY_BYTES_MAX);
        let permits = Arc::new(Semaphore::new(BODIES_MAX * permits(body_bytes_max)));
        Self { context, body_bytes_max, permits, timeout: READ_TIMEOUT }
    }

    fn too_large(&self, body_bytes: usize) -> ApiError {
        if body_bytes > BODY_BYTES_MAX {
            return ApiError::BodyTooLarge { limit: BODY_BYTES_MAX };
        }
        ApiError::ContextLength {
            param: None,
            prompt: PromptSize::BodyBytes(body_bytes),
            context: self.context,
        }
    }
}

const fn permits(bytes: usize) -> usize {
    bytes / PERMIT_BYTES + 1
}

/// A body, and its share of the budget.
#[derive(Debug)]
pub(crate) struct Body {
    bytes: Vec<u8>,
    /// Of these bytes; given back when the body is.
    share: OwnedSemaphorePermit,
}

impl Body {
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Forgets the bytes, once what is in them has become tokens: whoever waits for the answer holds nobody else's body up.
    pub(crate) fn release(&mut self) {
        self.bytes = Vec::new();
        drop(self.share.split(self.share.num_permits()));
    }

    /// A body that did not say its length took a share for the longest.
    fn give_back_what_did_not_come(&mut self) {
        drop(self.share.split(self.share.num_permits().saturating_sub(permits(self.bytes.len()))));
    }
}

pub(crate) async fn read_body(
    headers: &HeaderMap,
    body: impl Stream<Item = Result<impl Buf, warp::Error>> + Send,
    budget: &BodyBudget,
) -> Result<Body, ApiError> {
    let timeout = ApiError::BodyTimeout { seconds: budget.timeout.as_secs() };
    tokio::time::timeout(budget.timeout, read(headers, body, budget)).await.unwrap_or(Err(timeout))
}

async fn read(
    headers: &HeaderMap,
    body: impl Stream<Item = Result<impl Buf, warp::Error>> + Send,
    budget: &BodyBudget,
) -> Result<Body, ApiError> {
    let declared = headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<usize>().ok());
    let mut body = pin!(body);
    if declared.is_some_and(|length| length > budget.body_bytes_max) {
        return Err(budget.too_large(discard(body, 0).await));
    }
    // hyper ends the body at the declared length, so the share is never exceeded.
    let share = u32::try_from(permits(declared.unwrap_or(budget.body_bytes_max))).unwrap_or(u32::MAX);
    let share =
        Arc::clone(&budget.permits).acquire_many_owned(share).await.map_err(|_| ApiError::BodyBroken)?;
    let mut bytes = Vec::with_capacity(declared.unwrap_or_default());
    while let Some(chunk) = body.next().await {
        let chunk = chunk.map_err(|_| ApiError::BodyBroken)?;
        let body_bytes = bytes.len() + chunk.remaining();
        if body_bytes > budget.body_bytes_max {
            drop((bytes, chunk));
            return Err(budget.too_large(discard(body, body_bytes).await));
        }
        bytes.put(chunk);
    }
    let mut body = Body { bytes, share };
    body.give_back_what_did_not_come();
    Ok(body)
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

    fn budget(timeout: Duration) -> BodyBudget {
        BodyBudget { timeout, ..BodyBudget::new(16) }
    }

    #[tokio::test]
    async fn a_body_that_does_not_come_to_its_end_is_given_up() {
        let (headers, budget) = (HeaderMap::new(), budget(Duration::from_millis(10)));
        let begun = iter([Chunk::Ok(Bytes::from_static(b"{"))]).chain(pending());
        let given_up = read_body(&headers, begun, &budget).await.unwrap_err();
        assert_eq!(given_up, ApiError::BodyTimeout { seconds: 0 });
        let all = budget.permits.available_permits();
        assert_eq!(all, BODIES_MAX * permits(budget.body_bytes_max), "its share is given back");
    }

    #[tokio::test]
    async fn waiting_for_a_share_counts_as_reading() {
        let (headers, budget) = (HeaderMap::new(), budget(Duration::from_millis(10)));
        let mut held = Vec::new();
        for _ in 0..BODIES_MAX {
            let whole = vec![b' '; budget.body_bytes_max];
            held.push(read_body(&headers, iter([Chunk::Ok(whole.into())]), &budget).await.unwrap());
        }
        let given_up = read_body(&headers, empty::<Chunk>(), &budget).await.unwrap_err();
        assert_eq!(given_up, ApiError::BodyTimeout { seconds: 0 });
        held.pop();
        assert!(read_body(&headers, empty::<Chunk>(), &budget).await.unwrap().bytes().is_empty());
    }

    #[tokio::test]
    async fn a_share_is_of_the_bytes_that_came_and_ends_with_them() {
        let (headers, budget) = (HeaderMap::new(), budget(READ_TIMEOUT));
        let all = budget.permits.available_permits();
        let small = iter([Chunk::Ok(Bytes::from_static(b"{}"))]);
        let mut body = read_body(&headers, small, &budget).await.unwrap();
        assert_eq!(budget.permits.available_permits(), all - permits(2));
        body.release();
        assert_eq!(budget.permits.available_permits(), all);
        assert!(body.bytes().is_empty());
    }
}
