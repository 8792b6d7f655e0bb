//! An answer as server-sent events: opening, text, closing, usage if asked for, `[DONE]`.
//!
//! An error the engine tells becomes an event, and the stream ends without `[DONE]`. An engine that is gone without a word
//! breaks the body, so that hyper cuts the connection and no client takes half an answer for a whole one.

use std::marker::PhantomData;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures::Stream;
use thiserror::Error;
use tokio::time::{Instant, Sleep, sleep};
use warp::http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use warp::reply::{Reply, Response};

use super::ask::Endpoint;
use super::generate::{Run, Step};
use super::wire::{Head, Piece};

/// Silence after which a comment is sent: clients give up after 30 s without a byte (Cline), proxies after 60 s, and
/// writing is how a client that vanished without closing is noticed.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
const COMMENT: &[u8] = b": waiting\n\n";
const DONE: &[u8] = b"data: [DONE]\n\n";

#[derive(Debug, Error)]
pub(super) enum StreamError {
    #[error("engine ended without ending the answer")]
    EngineGone,
    #[error("event cannot be written: {0}")]
    Event(#[from] serde_json::Error),
}

enum Progress {
    Opening,
    Running,
    Ended,
}

struct EventStream<E> {
    head: Head,
    run: Run,
    progress: Progress,
    silence: Pin<Box<Sleep>>,
    endpoint: PhantomData<fn() -> E>,
}

pub(super) fn event_stream<E: Endpoint>(head: Head, run: Run) -> Response {
    let stream = EventStream::<E> {
        head,
        run,
        progress: Progress::Opening,
        silence: Box::pin(sleep(KEEP_ALIVE)),
        endpoint: PhantomData,
    };
    let mut response = warp::reply::stream(stream).into_response();
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream; charset=utf-8"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    // nginx would otherwise collect the stream.
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    response
}

impl<E: Endpoint> EventStream<E> {
    fn event(&self, piece: &Piece<'_>) -> Result<Vec<u8>, StreamError> {
        E::piece(&self.head, piece).map_or(Ok(Vec::new()), |json| Ok(framed(&json?)))
    }

    fn events(&self, step: Step) -> Result<Vec<u8>, StreamError> {
        match step {
            Step::Text(text) => self.event(&Piece::Text(&text)),
            Step::Finished(reason, usage) => {
                let mut events = self.event(&Piece::Closing(reason))?;
                if self.head.include_usage {
                    events.extend(self.event(&Piece::Usage(usage))?);
                }
                events.extend(DONE);
                Ok(events)
            }
            Step::Failed(error) => Ok(framed(&serde_json::to_vec(&error.body())?)),
            Step::Gone => Err(StreamError::EngineGone),
        }
    }
}

impl<E: Endpoint> Stream for EventStream<E> {
    type Item = Result<Bytes, StreamError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        match this.progress {
            Progress::Ended => return Poll::Ready(None),
            Progress::Opening => {
                this.progress = Progress::Running;
                let opening = this.event(&Piece::Opening);
                if !opening.as_ref().is_ok_and(Vec::is_empty) {
                    return Poll::Ready(Some(opening.map(Bytes::from)));
                }
            }
            Progress::Running => {}
        }
        if let Poll::Ready(step) = this.run.poll_step(context) {
            if !matches!(step, Step::Text(_)) {
                this.progress = Progress::Ended;
            }
            this.silence.as_mut().reset(Instant::now() + KEEP_ALIVE);
            return Poll::Ready(Some(this.events(step).map(Bytes::from)));
        }
        if this.silence.as_mut().poll(context).is_ready() {
            this.silence.as_mut().reset(Instant::now() + KEEP_ALIVE);
            // The new deadline has to be polled for its wake-up; the next call does that.
            return Poll::Ready(Some(Ok(Bytes::from_static(COMMENT))));
        }
        Poll::Pending
    }
}

fn framed(json: &[u8]) -> Vec<u8> {
    [b"data: ", json, b"\n\n"].concat()
}
