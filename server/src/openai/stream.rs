//! An answer as server-sent events: opening, text, closing, usage if asked for, `[DONE]`.
//!
//! An error the engine tells becomes an event, and the stream ends without `[DONE]`. An engine that is gone without a word
//! breaks the body, so that hyper cuts the connection and no client takes half an answer for a whole one.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures::Stream;
use thiserror::Error;
use tokio::time::{Instant, Sleep, sleep};
use warp::http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use warp::reply::{Reply, Response};

use super::answer::{Answer, Documents};
use super::run::{Progress, Run};

/// Silence after which a comment is sent: clients give up after 30 s without a byte (Cline), proxies after 60 s, and
/// writing is how a client that vanished without closing is noticed.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
const COMMENT: &[u8] = b": waiting\n\n";

#[derive(Debug, Error)]
pub(super) enum StreamError {
    #[error("engine ended without ending the answer")]
    EngineGone,
    #[error("event cannot be written: {0}")]
    Event(#[from] serde_json::Error),
}

struct EventStream<A> {
    answer: A,
    out: Documents,
    run: Run,
    ended: bool,
    silence: Pin<Box<Sleep>>,
}

pub(super) fn event_stream(answer: impl Answer + Unpin, run: Run) -> Response {
    let stream = EventStream {
        answer,
        out: Documents::events(),
        run,
        ended: false,
        silence: Box::pin(sleep(KEEP_ALIVE)),
    };
    let mut response = warp::reply::stream(stream).into_response();
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream; charset=utf-8"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    // nginx would otherwise collect the stream.
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    response
}

impl<A: Answer> EventStream<A> {
    /// Writes what there is to say now. Ready: something was said, or it ended.
    fn poll_write(&mut self, context: &mut Context<'_>) -> Poll<Result<(), StreamError>> {
        let progress = std::task::ready!(self.run.poll_write(&mut self.answer, &mut self.out, context))?;
        self.ended = !matches!(progress, Progress::Running | Progress::Interrupted);
        match progress {
            Progress::Running => {}
            Progress::Interrupted => {
                context.waker().wake_by_ref();
                return Poll::Pending;
            }
            Progress::Ended => self.out.done(),
            Progress::Failed(error) => self.out.write_error(&error)?,
            Progress::Gone => return Poll::Ready(Err(StreamError::EngineGone)),
        }
        Poll::Ready(Ok(()))
    }
}

impl<A: Answer + Unpin> Stream for EventStream<A> {
    type Item = Result<Bytes, StreamError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        while !this.ended {
            let Poll::Ready(written) = this.poll_write(context) else { break };
            if let Err(error) = written {
                this.ended = true;
                return Poll::Ready(Some(Err(error)));
            }
            // A piece may be withheld and write nothing.
            if !this.out.is_empty() {
                this.silence.as_mut().reset(Instant::now() + KEEP_ALIVE);
                return Poll::Ready(Some(Ok(this.out.take().into())));
            }
        }
        if this.ended {
            return Poll::Ready(None);
        }
        if this.silence.as_mut().poll(context).is_ready() {
            this.silence.as_mut().reset(Instant::now() + KEEP_ALIVE);
            // The new deadline has to be polled for its wake-up; the next call does that.
            return Poll::Ready(Some(Ok(Bytes::from_static(COMMENT))));
        }
        Poll::Pending
    }
}
