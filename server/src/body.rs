//! Reading a request's body within bounds of size, time and memory.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, BufMut};
use futures::{Stream, StreamExt};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use warp::http::HeaderMap;
use warp::http::header::CONTENT_LENGTH;

use crate::openai::ApiError;

/// A context of a million tokens is about 4 MiB of English; twice that leaves room for other scripts and for JSON's own.
pub const BODY_BYTES_MAX: usize = 8 << 20;
/// What all bodies being read or tokenised may take together: two of the largest, or thousands of usual ones (I18).
const BUDGET_BYTES: usize = 2 * BODY_BYTES_MAX;
/// The largest body over a link of 3 Mbit/s, waiting for the budget included.
const READ_TIMEOUT: Duration = Duration::from_secs(30);
/// How much of a body that is too large is read and thrown away, so that the client reads the error instead of a reset.
const DISCARD_BYTES_MAX: usize = 8 * BODY_BYTES_MAX;
/// A permit stands for this many bytes.
const PERMIT_BYTES: usize = 1024;

/// Bounds the memory of all bodies together.
#[derive(Clone, Debug)]
pub(crate) struct BodyBudget(Arc<Semaphore>);

impl Default for BodyBudget {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(BUDGET_BYTES / PERMIT_BYTES)))
    }
}

/// A body, and its share of the budget.
#[derive(Debug)]
pub(crate) struct Body {
    bytes: Vec<u8>,
    _share: OwnedSemaphorePermit,
}

impl Body {
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

pub(crate) async fn read_body(
    headers: &HeaderMap,
    body: impl Stream<Item = Result<impl Buf, warp::Error>> + Send,
    budget: &BodyBudget,
) -> Result<Body, ApiError> {
    let timeout = ApiError::BodyTimeout { seconds: READ_TIMEOUT.as_secs() };
    tokio::time::timeout(READ_TIMEOUT, read(headers, body, budget)).await.unwrap_or(Err(timeout))
}

async fn read(
    headers: &HeaderMap,
    body: impl Stream<Item = Result<impl Buf, warp::Error>> + Send,
    budget: &BodyBudget,
) -> Result<Body, ApiError> {
    let declared = headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<usize>().ok());
    let mut body = pin!(body);
    if declared.is_some_and(|length| length > BODY_BYTES_MAX) {
        return too_large(body, 0).await;
    }
    // hyper ends the body at the declared length, so the share is never exceeded.
    let share_bytes = declared.unwrap_or(BODY_BYTES_MAX);
    let permits = u32::try_from(share_bytes / PERMIT_BYTES + 1).unwrap_or(u32::MAX);
    let share = Arc::clone(&budget.0).acquire_many_owned(permits).await.map_err(|_| ApiError::BodyBroken)?;
    let mut bytes = Vec::with_capacity(declared.unwrap_or_default());
    while let Some(chunk) = body.next().await {
        let chunk = chunk.map_err(|_| ApiError::BodyBroken)?;
        if bytes.len() + chunk.remaining() > BODY_BYTES_MAX {
            let read_bytes = bytes.len();
            drop(bytes);
            return too_large(body, read_bytes).await;
        }
        bytes.put(chunk);
    }
    Ok(Body { bytes, _share: share })
}

async fn too_large(
    mut body: impl Stream<Item = Result<impl Buf, warp::Error>> + Unpin,
    mut read_bytes: usize,
) -> Result<Body, ApiError> {
    while read_bytes < DISCARD_BYTES_MAX
        && let Some(Ok(chunk)) = body.next().await
    {
        read_bytes += chunk.remaining();
    }
    Err(ApiError::BodyTooLarge { limit: BODY_BYTES_MAX })
}
