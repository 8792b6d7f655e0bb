//! Whole answers that lie until their clients have read them, counted by account. Their requests have ended and are in no
//! queue any more; streams need no such count, because a generation waits for its reader, or gives it up.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures::Stream;
use sparkherd_engine::ClientKey;
use warp::http::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderValue};
use warp::reply::{Reply, Response};

use crate::tally::{Tallied, Tally};

/// Unread bytes from which a client is served nothing new: hundreds of long answers, or a large list of vectors.
pub(crate) const UNREAD_BYTES_MAX: usize = 16 << 20;
/// An answer is handed over in pieces of what a connection buffers anyway; one that is no larger is not counted.
const PIECE_BYTES: usize = 16 << 10;

#[derive(Clone, Debug, Default)]
pub(crate) struct UnreadAnswers {
    bytes: Tally,
}

/// The rest of an answer. All of it counts until the last piece is read: pieces share its memory.
struct Unread {
    _tallied: Tallied,
    left: Bytes,
}

impl UnreadAnswers {
    pub(crate) fn bytes_of(&self, account: ClientKey) -> usize {
        self.bytes.of(account)
    }

    /// Hands a JSON document to its client.
    pub(crate) fn respond(&self, account: ClientKey, mut json: Vec<u8>) -> Response {
        json.shrink_to_fit();
        let length = HeaderValue::from(json.len());
        let mut response = if json.len() <= PIECE_BYTES {
            Response::new(Bytes::from(json).into())
        } else {
            let unread = Unread { _tallied: self.bytes.add(account, json.len()), left: json.into() };
            warp::reply::stream(unread).into_response()
        };
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(CONTENT_LENGTH, length);
        response
    }
}

impl Stream for Unread {
    type Item = Result<Bytes, Infallible>;

    fn poll_next(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let piece = self.left.len().min(PIECE_BYTES);
        if piece == 0 {
            return Poll::Ready(None);
        }
        let piece = self.left.split_to(piece);
        Poll::Ready(Some(Ok(piece)))
    }
}

#[cfg(test)]
mod tests {
    use futures::StreamExt as _;

    use super::*;

    #[tokio::test]
    async fn an_answer_counts_until_it_is_read_or_given_up() {
        let (answers, account) = (UnreadAnswers::default(), ClientKey(1));
        let unread =
            |bytes| Unread { _tallied: answers.bytes.add(account, bytes), left: vec![7; bytes].into() };
        let (mut first, second) = (unread(PIECE_BYTES + 1), unread(PIECE_BYTES));
        assert_eq!(answers.bytes_of(account), 2 * PIECE_BYTES + 1);
        assert_eq!(answers.bytes_of(ClientKey(2)), 0);
        assert_eq!(first.next().await.map(|piece| piece.unwrap().len()), Some(PIECE_BYTES));
        assert_eq!(answers.bytes_of(account), 2 * PIECE_BYTES + 1, "the memory is still there");
        drop(second);
        assert_eq!(answers.bytes_of(account), PIECE_BYTES + 1);
        assert_eq!(first.next().await.map(|piece| piece.unwrap().len()), Some(1));
        assert_eq!(first.next().await, None);
        drop(first);
        assert_eq!(answers.bytes_of(account), 0);
    }
}
