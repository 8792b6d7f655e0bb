//! Sentences for people, with numbers. Each says what is the case, why, and where it helps, what would change it.

use std::collections::BTreeMap;

use jiff::SignedDuration;
use sparkherd_footprint::{Footprint, Serving, largest_context};

use crate::capacity::{Bytes, Shortage};
use crate::course::refusal;
use crate::pass::Pass;
use crate::phase::{deadline_at, deadline_of, is_released};
use crate::placement::{Query, Verdict};
use crate::snapshot::{CopyState, PoolKind, Replica};
use crate::target::Target;
use crate::{NodeName, Reason};

const GIB: u64 = 1 << 30;
const MIB: u64 = 1 << 20;

/// Nodes whose verdicts are spelled out; the rest are counted. A status message is for a terminal.
const VERDICTS_MAX: usize = 8;

/// Bytes as `74.2 GiB`, or as `31.5 MiB` below one GiB.
pub(crate) fn bytes(count: u64) -> String {
    let (unit, name) = unit_of(count);
    format!("{} {name}", in_unit(count, unit))
}

fn unit_of(count: u64) -> (u64, &'static str) {
    if count >= GIB { (GIB, "GiB") } else { (MIB, "MiB") }
}

/// One decimal, rounded half up, in integers: the same on every machine.
fn in_unit(count: u64, unit: u64) -> String {
    let tenths = (u128::from(count) * 10 + u128::from(unit) / 2) / u128::from(unit);
    format!("{}.{}", tenths / 10, tenths % 10)
}

/// `needs 74.2 GiB (weights 60.8, kv 12.0, workspace 1.4)`; parts in the unit of the sum, parts of nothing left out.
pub(crate) fn needs(footprint: &Footprint) -> String {
    let (unit, name) = unit_of(footprint.total_bytes());
    let parts = &footprint.parts;
    let named = [
        ("weights", parts.weights_bytes),
        ("kv", parts.kv_bytes),
        ("state", parts.state_bytes),
        ("workspace", parts.workspace_bytes),
        ("runtime", parts.runtime_bytes),
    ];
    let listed: Vec<String> = named
        .iter()
        .filter(|(_, count)| *count > 0)
        .map(|(part, count)| format!("{part} {}", in_unit(*count, unit)))
        .collect();
    format!("needs {} {name} ({})", in_unit(footprint.total_bytes(), unit), listed.join(", "))
}

/// The verdict of a node, without its name.
fn verdict(verdict: &Verdict) -> String {
    match verdict {
        Verdict::Fits { left_bytes, .. } => format!("fits, {} would be left", bytes(*left_bytes)),
        Verdict::Unreachable => "does not answer".to_owned(),
        Verdict::NotReady => "is not ready".to_owned(),
        Verdict::Cordoned => "is cordoned".to_owned(),
        Verdict::NotMatching => "does not match the placement".to_owned(),
        Verdict::DriverUnsupported => "has an unsupported driver".to_owned(),
        Verdict::MemoryPressure => "is short of memory".to_owned(),
        Verdict::NoFacts => "has not reported its memory yet".to_owned(),
        Verdict::Impossible { message } => message.clone(),
        Verdict::Memory { shortage, .. } => free(shortage),
        Verdict::Disk { needed_bytes, free_bytes } => {
            format!("needs {} of disk, has {}", bytes(*needed_bytes), bytes(*free_bytes))
        }
        Verdict::Occupied => "runs one already".to_owned(),
        Verdict::FailedThere => "has tried it and failed".to_owned(),
        Verdict::CannotFetch { message } => format!("has no weights: {message}"),
        Verdict::Draining => "waits for memory to come back".to_owned(),
        Verdict::Starting { by } => format!("starts {} first", by.name()),
    }
}

/// `has 41.9 GiB free of 111.7`, both in the unit of the larger.
fn free(shortage: &Shortage) -> String {
    let pool = match shortage.pool {
        PoolKind::Unified => "",
        PoolKind::Device => " of device memory",
        PoolKind::Host => " of host memory",
    };
    let (unit, name) = unit_of(shortage.capacity_bytes);
    let (free, capacity) = (in_unit(shortage.free_bytes, unit), in_unit(shortage.capacity_bytes, unit));
    format!("has {free} {name} free of {capacity}{pool}")
}

/// Why no node takes a replica: the nearest miss first, then what would fit, then every other node's verdict.
pub(crate) fn unplaced(
    pass: &Pass<'_>,
    query: &Query<'_, '_>,
    verdicts: &BTreeMap<NodeName, Verdict>,
) -> (Reason, String) {
    let short = verdicts.iter().filter_map(|(name, verdict)| match verdict {
        Verdict::Memory { footprint, shortage } => Some((name, footprint, shortage)),
        _ => None,
    });
    let nearest = short
        .min_by_key(|(name, _, shortage)| (shortage.needed_bytes.saturating_sub(shortage.free_bytes), *name));
    let mut sentence = match nearest {
        Some((name, footprint, shortage)) => {
            let mut sentence = format!("{}; the best node, {name}, {}", needs(footprint), free(shortage));
            sentence.push_str(&would_fit(pass, query, name));
            sentence.push_str(&would_make_room(pass, query, name, shortage));
            sentence
        }
        None => match verdicts.len() {
            0 => "no SparkNode exists".to_owned(),
            1 => "the only node does not take it".to_owned(),
            count => format!("none of {count} nodes takes it"),
        },
    };
    sentence.push_str(&others(verdicts, nearest.map(|(name, ..)| name)));
    (reason(verdicts), sentence)
}

/// The verdicts of all nodes but one.
fn others(verdicts: &BTreeMap<NodeName, Verdict>, but: Option<&NodeName>) -> String {
    let rest: Vec<_> = verdicts.iter().filter(|(name, _)| Some(*name) != but).collect();
    let mut text = String::new();
    for (name, each) in rest.iter().take(VERDICTS_MAX) {
        text.push_str("; ");
        text.push_str(name.as_str());
        text.push(' ');
        text.push_str(&verdict(each));
    }
    if rest.len() > VERDICTS_MAX {
        return format!("{text}; and {} more", rest.len() - VERDICTS_MAX);
    }
    text
}

/// `; context 8192 would fit`: the largest on the node that lacks least.
fn would_fit(pass: &Pass<'_>, query: &Query<'_, '_>, node: &NodeName) -> String {
    let platform = pass.snapshot.nodes.get(node).and_then(|node| node.platform.as_ref());
    let (Some(facts), Some(platform)) = (query.target.facts(), platform) else { return String::new() };
    let credit =
        query.instead_of.filter(|(name, _)| *name == node).map_or_else(Bytes::default, |(_, bytes)| bytes);
    let largest = largest_context(facts, &query.target.serving, platform, |footprint| {
        pass.ledger.fit(node, query.id, Bytes::of(footprint), credit).is_ok()
    });
    match largest {
        Some(context) if context < query.target.serving.context => format!("; context {context} would fit"),
        Some(_) => "; a smaller KV pool would fit".to_owned(),
        None => "; no context would fit".to_owned(),
    }
}

/// `; without small-2f… (48.9 GiB) it would fit there`: the smallest engine of another deployment whose memory suffices.
/// Only one of the same namespace is named (I16).
fn would_make_room(pass: &Pass<'_>, query: &Query<'_, '_>, node: &NodeName, shortage: &Shortage) -> String {
    let missing_bytes = shortage.needed_bytes.saturating_sub(shortage.free_bytes);
    let in_the_way = pass.snapshot.replicas.iter().filter(|(id, replica)| {
        id.namespace() == query.id.namespace()
            && replica.node == *node
            && replica.deployment != query.id.name()
            && !is_released(replica)
            && Bytes::of(&replica.footprint).in_pool(shortage.pool) >= missing_bytes
    });
    let smallest =
        in_the_way.min_by_key(|(id, replica)| (Bytes::of(&replica.footprint).in_pool(shortage.pool), *id));
    smallest.map_or_else(String::new, |(_, replica)| {
        let freed = bytes(Bytes::of(&replica.footprint).in_pool(shortage.pool));
        format!("; without {} ({freed} there) it would fit", replica.deployment)
    })
}

/// The reason that stands for all verdicts: what is nearest to a solution.
fn reason(verdicts: &BTreeMap<NodeName, Verdict>) -> Reason {
    let of = |verdict: &Verdict| match verdict {
        Verdict::Memory { .. } => (0, Reason::InsufficientMemory),
        Verdict::Disk { .. } => (1, Reason::InsufficientDisk),
        Verdict::Impossible { .. } => (2, Reason::Invalid),
        Verdict::CannotFetch { .. } => (2, Reason::DownloadFailed),
        Verdict::FailedThere => (3, Reason::CrashLooping),
        Verdict::MemoryPressure => (4, Reason::InsufficientMemory),
        Verdict::DriverUnsupported => (5, Reason::DriverUnsupported),
        Verdict::Unreachable | Verdict::NotReady => (6, Reason::NodeUnreachable),
        Verdict::Cordoned => (7, Reason::NodeCordoned),
        Verdict::NoFacts | Verdict::Starting { .. } | Verdict::Draining | Verdict::Fits { .. } => {
            (8, Reason::Placing)
        }
        Verdict::NotMatching | Verdict::Occupied => (9, Reason::NoMatchingNode),
    };
    verdicts
        .values()
        .map(of)
        .min_by_key(|(rank, _)| *rank)
        .map_or(Reason::NoMatchingNode, |(_, reason)| reason)
}

/// How far the weights of an engine are on a node.
pub(crate) fn weights_progress(target: &Target<'_>, node: &NodeName) -> (Reason, String) {
    let copy = target.weights.and_then(|model| model.copies.get(node));
    let model = &target.model.name;
    match copy {
        Some(copy) if copy.state == CopyState::Failed => {
            let is_checksum = copy.message.to_ascii_lowercase().contains("checksum");
            let reason = if is_checksum { Reason::ChecksumMismatch } else { Reason::DownloadFailed };
            (reason, format!("weights of {model} on {node}: {}", copy.message))
        }
        Some(copy) if copy.state == CopyState::Verifying => {
            (Reason::Downloading, format!("{node} verifies {} of {model}", bytes(copy.bytes_total)))
        }
        Some(copy) if copy.state == CopyState::Fetching => {
            let (done, total) = (bytes(copy.bytes_done), bytes(copy.bytes_total));
            (Reason::Downloading, format!("{node} has {done} of {total} of {model}"))
        }
        _ => (Reason::Downloading, format!("{node} is about to fetch the weights of {model}")),
    }
}

/// What an attempt died of, after the replica's name.
pub(crate) fn attempt_failure(
    pass: &Pass<'_>,
    replica: &Replica,
    deadline: Option<SignedDuration>,
) -> String {
    let status = &replica.status;
    if let Some(refusal) = refusal(replica) {
        return format!("was refused: {}", refusal.message);
    }
    let last = status.last_exit.as_ref().map(|exit| format!(", last with {}: {}", exit.status, exit.reason));
    if status.failures > 0 {
        let times =
            if status.failures == 1 { "once".to_owned() } else { format!("{} times", status.failures) };
        return format!("failed {times}{}", last.unwrap_or_default());
    }
    let late = deadline_at(replica, deadline).is_some_and(|at| at <= pass.snapshot.now);
    let seconds = deadline_of(replica, deadline).as_secs();
    if late {
        format!("was not ready within {seconds} s of its weights")
    } else {
        "did not become ready".to_owned()
    }
}

/// The settings that tell one revision from another, for a person.
pub(crate) fn settings(serving: &Serving) -> String {
    format!("context {}, concurrency {}", serving.context, serving.concurrency)
}

#[cfg(test)]
mod tests {
    use super::*;
    use sparkherd_footprint::Parts;

    #[test]
    fn bytes_have_one_decimal_and_a_unit() {
        for (count, text) in [
            (0, "0.0 MiB"),
            (MIB / 2, "0.5 MiB"),
            (GIB - 1, "1024.0 MiB"),
            (GIB, "1.0 GiB"),
            (79_671_443_456, "74.2 GiB"),
            (u64::MAX, "17179869184.0 GiB"),
        ] {
            assert_eq!(bytes(count), text);
        }
    }

    #[test]
    fn a_footprint_is_told_by_part() {
        let parts = Parts {
            weights_bytes: 608 * GIB / 10,
            kv_bytes: 12 * GIB,
            state_bytes: 0,
            workspace_bytes: 14 * GIB / 10,
            runtime_bytes: 0,
        };
        let sum = parts.weights_bytes + parts.kv_bytes + parts.workspace_bytes;
        let footprint = Footprint { device_bytes: sum, host_bytes: 0, parts };
        assert_eq!(needs(&footprint), "needs 74.2 GiB (weights 60.8, kv 12.0, workspace 1.4)");
    }
}
