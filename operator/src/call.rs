//! Every call to the API server goes through here: bounded in time, and counted.

use std::time::Duration;

use prometheus::IntCounterVec;
use thiserror::Error;

/// kube's client has no read time-out of its own: a black-holed call would hang a pass for ever.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);

#[derive(Debug, Error)]
pub enum CallError {
    #[error("{verb} did not return within {} s", CALL_TIMEOUT.as_secs())]
    TimedOut { verb: &'static str },
    #[error("{verb} failed: {source}")]
    Kube { verb: &'static str, source: kube::Error },
}

impl CallError {
    /// HTTP status the API server answered with, if it answered.
    pub(crate) fn code(&self) -> Option<u16> {
        match self {
            Self::Kube { source: kube::Error::Api(status), .. } => Some(status.code),
            Self::Kube { .. } | Self::TimedOut { .. } => None,
        }
    }
}

/// Counts calls by verb and code.
#[derive(Clone, Debug)]
pub struct Calls {
    counter: IntCounterVec,
}

impl Calls {
    pub(crate) const fn new(counter: IntCounterVec) -> Self {
        Self { counter }
    }

    pub(crate) async fn call<T>(
        &self,
        verb: &'static str,
        future: impl Future<Output = kube::Result<T>>,
    ) -> Result<T, CallError> {
        let result = match tokio::time::timeout(CALL_TIMEOUT, future).await {
            Err(_) => Err(CallError::TimedOut { verb }),
            Ok(Err(source)) => Err(CallError::Kube { verb, source }),
            Ok(Ok(value)) => Ok(value),
        };
        let code = match &result {
            Ok(_) => "ok".to_owned(),
            Err(error) => error.code().map_or_else(|| "none".to_owned(), |code| code.to_string()),
        };
        self.counter.with_label_values(&[verb, code.as_str()]).inc();
        result
    }
}
