use std::collections::BTreeMap;

use sparkherd_footprint::Footprint;

use crate::phase::{is_released, is_starting};
use crate::snapshot::{Node, Pool, PoolKind, Snapshot};
use crate::{DeploymentId, NodeName, ReplicaId};

/// Share of a pool's total by which its `allocatable` may lag behind the truth: agents rewrite it when it has moved by more.
const ALLOCATABLE_LAG_DIVISOR: u64 = 100;

/// Bytes by where they lie.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Bytes {
    pub(crate) device: u64,
    pub(crate) host: u64,
}

impl Bytes {
    pub(crate) const fn of(footprint: &Footprint) -> Self {
        Self { device: footprint.device_bytes, host: footprint.host_bytes }
    }

    pub(crate) const fn plus(self, other: Self) -> Self {
        Self { device: self.device.saturating_add(other.device), host: self.host.saturating_add(other.host) }
    }

    pub(crate) const fn minus(self, other: Self) -> Self {
        Self { device: self.device.saturating_sub(other.device), host: self.host.saturating_sub(other.host) }
    }

    pub(crate) fn max(self, other: Self) -> Self {
        Self { device: self.device.max(other.device), host: self.host.max(other.host) }
    }

    /// What a pool of this kind must hold of them.
    pub(crate) const fn in_pool(self, kind: PoolKind) -> u64 {
        match kind {
            PoolKind::Unified => self.device.saturating_add(self.host),
            PoolKind::Device => self.device,
            PoolKind::Host => self.host,
        }
    }
}

/// Bytes of a node's pool promised to replicas whose memory is not yet measured back, for the metric.
pub fn promised_bytes(snapshot: &Snapshot, node: &NodeName, pool: PoolKind) -> u64 {
    let holding = snapshot.replicas.values().filter(|replica| replica.node == *node && !is_released(replica));
    holding.fold(0, |sum: u64, replica| sum.saturating_add(Bytes::of(&replica.footprint).in_pool(pool)))
}

/// Why a pool cannot take a replica.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Shortage {
    pub(crate) pool: PoolKind,
    pub(crate) needed_bytes: u64,
    pub(crate) free_bytes: u64,
    /// `total − reserve`.
    pub(crate) capacity_bytes: u64,
}

/// One node's books.
#[derive(Debug)]
struct Account<'a> {
    pools: &'a [Pool],
    /// Footprints of all replicas whose memory is not yet measured back, leaving ones too (I1).
    promised: Bytes,
    /// What open swaps keep for their deployment, beyond what its replicas there are promised.
    held_for: BTreeMap<&'a DeploymentId, Bytes>,
    starting: Option<ReplicaId>,
}

/// What is promised on each node, kept up to date while a pass decides, so that no byte is given twice.
#[derive(Debug)]
pub(crate) struct Ledger<'a> {
    accounts: BTreeMap<&'a NodeName, Account<'a>>,
}

impl<'a> Ledger<'a> {
    pub(crate) fn new(snapshot: &'a Snapshot) -> Self {
        let mut accounts: BTreeMap<&NodeName, Account<'_>> =
            snapshot.nodes.iter().map(|(name, node)| (name, Account::empty(node))).collect();
        for (id, replica) in &snapshot.replicas {
            let Some(account) = accounts.get_mut(&replica.node) else { continue };
            if !is_released(replica) {
                account.promised = account.promised.plus(Bytes::of(&replica.footprint));
            }
            if account.starting.is_none() && is_starting(snapshot, id, replica) {
                account.starting = Some(id.clone());
            }
        }
        Self { accounts }
    }

    /// Keeps bytes of a node for a deployment with an open swap there.
    pub(crate) fn hold(&mut self, node: &NodeName, deployment: &'a DeploymentId, bytes: Bytes) {
        if let Some(account) = self.accounts.get_mut(node) {
            account.held_for.insert(deployment, bytes);
        }
    }

    /// Books a new or revived replica; a hold of its deployment pays first.
    pub(crate) fn promise(
        &mut self,
        node: &NodeName,
        deployment: &DeploymentId,
        replica: &ReplicaId,
        bytes: Bytes,
    ) {
        let Some(account) = self.accounts.get_mut(node) else { return };
        account.promised = account.promised.plus(bytes);
        if let Some(held) = account.held_for.get_mut(deployment) {
            *held = held.minus(bytes);
        }
        account.starting.get_or_insert_with(|| replica.clone());
    }

    /// The engine that starts on this node now, if one does.
    pub(crate) fn starting(&self, node: &NodeName) -> Option<&ReplicaId> {
        self.accounts.get(node).and_then(|account| account.starting.as_ref())
    }

    /// Bytes left in the tightest pool after taking `need`, where `credit` more comes free first; or what is short.
    pub(crate) fn fit(
        &self,
        node: &NodeName,
        deployment: &DeploymentId,
        need: Bytes,
        credit: Bytes,
    ) -> Result<u64, Shortage> {
        let Some(account) = self.accounts.get(node) else { return Err(Shortage::of_nothing(need)) };
        let mut left_least = None;
        for pool in account.pools {
            let needed_bytes = need.in_pool(pool.kind);
            // A pool that is promised beyond what it has takes nothing, not even nothing.
            let free_bytes = account.free_bytes(pool, deployment, credit);
            let Some(left) = free_bytes.and_then(|free| free.checked_sub(needed_bytes)) else {
                let capacity_bytes = pool.total_bytes.saturating_sub(pool.reserve_bytes);
                let free_bytes = free_bytes.unwrap_or(0);
                return Err(Shortage { pool: pool.kind, needed_bytes, free_bytes, capacity_bytes });
            };
            left_least = Some(left_least.map_or(left, |least: u64| least.min(left)));
        }
        left_least.ok_or_else(|| Shortage::of_nothing(need))
    }
}

impl<'a> Account<'a> {
    fn empty(node: &'a Node) -> Self {
        Self { pools: &node.pools, promised: Bytes::default(), held_for: BTreeMap::new(), starting: None }
    }

    /// `allocatable − Σ promised − 1 % of total`, with what others hold taken off and what comes free added; none where
    /// that is negative.
    fn free_bytes(&self, pool: &Pool, deployment: &DeploymentId, credit: Bytes) -> Option<u64> {
        let held = self
            .held_for
            .iter()
            .filter(|(holder, _)| **holder != deployment)
            .fold(Bytes::default(), |sum, (_, bytes)| sum.plus(*bytes));
        let taken = self.promised.minus(credit).plus(held).in_pool(pool.kind);
        pool.allocatable_bytes.checked_sub(taken)?.checked_sub(pool.total_bytes / ALLOCATABLE_LAG_DIVISOR)
    }
}

impl Shortage {
    const fn of_nothing(need: Bytes) -> Self {
        let needed_bytes = need.in_pool(PoolKind::Unified);
        Self { pool: PoolKind::Unified, needed_bytes, free_bytes: 0, capacity_bytes: 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::{GIB, node, replica, reported, snapshot};
    use crate::snapshot::{Replica, Run};

    const UNIFIED: &[PoolKind] = &[PoolKind::Unified];
    const SPLIT: &[PoolKind] = &[PoolKind::Device, PoolKind::Host];

    fn need(device: u64, host: u64) -> Bytes {
        Bytes { device: device * GIB, host: host * GIB }
    }

    /// GiB left after taking `wanted` beside what is there, or the GiB that were free.
    fn fit(kinds: &[PoolKind], there: &[Replica], wanted: Bytes, credit: Bytes) -> Result<u64, u64> {
        let mut snapshot = snapshot(&[("spark-1", node(kinds))]);
        for (index, replica) in there.iter().enumerate() {
            snapshot.replicas.insert(ReplicaId::new("lab", index.to_string()), replica.clone());
        }
        let (name, deployment) = (NodeName::new("spark-1"), DeploymentId::new("lab", "coder"));
        Ledger::new(&snapshot)
            .fit(&name, &deployment, wanted, credit)
            .map(|left| left / GIB)
            .map_err(|shortage| shortage.free_bytes / GIB)
    }

    #[test]
    fn room_is_allocatable_less_what_is_promised_less_one_percent() {
        let stopped = |released| {
            let mut replica = replica(30, 10);
            replica.run = Run::Stop;
            replica.status.released = Some(reported(released, crate::fixture::at(0)));
            replica
        };
        let told = Replica { deleting: true, ..replica(30, 10) };
        let mut claims = replica(30, 10);
        claims.status.released = Some(reported(true, crate::fixture::at(0)));
        for (name, kinds, there, wanted, credit, expected) in [
            ("all of it", UNIFIED, vec![], need(80, 9), need(0, 0), Ok(0)),
            ("the lag is kept", UNIFIED, vec![], need(80, 10), need(0, 0), Err(89)),
            ("beside another", UNIFIED, vec![replica(30, 10)], need(40, 9), need(0, 0), Ok(0)),
            ("too much beside another", UNIFIED, vec![replica(30, 10)], need(40, 10), need(0, 0), Err(49)),
            ("instead of another", UNIFIED, vec![replica(30, 10)], need(80, 9), need(30, 10), Ok(0)),
            ("a stopped one counts", UNIFIED, vec![stopped(false)], need(50, 0), need(0, 0), Err(49)),
            ("until it is released", UNIFIED, vec![stopped(true)], need(89, 0), need(0, 0), Ok(0)),
            ("a deleted one counts", UNIFIED, vec![told], need(50, 0), need(0, 0), Err(49)),
            (
                "released counts only when told to leave",
                UNIFIED,
                vec![claims],
                need(50, 0),
                need(0, 0),
                Err(49),
            ),
            ("two pools, each its own", SPLIT, vec![replica(30, 10)], need(59, 79), need(0, 0), Ok(0)),
            ("short of host", SPLIT, vec![replica(30, 10)], need(1, 80), need(0, 0), Err(79)),
            ("no pool is no room", &[], vec![], need(1, 0), need(0, 0), Err(0)),
        ] {
            assert_eq!(fit(kinds, &there, wanted, credit), expected, "{name}");
        }
    }

    #[test]
    fn what_is_held_for_one_is_not_there_for_others_and_is_spent_once() {
        let snapshot = snapshot(&[("spark-1", node(UNIFIED))]);
        let mut ledger = Ledger::new(&snapshot);
        let (spark, no_credit) = (NodeName::new("spark-1"), Bytes::default());
        let (holder, other) = (DeploymentId::new("lab", "holder"), DeploymentId::new("lab", "other"));
        ledger.hold(&spark, &holder, need(50, 0));
        assert!(ledger.fit(&spark, &other, need(39, 0), no_credit).is_ok());
        assert!(ledger.fit(&spark, &other, need(40, 0), no_credit).is_err());
        assert!(ledger.fit(&spark, &holder, need(89, 0), no_credit).is_ok());
        ledger.promise(&spark, &holder, &ReplicaId::new("lab", "new"), need(50, 0));
        assert!(
            ledger.fit(&spark, &other, need(39, 0), no_credit).is_ok(),
            "the same bytes are not counted twice"
        );
        assert!(ledger.fit(&spark, &holder, need(40, 0), no_credit).is_err());
    }
}
