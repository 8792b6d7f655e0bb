//! From configuration to exit: the child's one control loop.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use sparkherd_protocol::{Command, EngineConfig, Event};
use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};

use super::commands::Commands;
use super::events::Events;
use super::load::{Loaded, load};
use super::probe::probe;
use super::process::{cpu_time, resident_bytes};
use super::{ChildError, EngineKind};
use crate::access::Audience;
use crate::connection::ConnectionLimits;
use crate::health::{STALL_LIMIT, Verdict};
use crate::http::serve;
use crate::phase::Phase;
use crate::service::{Service, ServiceSettings};

/// The protocol's rhythm of `stats`.
const STATS_INTERVAL: Duration = Duration::from_secs(1);
/// Silence after which a small generation is tried again: a fault that nobody's request has met is found by us.
const PROBE_AFTER: Duration = Duration::from_mins(5);
/// How long a draining engine still answers new requests: `EndpointSlices` reach every proxy within a few seconds.
const LINGER: Duration = Duration::from_secs(5);
/// How long the last bytes may take to leave.
const FAREWELL: Duration = Duration::from_secs(1);
/// Connections the kernel queues while we are busy accepting.
const BACKLOG: u32 = 1024;

/// Runs until told to stop (`Ok`) or until something fails.
pub(super) async fn live(
    config: EngineConfig,
    kind: EngineKind,
    mut commands: Commands,
    events: &Events,
) -> Result<(), ChildError> {
    // Bound first, heard later: a port that is taken is known before the weights are read, and nobody connects to an
    // engine that cannot answer.
    let (socket, address) = bind(config.listen)?;
    let stall_limit = match kind.script() {
        // The fault is an engine that hangs while its port looks healthy.
        Some(script) if script.hang_after_tokens.is_some() => Duration::MAX,
        _ => STALL_LIMIT,
    };
    let mut audience = Audience::new(&config.access, config.served_names.clone())?;
    let Some(loaded) = load_or_stop(&config, kind, &mut commands, &mut audience, events).await? else {
        return Ok(());
    };
    let settings = ServiceSettings {
        audience,
        incarnation: config.incarnation.clone(),
        seed: config.seed,
        stall_limit,
        clock: unix_time,
        held_bytes: resident_bytes,
        device_bytes: loaded.device_bytes,
        cpu_time,
    };
    let service = Arc::new(Service::new(loaded.engine, settings)?);
    let listener = socket.listen(BACKLOG).map_err(|error| ChildError::Listen { address, error })?;
    let server = Server::start(listener, &service);
    let address = server.address.unwrap_or(address);
    let result = attend(&service, address, &config.incarnation, &mut commands, events).await;
    service.lifecycle().advance(Phase::Aborting);
    server.end().await;
    result
}

fn bind(address: SocketAddr) -> Result<(TcpSocket, SocketAddr), ChildError> {
    let bound = || {
        let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
        // The port of an engine that has just ended is free although its last connections linger in the kernel.
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        let address = socket.local_addr()?;
        Ok((socket, address))
    };
    bound().map_err(|error| ChildError::Listen { address, error })
}

/// Loads, following commands meanwhile. `None` if told to stop, or to drain what serves nobody yet.
async fn load_or_stop(
    config: &EngineConfig,
    kind: EngineKind,
    commands: &mut Commands,
    audience: &mut Audience,
    events: &Events,
) -> Result<Option<Loaded>, ChildError> {
    let mut loading = std::pin::pin!(load(config.clone(), kind, events));
    loop {
        tokio::select! {
            loaded = &mut loading => return loaded.map(Some),
            command = commands.next() => match command {
                Command::Stop | Command::Drain { .. } => return Ok(None),
                Command::Access { access, served_names } => *audience = Audience::new(&access, served_names)?,
            },
        }
    }
}

/// The serving loop: proves that it works, says so, then follows commands and reports until its end.
async fn attend(
    service: &Arc<Service>,
    address: SocketAddr,
    incarnation: &str,
    commands: &mut Commands,
    events: &Events,
) -> Result<(), ChildError> {
    let mut probing = std::pin::pin!(probe(service));
    let mut watch = Watch::default();
    let mut tick = interval(STATS_INTERVAL);
    tick.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut ready = false;
    loop {
        tokio::select! {
            tokens_per_second = &mut probing, if !ready => {
                let tokens_per_second = tokens_per_second.map_err(|error| probe_failure(service, error))?;
                ready = true;
                tracing::info!(%address, tokens_per_second, "ready");
                let incarnation = incarnation.to_owned();
                let held_bytes = service.held_bytes();
                events.announce(Event::Ready { address, incarnation, held_bytes, tokens_per_second });
            }
            _ = tick.tick(), if ready => watch.look(service, events).await?,
            command = commands.next() => match command {
                Command::Drain { seconds } if ready => {
                    return drain(service, Duration::from_secs(u64::from(seconds)), commands, events).await;
                }
                Command::Stop | Command::Drain { .. } => return Ok(()),
                Command::Access { access, served_names } => follow_access(service, &access, served_names),
            },
        }
    }
}

/// An engine that has failed says why, better than who asked it.
fn probe_failure(service: &Service, error: String) -> ChildError {
    service.engine().failed().map_or(ChildError::Probe(error), ChildError::Engine)
}

/// A list that cannot be read changes nothing: the keys known before still open.
fn follow_access(service: &Service, access: &sparkherd_protocol::Access, served_names: Vec<String>) {
    match Audience::new(access, served_names) {
        Ok(audience) => service.set_audience(audience),
        Err(error) => tracing::error!(%error, "access not changed"),
    }
}

/// Answers everything for [`LINGER`], then refuses what is new and waits for what runs, `limit` in all. Commands still
/// count: `stop` ends it at once.
async fn drain(
    service: &Arc<Service>,
    limit: Duration,
    commands: &mut Commands,
    events: &Events,
) -> Result<(), ChildError> {
    tracing::info!(seconds = limit.as_secs(), "draining");
    events.announce(Event::Draining);
    let deadline = Instant::now() + limit;
    let lifecycle = service.lifecycle();
    lifecycle.advance(Phase::Lingering);
    let mut ending = std::pin::pin!(async {
        sleep(LINGER.min(limit)).await;
        lifecycle.advance(Phase::Refusing);
        service.engine().drain();
        tokio::time::timeout_at(deadline, lifecycle.idle()).await
    });
    let mut watch = Watch::default();
    let mut tick = interval(STATS_INTERVAL);
    loop {
        tokio::select! {
            finished = &mut ending => {
                if finished.is_err() {
                    tracing::warn!("drain ended with requests unfinished: they get an error");
                }
                return Ok(());
            }
            _ = tick.tick() => watch.look(service, events).await?,
            command = commands.next() => match command {
                Command::Stop => return Ok(()),
                Command::Drain { .. } => {}
                Command::Access { access, served_names } => follow_access(service, &access, served_names),
            },
        }
    }
}

/// What is looked at each second.
#[derive(Debug, Default)]
struct Watch {
    stalled: bool,
    probing: Option<JoinHandle<()>>,
}

impl Watch {
    async fn look(&mut self, service: &Arc<Service>, events: &Events) -> Result<(), ChildError> {
        let stats = service.engine().stats();
        events.report(Event::Stats {
            running: stats.running,
            waiting: stats.waiting,
            generated_tokens: stats.generated_tokens,
            kv_used: stats.kv_used,
            last_step_age_ms: stats.last_step_age_ms,
            held_bytes: service.held_bytes(),
        });
        if let Some(failure) = service.engine().failed() {
            // Streams get the engine's last word before the process ends.
            let _ = timeout(FAREWELL, service.lifecycle().idle()).await;
            return Err(ChildError::Engine(failure));
        }
        let stalled = matches!(service.health().verdict(&stats), Verdict::Stalled { .. });
        if stalled && !self.stalled {
            tracing::error!(
                step_age_ms = stats.last_step_age_ms,
                running = stats.running,
                "step does not end"
            );
        }
        self.stalled = stalled;
        let probing = self.probing.as_ref().is_some_and(|task| !task.is_finished());
        if stats.running == 0 && !probing && service.health().quiet_for() > PROBE_AFTER {
            let service = Arc::clone(service);
            self.probing = Some(tokio::spawn(async move {
                if let Err(error) = probe(&service).await {
                    tracing::error!(%error, "generation after long idleness failed");
                }
            }));
        }
        Ok(())
    }
}

/// The running HTTP server.
struct Server {
    address: Option<SocketAddr>,
    end: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Server {
    fn start(listener: TcpListener, service: &Arc<Service>) -> Self {
        let address = listener.local_addr().ok();
        let (end, ended) = oneshot::channel();
        let service = Arc::clone(service);
        let task = tokio::spawn(async move {
            let ended = async {
                let _ = ended.await;
            };
            serve(listener, service, ConnectionLimits::default(), ended).await;
        });
        Self { address, end, task }
    }

    async fn end(self) {
        let _ = self.end.send(());
        let _ = timeout(FAREWELL, self.task).await;
    }
}

fn unix_time() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
