//! Does what the plan says. One step, one system call or one child; no decision but whether the world is still as planned.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::time::Duration;

use sparkherd_protocol::{Command, EngineConfig};
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use crate::agent::Agent;
use crate::clock::Moment;
use crate::engine::{Engine, EngineId, KillReason};
use crate::incarnation::{new_incarnation, new_seed};
use crate::plan::Step;
use crate::record::Refused;
use crate::source::Desired;
use crate::store::{Located, Weights};
use crate::supervise::SpawnError;
use crate::wanted::{ReplicaKey, Wanted};

/// A look at the files right before a start; a mount that does not answer within this starts nothing.
const LOOK_LIMIT: Duration = Duration::from_secs(5);

impl Agent {
    pub(crate) async fn execute(
        &mut self,
        step: Step,
        desired: &Desired,
        wanted: &BTreeMap<ReplicaKey, Wanted>,
        weights: &BTreeMap<ReplicaKey, Weights>,
        now: Moment,
    ) {
        match step {
            Step::Kill { replica, engine, reason } => self.kill(&replica, engine, reason),
            Step::Drain { replica, engine, seconds, kill_at } => {
                tracing::info!(%replica, seconds, "engine is asked to drain");
                self.send(&replica, engine, Command::Drain { seconds });
                if let Some(engine) = self.engine(&replica, engine) {
                    engine.drain(now.since_start, kill_at);
                }
            }
            Step::Access { replica, engine, access, served_names } => {
                let command = Command::Access { access: access.clone(), served_names: served_names.clone() };
                if self.send(&replica, engine, command)
                    && let Some(engine) = self.engine(&replica, engine)
                {
                    (engine.access, engine.served_names) = (access, served_names);
                }
            }
            Step::Start { replica } => {
                let Some(wanted) = wanted.get(&replica) else { return };
                let Some(Weights::Ready { located }) = weights.get(&replica) else { return };
                if self.still_as_seen(desired, &replica, wanted, located, now).await {
                    self.start(replica, wanted, located, now).await;
                }
            }
            Step::Refuse { replica, message, allocatable_bytes } => {
                tracing::warn!(%replica, message, "refused");
                self.metrics.refusals.inc();
                if let Some(record) = self.state.records.get_mut(&replica) {
                    record.refused = Some(Refused { message, at: now.wall, allocatable_bytes });
                }
            }
        }
    }

    fn engine(&mut self, replica: &ReplicaKey, id: EngineId) -> Option<&mut Engine> {
        self.state.records.get_mut(replica)?.engine.as_mut().filter(|engine| engine.id == id)
    }

    fn kill(&mut self, replica: &ReplicaKey, id: EngineId, reason: KillReason) {
        tracing::warn!(%replica, %reason, "engine is killed");
        if let Some(handle) = self.state.handles.get(&id) {
            handle.kill(reason);
        }
        if let Some(engine) = self.engine(replica, id) {
            engine.killed();
        }
    }

    /// False if the child does not read: it is not told, and what it was last told stays on record.
    fn send(&self, replica: &ReplicaKey, id: EngineId, command: Command) -> bool {
        let sent = self.state.handles.get(&id).is_some_and(|handle| handle.send(command));
        if !sent {
            tracing::warn!(%replica, "engine does not take commands");
        }
        sent
    }

    /// Whether the files are those whose headers were read; if not, the copy is no longer good.
    async fn still_as_seen(
        &mut self,
        desired: &Desired,
        replica: &ReplicaKey,
        wanted: &Wanted,
        located: &Located,
        now: Moment,
    ) -> bool {
        let model = desired
            .models
            .iter()
            .find(|(key, _)| key.namespace == replica.namespace && key.name == wanted.model);
        let Some((key, model)) = model else { return false };
        let (roots, source) = (self.roots.clone(), model.spec.source.clone());
        let Ok(Ok(look)) = timeout(LOOK_LIMIT, spawn_blocking(move || roots.locate(&source))).await else {
            // A pause before the next try: each leaves a thread behind until the mount answers.
            tracing::warn!(%replica, "the weights' file system does not answer");
            if let Some(record) = self.state.records.get_mut(replica) {
                record.start_failed("the weights' file system does not answer".to_owned(), now);
            }
            return false;
        };
        let same = look.as_ref() == Ok(located);
        if !same && let Some(copy) = self.state.copies.get_mut(key) {
            copy.looked(look, now);
        }
        same
    }

    async fn start(&mut self, replica: ReplicaKey, wanted: &Wanted, located: &Located, now: Moment) {
        let id = EngineId(self.state.next_engine);
        self.state.next_engine += 1;
        let started = self.spawn(&replica, id, wanted, located).await;
        let Some(record) = self.state.records.get_mut(&replica) else { return };
        match started {
            Ok((handle, port)) => {
                let footprint = self.state.pools.shares(&wanted.footprint);
                let pid = handle.group.pid();
                let engine = Engine::spawned(id, pid, port, wanted, footprint, now.since_start);
                tracing::info!(%replica, pid = engine.pid, port, "engine starts");
                self.guard.add(id, engine.footprint.host, handle.group.clone());
                self.state.handles.insert(id, handle);
                self.metrics.engine_starts.inc();
                record.started(engine);
            }
            Err(error) => {
                tracing::error!(%replica, %error, "engine cannot start");
                record.start_failed(error.to_string(), now);
            }
        }
    }

    async fn spawn(
        &self,
        replica: &ReplicaKey,
        id: EngineId,
        wanted: &Wanted,
        located: &Located,
    ) -> Result<(crate::supervise::EngineHandle, u16), SpawnError> {
        let random =
            |error: crate::incarnation::IncarnationError| SpawnError::Config(std::io::Error::other(error));
        let taken: BTreeSet<u16> = self
            .state
            .records
            .values()
            .filter_map(|record| record.engine.as_ref().filter(|engine| engine.is_alive()))
            .map(|engine| engine.port)
            .collect();
        let address = self.config.engine_address;
        let is_free = |port| TcpListener::bind(SocketAddr::new(address, port)).is_ok();
        let port = self.config.engine_ports.pick(&taken, is_free).ok_or(SpawnError::NoPort)?;
        let config = EngineConfig {
            model_dir: located.directory.clone(),
            served_names: wanted.served_names.clone(),
            serving: wanted.serving.clone(),
            platform: self.platform.clone(),
            footprint: wanted.footprint,
            listen: SocketAddr::new(address, port),
            access: wanted.access.clone(),
            incarnation: new_incarnation().map_err(random)?,
            seed: new_seed().map_err(random)?,
        };
        let script = self.fake_script(replica, wanted);
        let handle = self.supervisor.start(replica.clone(), id, &config, script.as_deref()).await?;
        Ok((handle, port))
    }

    /// Test hook: the script of a fake engine, where a test has put one. One for a context comes before one for the whole
    /// deployment, so that a revision can fail and the one before it serve.
    fn fake_script(&self, replica: &ReplicaKey, wanted: &Wanted) -> Option<PathBuf> {
        let directory = self.config.fake_engines.as_ref()?;
        let name = format!("{}.{}", replica.namespace, wanted.deployment);
        let of_context = format!("{name}.context-{}", wanted.serving.context);
        [of_context, name].map(|name| directory.join(name)).into_iter().find(|script| script.exists())
    }
}
