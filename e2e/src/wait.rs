//! Waiting for something to become true. A deadline is how long we believe in it, not how long it should take:
//! it is generous, and the error says what was seen last.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// Between two looks. Short against a person's patience, long against the cost of a request.
const POLL_INTERVAL: Duration = Duration::from_millis(100);

/// What one look at the condition found.
#[derive(Debug)]
pub enum Seen<T> {
    Done(T),
    /// Not yet; the text is the state as a person would describe it.
    NotYet(String),
    /// It cannot become true any more, so nobody needs to wait for the deadline.
    Never(String),
}

/// Looks until `look` is done. An error of `look` counts as "not yet": a server that starts refuses connections.
pub async fn until<T>(
    what: &str,
    deadline: Duration,
    mut look: impl AsyncFnMut() -> Result<Seen<T>>,
) -> Result<T> {
    let started = Instant::now();
    loop {
        let state = match look().await {
            Ok(Seen::Done(value)) => return Ok(value),
            Ok(Seen::NotYet(state)) => state,
            Ok(Seen::Never(reason)) => bail!("waited for {what}, which cannot come: {reason}"),
            Err(error) => format!("{error:#}"),
        };
        if started.elapsed() >= deadline {
            bail!("waited {} s for {what}; last seen: {state}", deadline.as_secs());
        }
        tokio::time::sleep(POLL_INTERVAL).await;
    }
}

/// As [`until`], for a plain yes or no with a description.
pub async fn until_true(
    what: &str,
    deadline: Duration,
    mut look: impl AsyncFnMut() -> Result<(bool, String)>,
) -> Result<()> {
    until(what, deadline, async || {
        let (is_so, state) = look().await?;
        Ok(if is_so { Seen::Done(()) } else { Seen::NotYet(state) })
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_missed_deadline_tells_the_last_state() {
        let error =
            until_true("rain", Duration::ZERO, async || Ok((false, "blue sky".into()))).await.unwrap_err();
        assert_eq!(error.to_string(), "waited 0 s for rain; last seen: blue sky");
    }

    #[tokio::test]
    async fn an_error_on_the_way_is_not_the_end() {
        let mut looks = 0;
        let value = until("the third look", Duration::from_mins(1), async || {
            looks += 1;
            match looks {
                1 => bail!("connection refused"),
                2 => Ok(Seen::NotYet("starting".into())),
                _ => Ok(Seen::Done(looks)),
            }
        });
        assert_eq!(value.await.unwrap(), 3);
    }
}
