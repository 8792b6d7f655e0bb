//! The room that bodies share.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use sparkherd_engine::ClientKey;
use tokio::sync::{AcquireError, OwnedSemaphorePermit, Semaphore};

use super::{READ_TIMEOUT, STALL_TIMEOUT};
use crate::openai::{ApiError, PromptSize};

/// The largest body of any engine: a context of a million tokens is about 4 MiB of English; twice that leaves room for other
/// scripts and for JSON's own.
pub(super) const BODY_BYTES_MAX: usize = 8 << 20;
/// The largest list of prompts, where a context allows no larger one: 2048 texts, which is OpenAI's limit, of a thousand
/// letters, which is how clients cut theirs, and half as much again for other scripts.
pub(super) const LIST_BYTES: usize = 3 << 20;
/// What a body may have beside its prompt.
const BODY_BYTES_BASE: usize = 64 << 10;
/// Bytes of body for each token of the context. Prose has 5 bytes a token, other scripts written as `\uXXXX` 6 to 12, lists
/// of token numbers up to 8; no prompt that fits averages more than this.
const BODY_BYTES_PER_TOKEN: usize = 32;
/// A permit stands for this many bytes.
pub(super) const PERMIT_BYTES: usize = 1024;

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
    pub(super) pool: Arc<Semaphore>,
    /// Of the pool, half for each account: what is left is for the others.
    accounts: Arc<Mutex<BTreeMap<ClientKey, Weak<Semaphore>>>>,
    /// Room for one of the largest, used by one.
    pub(super) lane: Arc<Semaphore>,
    pub(super) read_timeout: Duration,
    pub(super) stall_timeout: Duration,
}

/// The room a body takes, until what was read from it is done with.
#[derive(Debug)]
pub(crate) enum BodyShare {
    /// A permit for each [`PERMIT_BYTES`] that came.
    Pool {
        of_account: OwnedSemaphorePermit,
        of_all: OwnedSemaphorePermit,
    },
    Lane {
        _permit: OwnedSemaphorePermit,
    },
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
            accounts: Arc::default(),
            lane: Arc::new(Semaphore::new(1)),
            read_timeout: READ_TIMEOUT,
            stall_timeout: STALL_TIMEOUT,
        }
    }

    pub(super) const fn bytes_max(&self, kind: BodyKind) -> usize {
        match kind {
            BodyKind::Prompt => self.prompt_bytes_max,
            BodyKind::Prompts | BodyKind::Texts => self.list_bytes_max,
        }
    }

    pub(super) fn too_large(&self, kind: BodyKind, body_bytes: usize) -> ApiError {
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
    pub(super) fn no_share(&self, account: ClientKey) -> Result<BodyShare, ApiError> {
        let none = |of: Arc<Semaphore>| of.try_acquire_many_owned(0).map_err(|_| ApiError::BodyBroken);
        Ok(BodyShare::Pool { of_account: none(self.half(account))?, of_all: none(Arc::clone(&self.pool))? })
    }

    /// The account's half of the pool. It is kept as long as any of its bodies is there.
    fn half(&self, account: ClientKey) -> Arc<Semaphore> {
        let mut accounts = self.accounts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(half) = accounts.get(&account).and_then(Weak::upgrade) {
            return half;
        }
        let half = Arc::new(Semaphore::new(permits(self.list_bytes_max / 2)));
        accounts.retain(|_, half| half.strong_count() > 0);
        accounts.insert(account, Arc::downgrade(&half));
        half
    }
}

pub(super) const fn permits(bytes: usize) -> usize {
    bytes / PERMIT_BYTES + 1
}

impl BodyShare {
    /// Makes room for a body of so many bytes.
    pub(super) async fn grow(&mut self, body_bytes: usize, budget: &BodyBudget) -> Result<(), ApiError> {
        let Self::Pool { of_account, of_all } = self else { return Ok(()) };
        let missing = permits(body_bytes).saturating_sub(of_all.num_permits());
        let missing = u32::try_from(missing).unwrap_or(u32::MAX);
        if missing == 0 {
            return Ok(());
        }
        let half = Arc::clone(of_account.semaphore());
        tokio::select! {
            biased;
            more = both(half, Arc::clone(&budget.pool), missing) => {
                let (account, all) = more.map_err(|_| ApiError::BodyBroken)?;
                of_account.merge(account);
                of_all.merge(all);
            }
            lane = Arc::clone(&budget.lane).acquire_owned() => {
                *self = Self::Lane { _permit: lane.map_err(|_| ApiError::BodyBroken)? };
            }
        }
        Ok(())
    }
}

/// An account waits for its own half first: it holds nothing of the pool meanwhile.
async fn both(
    half: Arc<Semaphore>,
    pool: Arc<Semaphore>,
    permits: u32,
) -> Result<(OwnedSemaphorePermit, OwnedSemaphorePermit), AcquireError> {
    let of_account = half.acquire_many_owned(permits).await?;
    Ok((of_account, pool.acquire_many_owned(permits).await?))
}
