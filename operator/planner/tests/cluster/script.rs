//! The language of the scenario files. One command a line:
//!
//! ```text
//! node NAME GIB                      a Spark, 10 GiB of it reserved
//! source URI weights=GIB [max-context=N] [on=NODE,…] [unsupported=WORDS]
//! deploy NAME URI [field=value …]    edit NAME field=value …     scale NAME N     delete NAME
//! fails NAME | works NAME            engines that start from now on crash, or not
//! ready | refuse | crash | released | loads NAME@NODE           an agent's word on the replica there
//! lose NODE | return NODE | restart NODE | reports NODE | cordon NODE | uncordon NODE | drain NODE
//! allocatable NODE GIB               what the agent measures for all engines together
//! starved NODE | foreign-service NAME | owner NAME gone | invalid NAME WORDS
//! tick SECONDS                       time passes, agents send heartbeats
//! plan                               one pass, done as the cluster would; prints its actions
//! settle                             passes and agents in turn until nothing is left to do; prints the actions
//! status [NAME]                      prints what is said of deployments
//! ```

use std::collections::BTreeMap;
use std::fmt::Write as _;

use sparkherd_planner::{
    Action, DeploymentId, NodeName, ReplicaId, Report, Run, ServiceState, plan, violations,
};

use crate::simulator::{Cluster, NAMESPACE, Source, deployment_spec, facts, node, set_field};

/// Rounds after which a cluster that still changes is said never to settle.
pub(crate) const ROUNDS_MAX: usize = 60;

const GIB: u64 = 1 << 30;

pub(crate) struct Script {
    cluster: Cluster,
    output: String,
    /// Short names of revisions, in the order in which they were first seen.
    revisions: BTreeMap<String, String>,
}

/// Runs the commands and gives what they print.
pub(crate) fn run(commands: &str) -> String {
    let mut script = Script { cluster: Cluster::new(), output: String::new(), revisions: BTreeMap::new() };
    for line in commands.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
        script.command(line);
        let found = violations(&script.cluster.snapshot);
        assert!(found.is_empty(), "after `{line}`: {found:?}");
    }
    script.output
}

impl Script {
    fn command(&mut self, line: &str) {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words.as_slice() {
            ["node", name, gib] => self.node(name, gib.parse().unwrap()),
            ["source", uri, options @ ..] => self.source(uri, options),
            ["deploy", name, uri, fields @ ..] => {
                let mut spec = deployment_spec(name, uri);
                for field in fields {
                    set(&mut spec, field);
                }
                self.cluster.deploy(name, spec);
            }
            ["edit", name, fields @ ..] => self.edit(name, fields),
            ["scale", name, replicas] => self.edit(name, &[&format!("replicas={replicas}")]),
            ["delete", name] => self.cluster.delete(name),
            ["fails", name] => drop(self.cluster.failing.insert((*name).to_owned())),
            ["works", name] => drop(self.cluster.failing.remove(*name)),
            ["tick", seconds] => self.cluster.tick(seconds.parse().unwrap()),
            ["plan"] => {
                let plan = self.cluster.plan();
                self.say("plan");
                self.print(&plan.actions);
            }
            ["settle"] => self.settle(),
            ["status"] => self.status(None),
            ["status", name] => self.status(Some(name)),
            ["owner", name, "gone"] => {
                let deployment = self.cluster.deployment(name).unwrap();
                deployment.uid.push_str("-again");
            }
            ["foreign-service", name] => {
                self.cluster.deployment(name).unwrap().service = ServiceState::Foreign;
            }
            ["invalid", name, words @ ..] => {
                self.cluster.deployment(name).unwrap().spec = Err(words.join(" "));
            }
            [verb @ ("ready" | "refuse" | "crash" | "released" | "loads"), replica] => {
                self.word_on(verb, replica);
            }
            [verb, name, rest @ ..] => self.node_command(verb, &NodeName::new(*name), rest),
            _ => panic!("no command `{line}`"),
        }
    }

    fn node(&mut self, name: &str, gib: u64) {
        let index = u8::try_from(self.cluster.snapshot.nodes.len() + 1).unwrap();
        let node = node(name, index, gib, self.cluster.snapshot.now);
        self.cluster.snapshot.nodes.insert(NodeName::new(name), node);
    }

    fn source(&mut self, uri: &str, options: &[&str]) {
        let (mut weights, mut max_context) = (8, 131_072);
        let (mut readable_on, mut unsupported) = (Vec::new(), None);
        for option in options {
            match option.split_once('=').unwrap() {
                ("weights", gib) => weights = gib.parse().unwrap(),
                ("max-context", tokens) => max_context = tokens.parse().unwrap(),
                ("on", nodes) => readable_on = nodes.split(',').map(NodeName::new).collect(),
                ("unsupported", sentence) => unsupported = Some(sentence.replace('_', " ")),
                _ => panic!("no option {option}"),
            }
        }
        let facts = facts(weights, max_context);
        let digest = format!("digest of {uri}");
        self.cluster.sources.insert(uri.to_owned(), Source { facts, digest, readable_on, unsupported });
    }

    fn edit(&mut self, name: &str, fields: &[&str]) {
        let deployment = self.cluster.deployment(name).unwrap();
        deployment.generation += 1;
        let spec = deployment.spec.as_mut().unwrap();
        for field in fields {
            set(spec, field);
        }
    }

    fn node_command(&mut self, verb: &str, name: &NodeName, rest: &[&str]) {
        let now = self.cluster.snapshot.now;
        match (verb, rest) {
            ("lose", []) => drop(self.cluster.silent.insert(name.clone())),
            ("return", []) => {
                self.cluster.silent.remove(name);
                self.cluster.restart(name);
                self.cluster.reports_anew(name);
            }
            ("restart", []) => self.cluster.restart(name),
            ("reports", []) => self.cluster.reports_anew(name),
            ("drain", []) => self.node_mut(name).drain = true,
            ("cordon", []) => self.node_mut(name).cordoned = true,
            ("uncordon", []) => self.node_mut(name).cordoned = false,
            ("starved", []) => self.node_mut(name).starved_since = Some(now),
            ("allocatable", [gib]) => {
                self.node_mut(name).pools[0].allocatable_bytes = gib.parse::<u64>().unwrap() * GIB;
            }
            _ => panic!("no command {verb} {rest:?}"),
        }
    }

    fn node_mut(&mut self, name: &NodeName) -> &mut sparkherd_planner::Node {
        self.cluster.snapshot.nodes.get_mut(name).unwrap()
    }

    /// `DEPLOYMENT@NODE`: the replica that is to serve there, or for `released` the one that leaves.
    fn word_on(&mut self, verb: &str, replica: &str) {
        let (deployment, node) = replica.split_once('@').unwrap();
        let id = self
            .cluster
            .snapshot
            .replicas
            .iter()
            .find(|(_, replica)| {
                let leaves = replica.deleting || replica.run == Run::Stop;
                replica.deployment == deployment
                    && replica.node.as_str() == node
                    && leaves == (verb == "released")
                    && (verb != "released" || replica.status.released.is_none())
            })
            .map_or_else(|| panic!("no replica {replica} to be {verb}"), |(id, _)| id.clone());
        match verb {
            "ready" => self.cluster.ready(&id),
            "refuse" => self.cluster.refuse(&id),
            "crash" => self.cluster.crash(&id, 5),
            "released" => self.cluster.release(&id),
            _ => self.cluster.loads(&id),
        }
    }

    fn settle(&mut self) {
        self.say("settle");
        for _ in 0..ROUNDS_MAX {
            let plan = self.cluster.plan();
            self.print(&plan.actions);
            let before = format!("{:?}", self.cluster.snapshot);
            self.cluster.agents();
            if plan.actions.is_empty() && before == format!("{:?}", self.cluster.snapshot) {
                return;
            }
            self.cluster.tick(1);
        }
        self.say("does not settle");
    }

    fn say(&mut self, words: &str) {
        let _ = writeln!(self.output, "> {words}");
    }

    fn print(&mut self, actions: &[Action]) {
        for action in actions {
            let line = self.describe(action);
            let _ = writeln!(self.output, "  {line}");
        }
    }

    fn describe(&mut self, action: &Action) -> String {
        if let Action::CreateReplica(new) = action {
            self.short(&new.revision);
        }
        match action {
            Action::CreateModel { id, write, .. } => {
                format!("create model {}, {}", id.name(), model_write(write))
            }
            Action::UpdateModel { id, write, .. } => {
                format!("update model {}, {}", id.name(), model_write(write))
            }
            Action::DeleteModel { id, .. } => format!("delete model {}", id.name()),
            Action::CreateReplica(new) => {
                let footprint = (new.footprint.total_bytes() * 10 + GIB / 2) / GIB;
                let revision = self.short(&new.revision);
                let (whole, tenth) = (footprint / 10, footprint % 10);
                let replica = format!("{}@{}/{revision}", new.deployment.name(), new.node);
                format!("create {replica}, context {}, {whole}.{tenth} GiB", new.serving.context)
            }
            Action::UpdateReplica { id, write, .. } => {
                format!("{:?} {}, attempt {}", write.run, self.name(id), write.attempt).to_lowercase()
            }
            Action::DeleteReplica { id, reason, .. } => format!("delete {} ({reason})", self.name(id)),
            Action::ReleaseReplica { id, .. } => format!("release {}", self.name(id)),
            Action::EnsureService { deployment, .. } => format!("service {}", deployment.name()),
            Action::SetEndpoint { replica, ready, address, port, .. } => {
                let verb = if *ready { "publish" } else { "unpublish" };
                format!("{verb} {} {address}:{port}", self.name(replica))
            }
        }
    }

    /// `DEPLOYMENT@NODE/rN`; a replica that has just been released is told by its object name.
    fn name(&mut self, id: &ReplicaId) -> String {
        match self.cluster.snapshot.replicas.get(id) {
            Some(replica) => {
                let (deployment, node, revision) =
                    (replica.deployment.clone(), replica.node.clone(), replica.revision.clone());
                let alias = format!("{deployment}@{node}/{}", self.short(&revision));
                self.revisions.insert(id.name().to_owned(), alias.clone());
                alias
            }
            None => self.revisions.get(id.name()).cloned().unwrap_or_else(|| id.name().to_owned()),
        }
    }

    fn short(&mut self, revision: &str) -> String {
        let next = self.revisions.values().filter(|alias| !alias.contains('@')).count() + 1;
        self.revisions.entry(revision.to_owned()).or_insert_with(|| format!("r{next}")).clone()
    }

    fn status(&mut self, name: Option<&str>) {
        self.say(format!("status {}", name.unwrap_or_default()).trim_end());
        let ids: Vec<ReplicaId> = self.cluster.snapshot.replicas.keys().cloned().collect();
        for id in ids {
            self.name(&id);
        }
        let plan = plan(&self.cluster.snapshot);
        for (id, report) in &plan.report {
            if name.is_none_or(|name| *id == DeploymentId::new(NAMESPACE, name)) {
                let mut text = describe_report(id.name(), report);
                for (long, short) in &self.revisions {
                    text = text.replace(long, short);
                }
                self.output.push_str(&text);
            }
        }
    }
}

fn set(spec: &mut sparkherd_planner::DeploymentSpec, field: &str) {
    let (name, value) = field.split_once('=').unwrap();
    set_field(spec, name, value);
}

fn model_write(write: &sparkherd_planner::ModelWrite) -> String {
    let owners: Vec<&str> = write.owners.iter().map(|owner| owner.name.as_str()).collect();
    let cache_on: Vec<&str> = write.cache_on.iter().map(NodeName::as_str).collect();
    let resolver = write.resolver.as_ref().map_or("nobody", NodeName::as_str);
    format!("resolver {resolver}, cache on [{}], owners [{}]", cache_on.join(" "), owners.join(" "))
}

fn describe_report(name: &str, report: &Report) -> String {
    let nodes: Vec<&str> = report.nodes.iter().map(NodeName::as_str).collect();
    let mut text = format!(
        "  {name}: {} replicas, {} ready, {} updated, on [{}]\n",
        report.replicas,
        report.ready_replicas,
        report.updated_replicas,
        nodes.join(" ")
    );
    for (kind, condition) in &report.conditions {
        let _ = writeln!(
            text,
            "    {}={} {}: {}",
            kind.as_str(),
            condition.status.as_str(),
            condition.reason,
            condition.message
        );
    }
    text
}
