use jiff::{SignedDuration, Timestamp};
use sparkherd_checkpoint::Facts;
use sparkherd_planner::{
    CopyState, Exit, ModelCopy, NodeName, Reason, Refusal, Replica, ReplicaId, Reported, ResolveVerdict,
    ResolvedModel, Run,
};

use super::Cluster;

/// An agent asks again after this.
const RESOLVE_BACKOFF: SignedDuration = SignedDuration::from_secs(30);

/// What a source holds.
#[derive(Clone, Debug)]
pub(crate) struct Source {
    pub(crate) facts: Facts,
    pub(crate) digest: String,
    /// Nodes that can read it; empty means all.
    pub(crate) readable_on: Vec<NodeName>,
    /// The sentence of an agent that knows the architecture is not ours.
    pub(crate) unsupported: Option<String>,
}

impl Cluster {
    /// All agents that run do everything they can: resolve, fetch, stop, start one engine each.
    pub(crate) fn agents(&mut self) {
        let nodes: Vec<NodeName> =
            self.snapshot.nodes.keys().filter(|name| !self.silent.contains(*name)).cloned().collect();
        for node in nodes {
            self.resolve_and_fetch(&node);
            let here: Vec<ReplicaId> = self
                .snapshot
                .replicas
                .iter()
                .filter(|(_, replica)| replica.node == node)
                .map(|(id, _)| id.clone())
                .collect();
            for id in &here {
                self.release(id);
            }
            let mut started = false;
            for id in &here {
                started |= !started && self.start(id);
            }
        }
    }

    fn resolve_and_fetch(&mut self, node: &NodeName) {
        let now = self.snapshot.now;
        for model in self.snapshot.models.values_mut() {
            let source = self.sources.get(&model.source);
            let asked_before = model.copies.get(node).and_then(|copy| copy.resolve.as_ref());
            let may_ask =
                asked_before.is_none_or(|verdict| now.duration_since(verdict.at) >= RESOLVE_BACKOFF);
            if model.resolved.is_none() && model.resolver.as_ref() == Some(node) && may_ask {
                match verdict(source, node, now) {
                    Ok(resolved) => model.resolved = Some(resolved),
                    Err(verdict) => {
                        let copy =
                            model.copies.entry(node.clone()).or_insert_with(|| empty_copy(CopyState::Absent));
                        copy.resolve = Some(verdict);
                    }
                }
            }
            let is_readable =
                source.is_some_and(|s| s.readable_on.is_empty() || s.readable_on.contains(node));
            let wants =
                model.cache_on.contains(node) && (is_readable || !model.source.starts_with("file://"));
            if let Some(resolved) = model.resolved.as_ref().filter(|_| wants) {
                let copy = model.copies.entry(node.clone()).or_insert_with(|| empty_copy(CopyState::Absent));
                copy.state = CopyState::Ready;
                copy.digest = Some(resolved.digest.clone());
                copy.bytes_done = resolved.bytes;
                copy.bytes_total = resolved.bytes;
            }
        }
    }

    /// Stops what is to stop; its memory is back at once.
    pub(crate) fn release(&mut self, id: &ReplicaId) {
        let now = self.snapshot.now;
        let Some(replica) = self.snapshot.replicas.get_mut(id) else { return };
        if (replica.deleting || replica.run == Run::Stop) && replica.status.released.is_none() {
            if replica.status.ready.as_ref().is_some_and(|ready| ready.value) {
                replica.status.ready = Some(reported(false, now));
            }
            replica.status.released = Some(reported(true, now));
        }
    }

    /// Engines that crashed are restarted by their agents, and this time it works.
    pub(crate) fn recover(&mut self) {
        let crashed =
            self.snapshot.replicas.iter().filter(|(_, r)| r.run == Run::Serve && r.status.failures > 0);
        let crashed: Vec<ReplicaId> = crashed.map(|(id, _)| id.clone()).collect();
        for id in &crashed {
            self.ready(id);
        }
    }

    /// Moves one replica on by one step: weights, then the engine. Whether an engine was started.
    fn start(&mut self, id: &ReplicaId) -> bool {
        let is_failing =
            self.snapshot.replicas.get(id).is_some_and(|replica| self.failing.contains(&replica.deployment));
        if !self.begin(id) {
            return false;
        }
        if is_failing {
            self.crash(id, 5);
        } else {
            self.ready(id);
        }
        true
    }

    /// Takes up a new attempt and waits for weights. Whether an engine can be started now.
    fn begin(&mut self, id: &ReplicaId) -> bool {
        let now = self.snapshot.now;
        let Some(replica) = self.snapshot.replicas.get(id).filter(|r| r.run == Run::Serve && !r.deleting)
        else {
            return false;
        };
        let has_copy = self.snapshot.models.iter().any(|(model, content)| {
            model.name() == replica.model.name
                && content.copies.get(&replica.node).is_some_and(|copy| copy.state == CopyState::Ready)
        });
        let Some(replica) = self.taken_up(id) else { return false };
        let status = &mut replica.status;
        if has_copy && status.weights_ready.is_none() {
            status.weights_ready = Some(reported(true, now));
        }
        let stands = status.refusal.is_some() || status.failures > 0;
        has_copy && !stands && !status.ready.as_ref().is_some_and(|ready| ready.value)
    }

    /// The replica, with a status that speaks of its present attempt and of the agent's present life.
    pub(crate) fn taken_up(&mut self, id: &ReplicaId) -> Option<&mut Replica> {
        let replica = self.snapshot.replicas.get_mut(id)?;
        if replica.status.attempt != replica.attempt {
            replica.status =
                sparkherd_planner::ReplicaStatus { attempt: replica.attempt, ..Default::default() };
        }
        let node = self.snapshot.nodes.get(&replica.node)?;
        replica.status.agent_incarnation.clone_from(&node.lease_incarnation);
        Some(replica)
    }

    pub(crate) fn loads(&mut self, id: &ReplicaId) {
        let now = self.snapshot.now;
        let Some(replica) = self.taken_up(id) else { return };
        replica.status.weights_ready.get_or_insert_with(|| reported(true, now));
        replica.status.ready = Some(reported(false, now));
    }

    pub(crate) fn ready(&mut self, id: &ReplicaId) {
        let now = self.snapshot.now;
        let Some(replica) = self.taken_up(id) else { return };
        let status = &mut replica.status;
        status.weights_ready.get_or_insert_with(|| reported(true, now));
        status.ready = Some(reported(true, now));
        status.endpoint_port = Some(8100);
        (status.failures, status.failed_since, status.refusal) = (0, None, None);
    }

    pub(crate) fn crash(&mut self, id: &ReplicaId, times: u32) {
        let now = self.snapshot.now;
        let Some(replica) = self.taken_up(id) else { return };
        let status = &mut replica.status;
        status.weights_ready.get_or_insert_with(|| reported(true, now));
        status.ready = Some(reported(false, now));
        status.failures = times;
        status.failed_since = Some(now);
        status.last_exit =
            Some(Exit { status: "code 3".into(), reason: "tensor data is spoiled".into(), at: now });
    }

    pub(crate) fn refuse(&mut self, id: &ReplicaId) {
        let now = self.snapshot.now;
        let Some(node) = self.snapshot.replicas.get(id).map(|replica| replica.node.clone()) else { return };
        let allocatable_bytes = self.snapshot.nodes[&node].pools[0].allocatable_bytes;
        let Some(replica) = self.taken_up(id) else { return };
        replica.status.weights_ready.get_or_insert_with(|| reported(true, now));
        replica.status.ready = Some(reported(false, now));
        let message = "available memory is below the footprint".into();
        replica.status.refusal = Some(Refusal { message, at: now, allocatable_bytes });
    }

    /// The agent of a node starts anew: every engine there is gone with the old one.
    pub(crate) fn restart(&mut self, node: &NodeName) {
        let now = self.snapshot.now;
        let incarnation = self.unique(node.as_str());
        if let Some(node) = self.snapshot.nodes.get_mut(node) {
            node.lease_incarnation = Some(incarnation.clone());
            node.status_incarnation = Some(incarnation);
            node.heartbeat_at = Some(now);
        }
    }

    /// The new agent has looked at what is bound to it: nothing runs yet.
    pub(crate) fn reports_anew(&mut self, node: &NodeName) {
        let now = self.snapshot.now;
        let incarnation = self.snapshot.nodes.get(node).and_then(|node| node.lease_incarnation.clone());
        for replica in self.snapshot.replicas.values_mut().filter(|replica| replica.node == *node) {
            replica.status.agent_incarnation.clone_from(&incarnation);
            if replica.status.ready.as_ref().is_some_and(|ready| ready.value) {
                replica.status.ready = Some(reported(false, now));
            }
        }
    }
}

fn verdict(source: Option<&Source>, node: &NodeName, at: Timestamp) -> Result<ResolvedModel, ResolveVerdict> {
    let unresolvable = || ResolveVerdict { reason: Reason::Unresolvable, message: "no such file".into(), at };
    let source = source.ok_or_else(unresolvable)?;
    if !source.readable_on.is_empty() && !source.readable_on.contains(node) {
        return Err(unresolvable());
    }
    if let Some(message) = &source.unsupported {
        return Err(ResolveVerdict { reason: Reason::UnsupportedModel, message: message.clone(), at });
    }
    Ok(ResolvedModel {
        revision: "main".into(),
        digest: source.digest.clone(),
        bytes: source.facts.weight_bytes,
        facts: source.facts.clone(),
    })
}

pub(crate) fn empty_copy(state: CopyState) -> ModelCopy {
    ModelCopy { state, digest: None, bytes_done: 0, bytes_total: 0, message: String::new(), resolve: None }
}

fn reported(value: bool, since: Timestamp) -> Reported {
    Reported { value, reason: "Test".into(), message: String::new(), since }
}
