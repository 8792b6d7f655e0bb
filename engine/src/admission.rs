//! Who finds a place, counted before any work is done for them. Pure: the time is an argument.
//!
//! A place is one accepted request, from its reservation to its end. Its prompt's tokens count from when they are known
//! until they are computed: they are the work that stands between a newcomer and its first token.

use std::{collections::BTreeMap, time::Duration};

use crate::request::{ClientKey, SubmitError};

/// openai-python waits at most so long and ignores what is longer.
const RETRY_AFTER_MAX: Duration = Duration::from_mins(1);

/// A header of seconds can say nothing shorter that is not "at once".
const RETRY_AFTER_MIN: Duration = Duration::from_secs(1);

/// Weight of the newest interval in the mean: the last dozen requests decide, so a burst of long ones is noticed and one
/// is not mistaken for a trend.
const INTERVAL_WEIGHT: f64 = 0.125;

/// What may wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueLimits {
    /// Requests that may wait beside the `ForwardPass::sequences_max` that run.
    pub requests: u32,
    /// Prompt tokens that may wait to be computed; a request always finds room if nothing waits.
    pub prompt_tokens: u64,
    /// Requests of one client that may run or wait.
    pub client_requests: u32,
    /// Prompt tokens of one client that may wait to be computed; a request always finds room if none do.
    pub client_prompt_tokens: u64,
}

/// All accepted requests, as counts.
#[derive(Debug)]
pub(crate) struct Admission {
    limits: QueueLimits,
    sequences_max: u32,
    total: Load,
    /// Of clients that have any.
    clients: BTreeMap<ClientKey, Load>,
    ends: EndRate,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Load {
    requests: u32,
    /// Known and not yet computed.
    prompt_tokens: u64,
}

/// How fast places come free.
#[derive(Debug, Default)]
struct EndRate {
    /// Mean time between two ends while there was work.
    interval: Duration,
    /// When the last request ended, or the first one came after a rest.
    last: Duration,
}

impl Admission {
    pub(crate) fn new(limits: QueueLimits, sequences_max: u32) -> Self {
        Self {
            limits,
            sequences_max,
            total: Load::default(),
            clients: BTreeMap::new(),
            ends: EndRate::default(),
        }
    }

    /// Accepted requests that have not ended.
    pub(crate) fn accepted(&self) -> u32 {
        self.total.requests
    }

    /// Prompt tokens that wait to be computed.
    pub(crate) fn prompt_tokens(&self) -> u64 {
        self.total.prompt_tokens
    }

    /// Counts one more request, if there is room for it.
    pub(crate) fn reserve(&mut self, client: ClientKey, now: Duration) -> Result<(), SubmitError> {
        let load = self.load(client);
        let accepted_max = self.sequences_max.saturating_add(self.limits.requests);
        if self.total.requests >= accepted_max || self.total.prompt_tokens >= self.limits.prompt_tokens.max(1)
        {
            return Err(self.queue_full(now));
        }
        if load.requests >= self.limits.client_requests {
            return Err(SubmitError::ClientLimit {
                running_or_waiting: load.requests,
                limit: self.limits.client_requests,
                retry_after: self.client_retry(load, now),
            });
        }
        if load.prompt_tokens >= self.limits.client_prompt_tokens.max(1) {
            return Err(self.client_tokens(load, now));
        }
        if self.total.requests == 0 {
            self.ends.last = now;
        }
        self.total.requests += 1;
        self.clients.entry(client).or_default().requests += 1;
        Ok(())
    }

    /// Counts the prompt of a reserved request, now that its length is known.
    pub(crate) fn add_prompt(
        &mut self,
        client: ClientKey,
        tokens: u64,
        now: Duration,
    ) -> Result<(), SubmitError> {
        let full = |waiting: u64, limit: u64| waiting > 0 && waiting.saturating_add(tokens) > limit;
        let load = self.load(client);
        if full(self.total.prompt_tokens, self.limits.prompt_tokens) {
            return Err(self.queue_full(now));
        }
        if full(load.prompt_tokens, self.limits.client_prompt_tokens) {
            return Err(self.client_tokens(load, now));
        }
        self.total.prompt_tokens += tokens;
        self.clients.entry(client).or_default().prompt_tokens += tokens;
        Ok(())
    }

    /// A prompt is computed, or never will be.
    pub(crate) fn remove_prompt(&mut self, client: ClientKey, tokens: u64) {
        self.total.prompt_tokens = self.total.prompt_tokens.saturating_sub(tokens);
        if let Some(load) = self.clients.get_mut(&client) {
            load.prompt_tokens = load.prompt_tokens.saturating_sub(tokens);
        }
    }

    /// Gives a place back; its prompt is removed already.
    pub(crate) fn end(&mut self, client: ClientKey, now: Duration) {
        self.total.requests = self.total.requests.saturating_sub(1);
        if let Some(load) = self.clients.get_mut(&client) {
            load.requests = load.requests.saturating_sub(1);
            if *load == Load::default() {
                self.clients.remove(&client);
            }
        }
        self.ends.note(now);
    }

    fn load(&self, client: ClientKey) -> Load {
        self.clients.get(&client).copied().unwrap_or_default()
    }

    /// A client that comes back when half of what waits now has gone finds room, whoever else was told the same.
    fn queue_full(&self, now: Duration) -> SubmitError {
        let waiting = self.total.requests.saturating_sub(self.sequences_max);
        SubmitError::QueueFull { waiting, retry_after: self.ends.time_of(f64::from(waiting) / 2.0, now) }
    }

    fn client_tokens(&self, load: Load, now: Duration) -> SubmitError {
        SubmitError::ClientTokenLimit {
            waiting_tokens: load.prompt_tokens,
            limit: self.limits.client_prompt_tokens,
            retry_after: self.client_retry(load, now),
        }
    }

    /// Ends are spread evenly over all requests, so the next of a client's own is that many ends away.
    fn client_retry(&self, load: Load, now: Duration) -> Duration {
        let ends = f64::from(self.total.requests) / f64::from(load.requests.max(1));
        self.ends.time_of(ends, now)
    }
}

impl EndRate {
    fn note(&mut self, now: Duration) {
        let newest = now.saturating_sub(self.last);
        self.interval = if self.interval.is_zero() {
            newest
        } else {
            self.interval.mul_f64(1.0 - INTERVAL_WEIGHT) + newest.mul_f64(INTERVAL_WEIGHT)
        };
        self.last = now;
    }

    /// The time so many ends take; an interval that already lasts longer than the mean counts for itself.
    fn time_of(&self, ends: f64, now: Duration) -> Duration {
        let interval = self.interval.max(now.saturating_sub(self.last));
        let seconds = (interval.as_secs_f64() * ends)
            .clamp(RETRY_AFTER_MIN.as_secs_f64(), RETRY_AFTER_MAX.as_secs_f64());
        Duration::from_secs_f64(seconds)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::EngineLimits;

    const LIMITS: QueueLimits =
        QueueLimits { requests: 6, prompt_tokens: 1_000, client_requests: 4, client_prompt_tokens: 500 };
    const ONE: ClientKey = ClientKey(1);
    const TWO: ClientKey = ClientKey(2);

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn retry_after(error: &SubmitError) -> Duration {
        match error {
            SubmitError::QueueFull { retry_after, .. }
            | SubmitError::ClientLimit { retry_after, .. }
            | SubmitError::ClientTokenLimit { retry_after, .. } => *retry_after,
            other => panic!("{other}"),
        }
    }

    #[test]
    fn requests_and_prompt_tokens_are_bounded_in_all_and_per_client() {
        let now = Duration::ZERO;
        let mut admission = Admission::new(LIMITS, 2);
        (0..4).for_each(|_| admission.reserve(ONE, now).unwrap());
        assert!(matches!(admission.reserve(ONE, now), Err(SubmitError::ClientLimit { limit: 4, .. })));
        (0..4).for_each(|_| admission.reserve(TWO, now).unwrap());
        let full = admission.reserve(ClientKey(3), now);
        assert!(matches!(full, Err(SubmitError::QueueFull { waiting: 6, .. })));
        // Whatever its length, the first prompt of a client that has none waiting is taken, if there is room for all.
        admission.add_prompt(ONE, 700, now).unwrap();
        let refused = admission.add_prompt(ONE, 1, now);
        assert!(matches!(refused, Err(SubmitError::ClientTokenLimit { waiting_tokens: 700, .. })));
        assert!(matches!(admission.add_prompt(TWO, 301, now), Err(SubmitError::QueueFull { .. })));
        admission.add_prompt(TWO, 300, now).unwrap();
        // Full by tokens, with a place left.
        admission.end(TWO, now);
        assert!(matches!(admission.reserve(TWO, now), Err(SubmitError::QueueFull { .. })));
        admission.remove_prompt(ONE, 700);
        assert_eq!(admission.reserve(TWO, now), Ok(()));
        admission.remove_prompt(TWO, 300);
        (0..4).for_each(|_| admission.end(ONE, now));
        (0..4).for_each(|_| admission.end(TWO, now));
        assert_eq!((admission.accepted(), admission.prompt_tokens()), (0, 0));
        assert!(admission.clients.is_empty());
    }

    #[test]
    fn one_client_can_take_no_other_ones_room() {
        let (context, now) = (128, Duration::ZERO);
        for tokens in [1, u64::from(context)] {
            let mut admission = Admission::new(EngineLimits::new(context, 8, 10).queue, 1);
            let taken = (0..10_000).take_while(|_| {
                let place = admission.reserve(ONE, now);
                place.and_then(|()| admission.add_prompt(ONE, tokens, now)).is_ok()
            });
            assert!(taken.count() >= 16, "a lone client has room for some");
            assert!(matches!(
                admission.reserve(ONE, now),
                Err(SubmitError::ClientLimit { .. } | SubmitError::ClientTokenLimit { .. })
            ));
            admission.reserve(TWO, now).unwrap();
            admission.add_prompt(TWO, u64::from(context), now).unwrap();
        }
    }

    #[test]
    fn a_retry_is_told_for_when_there_is_likely_room() {
        let mut admission = Admission::new(QueueLimits { requests: 20, client_requests: 2, ..LIMITS }, 2);
        for client in 0..22 {
            admission.reserve(ClientKey(client), Duration::ZERO).unwrap();
        }
        // One ends every three seconds.
        for index in 0..10 {
            let now = seconds(3 * (index + 1));
            admission.end(ClientKey(index), now);
            admission.reserve(ClientKey(index), now).unwrap();
        }
        let full = |admission: &mut Admission, now| retry_after(&admission.reserve(ONE, now).unwrap_err());
        assert_eq!(full(&mut admission, seconds(30)), seconds(30));
        // Nothing has ended for a while; and never is a client told to wait longer than it would.
        assert_eq!(full(&mut admission, seconds(35)), seconds(50));
        assert_eq!(full(&mut admission, seconds(300)), seconds(60));
        // A client has one of these 21; 21 ends are a long time, half of a short one at least a second.
        admission.end(ClientKey(21), seconds(36));
        admission.reserve(ONE, seconds(36)).unwrap();
        admission.end(ClientKey(20), seconds(36));
        let client = retry_after(&admission.reserve(ONE, seconds(36)).unwrap_err());
        assert!(client > seconds(20) && client < seconds(40), "{client:?}");
        let mut quick = Admission::new(QueueLimits { requests: 0, ..LIMITS }, 1);
        quick.reserve(ONE, Duration::ZERO).unwrap();
        assert_eq!(full(&mut quick, Duration::ZERO), seconds(1));
    }
}
