use std::{
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{Receiver, Sender, SyncSender, channel},
    },
    thread,
};

use super::{
    Grammar,
    matcher::{MatchError, Matcher},
};
use crate::sample::TokenMask;

/// Masks of one step that are computed at once, beside the forward pass. The step waits for all of them: fuel bounds what a
/// hostile grammar can add to it, to some 20 ms.
const THREADS: usize = 4;

/// Address space of their stacks: regular expressions are walked by recursion.
const STACK_BYTES: usize = 64 << 20;

/// Compute masks while the device computes logits. They end when the worker does, and sleep when nothing is asked.
#[derive(Debug)]
pub(crate) struct MaskThreads {
    jobs: Sender<Job>,
}

/// What may follow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum NextTokens {
    Of(TokenMask),
    /// The answer is complete, and the model has no token to say so.
    Nothing,
}

/// A mask to compute.
pub(super) struct Job {
    pub(super) grammar: Grammar,
    /// `None` before the first: it is made here, as copying a lexer takes a while.
    pub(super) matcher: Option<Matcher>,
    pub(super) answer: SyncSender<Masked>,
}

/// What became of a [`Job`].
pub(super) struct Masked {
    pub(super) matcher: Matcher,
    pub(super) next: Result<NextTokens, MatchError>,
}

impl MaskThreads {
    pub(crate) fn start() -> Result<Self, std::io::Error> {
        let (jobs, inbox) = channel::<Job>();
        let inbox = Arc::new(Mutex::new(inbox));
        for _ in 0..THREADS {
            let inbox = Arc::clone(&inbox);
            thread::Builder::new()
                .name("grammar-mask".to_owned())
                .stack_size(STACK_BYTES)
                .spawn(move || work(&inbox))?;
        }
        Ok(Self { jobs })
    }

    /// The answer comes through the job's own channel. Without threads there is none, which its reader notices.
    pub(super) fn submit(&self, job: Job) {
        let _ = self.jobs.send(job);
    }
}

fn work(inbox: &Mutex<Receiver<Job>>) {
    loop {
        let job = inbox.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(Job { grammar, matcher, answer }) = job else { return };
        let mut matcher = matcher.unwrap_or_else(|| grammar.start());
        let next = matcher.next_tokens(grammar.has_end());
        // A request that has ended meanwhile needs no mask.
        let _ = answer.send(Masked { matcher, next });
    }
}
