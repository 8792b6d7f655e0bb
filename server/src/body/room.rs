//! The room that bodies share.

use std::time::Duration;

use sparkherd_engine::ClientKey;
use tokio::sync::AcquireError;

use super::{READ_TIMEOUT, STALL_TIMEOUT};
use crate::openai::{ApiError, PromptSize};
use crate::room::{Room, RoomShare};

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
    /// Room for one of the largest, shared by all: half of it for each account, so that what is left is for the others.
    pub(super) pool: Room,
    /// Room for one of the largest, used by one. Of an account one waits for it, so that nobody waits behind many of another's.
    pub(super) lane: Room,
    pub(super) read_timeout: Duration,
    pub(super) stall_timeout: Duration,
}

/// The room a body takes, until what was read from it is done with.
#[derive(Debug)]
pub(crate) enum BodyShare {
    /// A permit for each [`PERMIT_BYTES`] that came.
    Pool(RoomShare),
    Lane {
        _share: RoomShare,
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
            pool: Room::new(permits(list_bytes_max), permits(list_bytes_max / 2)),
            lane: Room::new(1, 1),
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
    pub(super) async fn no_share(&self, account: ClientKey) -> Result<BodyShare, AcquireError> {
        self.pool.no_share(account).await.map(BodyShare::Pool)
    }
}

pub(super) const fn permits(bytes: usize) -> usize {
    bytes / PERMIT_BYTES + 1
}

impl BodyShare {
    /// Makes room for a body of so many bytes.
    pub(super) async fn grow(
        &mut self,
        body_bytes: usize,
        account: ClientKey,
        budget: &BodyBudget,
    ) -> Result<(), AcquireError> {
        let Self::Pool(share) = self else { return Ok(()) };
        let missing = permits(body_bytes).saturating_sub(share.count());
        let missing = u32::try_from(missing).unwrap_or(u32::MAX);
        if missing == 0 {
            return Ok(());
        }
        tokio::select! {
            biased;
            more = share.grow(missing) => more,
            lane = budget.lane.take(account, 1) => {
                *self = Self::Lane { _share: lane? };
                Ok(())
            }
        }
    }
}
