//! Looking at sources and reading headers, beside the loop: a slow disk must not stop it.

use std::time::Duration;

use sparkherd_checkpoint::{InspectionOutcome, Refusal, RefusalReason};
use sparkherd_crds::StoreFacts;

use crate::agent::Agent;
use crate::clock::Moment;
use crate::machine::store_facts;
use crate::memory::ProcessMemory;
use crate::source::Desired;
use crate::store::{LocateError, Located};
use crate::wanted::ModelKey;

/// Between two cheap looks at the sources: a fix shows at once, and a look is a handful of system calls.
const LOOK_EVERY: Duration = Duration::from_secs(3);

/// Processes shown by name, as many as the API takes.
const OTHERS_MAX: usize = 8;

/// What came of looking beside the loop.
#[derive(Debug)]
pub(crate) enum Finding {
    Looked {
        looks: Vec<(ModelKey, Result<Located, LocateError>)>,
        store: Option<StoreFacts>,
        others: Vec<ProcessMemory>,
    },
    Inspected {
        model: ModelKey,
        located: Located,
        outcome: InspectionOutcome,
    },
}

impl Agent {
    /// Starts a look at all sources that concern this node, if one is due.
    pub(crate) fn look(&mut self, desired: &Desired, now: Moment) {
        if self.state.looking || now.since_start < self.state.look_at {
            return;
        }
        self.state.looking = true;
        self.state.look_at = now.since_start + LOOK_EVERY;
        let sources: Vec<(ModelKey, String)> = self
            .state
            .roles
            .iter()
            .filter(|(_, role)| role.looks())
            .filter_map(|(key, _)| Some((key.clone(), desired.models.get(key)?.spec.source.clone())))
            .collect();
        let (roots, store) = (self.roots.clone(), self.config.store.clone());
        let (probe, findings) = (self.probe.clone(), self.findings.0.clone());
        let device_bytes = self.device_bytes_of_host();
        tokio::task::spawn_blocking(move || {
            let looks = sources.into_iter().map(|(key, source)| (key, roots.locate(&source))).collect();
            // The loop has ended: nobody is left to tell.
            let _ = findings.blocking_send(Finding::Looked {
                looks,
                store: store_facts(&store),
                others: probe.others(OTHERS_MAX, &device_bytes),
            });
        });
    }

    /// Starts reading the headers of one model, if one is due and no other is being read.
    pub(crate) fn inspect(&mut self, now: Moment) {
        if self.state.inspecting {
            return;
        }
        let due = self.state.copies.iter().find_map(|(key, copy)| Some((key, copy.due(now.since_start)?)));
        let Some((model, located)) = due.map(|(key, located)| (key.clone(), located.clone())) else { return };
        self.state.inspecting = true;
        let (inspector, findings) = (self.inspector.clone(), self.findings.0.clone());
        tokio::spawn(async move {
            let outcome =
                inspector.inspect(&located.directory, &located.root).await.unwrap_or_else(|error| {
                    InspectionOutcome::Error(Refusal::new(RefusalReason::Unresolvable, &error.to_string()))
                });
            // The loop has ended: nobody is left to tell.
            let _ = findings.send(Finding::Inspected { model, located, outcome }).await;
        });
    }

    pub(crate) fn found(&mut self, finding: Finding) {
        let now = self.clock.now();
        match finding {
            Finding::Looked { looks, store, others } => {
                self.state.looking = false;
                (self.state.store, self.state.others) = (store, others);
                for (key, look) in looks {
                    // The role may be over since the look began.
                    let looks = self.state.roles.get(&key).is_some_and(|role| role.looks());
                    if let Some(copy) = self.state.copies.get_mut(&key).filter(|_| looks) {
                        copy.looked(look, now);
                    }
                }
            }
            Finding::Inspected { model, located, outcome } => {
                self.state.inspecting = false;
                let label = match &outcome {
                    InspectionOutcome::Inspection(_) => "whole",
                    InspectionOutcome::Error(refusal) => match refusal.reason {
                        RefusalReason::Unresolvable => "unresolvable",
                        RefusalReason::UnsupportedModel => "unsupported",
                    },
                };
                self.metrics.inspections.with_label_values(&[label]).inc();
                tracing::info!(%model, outcome = label, "headers read");
                if let Some(copy) = self.state.copies.get_mut(&model) {
                    copy.inspected(located, outcome, now);
                }
            }
        }
    }
}
