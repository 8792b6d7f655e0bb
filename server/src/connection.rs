//! The connections that filters are served on, and what each may take.
//!
//! hyper-util serves the filters, because `warp::serve` bounds neither connections nor headers.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use warp::Filter;
use warp::reply::Response;

use crate::client::Peer;

/// Room for long keys and proxies' additions, and a bound for what one connection may make us hold.
const HEADER_BYTES_MAX: usize = 16 << 10;
/// What of a body or an answer is in hand, beyond what has been asked for.
const BUFFER_BYTES_MAX: usize = 16 << 10;
/// Pause after a failed accept: out of file descriptors does not heal faster.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What connections may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnectionLimits {
    /// Open ones; more wait in the kernel's backlog.
    pub connections: usize,
    /// For the head of a request. An idle kept connection ends with it too.
    pub header_timeout: Duration,
    /// For the peer to acknowledge what was written, or to read it.
    pub write_timeout: Duration,
}

impl Default for ConnectionLimits {
    fn default() -> Self {
        Self {
            // Far more than the sequences one Spark decodes together; each open connection takes about 20 KiB.
            connections: 1024,
            // Longer than the 5 s to 15 s that clients keep an idle connection.
            header_timeout: Duration::from_mins(1),
            // A peer that takes nothing for this long is gone, or reads nothing.
            write_timeout: Duration::from_mins(1),
        }
    }
}

/// Serves the routes until `end`, then lets open connections finish what they are writing. Dropping the future cuts them.
pub(crate) async fn serve_routes(
    listener: TcpListener,
    routes: impl Filter<Extract = (Response,), Error = Infallible> + Clone + Send + Sync + 'static,
    limits: ConnectionLimits,
    end: impl Future<Output = ()>,
) {
    let connections = Arc::new(Semaphore::new(limits.connections));
    let graceful = GracefulShutdown::new();
    let mut end = std::pin::pin!(end);
    loop {
        let accepted = tokio::select! {
            accepted = accept(&listener, &connections) => accepted,
            () = &mut end => break,
        };
        let Some((stream, permit)) = accepted else { continue };
        bound(&stream, limits.write_timeout);
        let filters = TowerToHyperService::new(warp::service(routes.clone()));
        let peer = stream.peer_addr().ok().map(|address| Peer(address.ip()));
        let with_peer = service_fn(move |mut request: hyper::Request<hyper::body::Incoming>| {
            peer.map(|peer| request.extensions_mut().insert(peer));
            filters.call(request)
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(limits.header_timeout)
            .max_header_size(HEADER_BYTES_MAX)
            .max_buf_size(BUFFER_BYTES_MAX)
            .serve_connection(TokioIo::new(stream), with_peer);
        let connection = graceful.watch(connection);
        tokio::spawn(async move {
            let _permit = permit;
            // Resets and broken answers: the peer knows, and a request's own end is in the metrics.
            if let Err(error) = connection.await {
                tracing::debug!(%error, "connection ended");
            }
        });
    }
    drop(listener);
    graceful.shutdown().await;
}

/// The next connection there is room for.
async fn accept(
    listener: &TcpListener,
    connections: &Arc<Semaphore>,
) -> Option<(TcpStream, OwnedSemaphorePermit)> {
    let permit = Arc::clone(connections).acquire_owned().await.ok()?;
    match listener.accept().await {
        Ok((stream, _)) => Some((stream, permit)),
        Err(error) => {
            tracing::warn!(%error, "cannot accept a connection");
            tokio::time::sleep(ACCEPT_PAUSE).await;
            None
        }
    }
}

/// Tokens leave at once, and a peer that takes none is given up: the kernel cuts its connection. A socket that refuses
/// either still works.
fn bound(stream: &TcpStream, write_timeout: Duration) {
    let timeout_ms = u32::try_from(write_timeout.as_millis()).unwrap_or(u32::MAX);
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "cannot set TCP_NODELAY");
    }
    if let Err(error) = rustix::net::sockopt::set_tcp_user_timeout(stream, timeout_ms) {
        tracing::debug!(%error, "cannot set TCP_USER_TIMEOUT");
    }
}
