//! Which crate may not be built from which other: what the folders promise, proved from cargo's own graph.

use anyhow::Result;

use crate::cargo;

/// No runtime, no client, no server: these only compute.
const WORLD: [&str; 7] = ["tokio", "kube", "kube-client", "k8s-openapi", "hyper", "reqwest", "warp"];
const PURE_CRATES: [&str; 3] = ["sparkherd-planner", "sparkherd-checkpoint", "sparkherd-footprint"];
/// The agent speaks to engines by the protocol, so that a fault in one never takes the other with it.
const SEPARATE: [(&str, &str); 3] = [
    ("sparkherd-agent", "sparkherd-engine"),
    ("sparkherd-engine", "sparkherd-crds"),
    ("sparkherd-operator", "sparkherd-agent"),
];

pub fn offences() -> Result<Vec<String>> {
    let mut offences = Vec::new();
    for pure in PURE_CRATES {
        let built_from = cargo::dependencies(pure)?;
        let worldly = WORLD.iter().filter(|name| built_from.iter().any(|found| found == *name));
        offences
            .extend(worldly.map(|name| format!("{pure} is pure, and {name} is among what it is built from")));
    }
    for (above, below) in SEPARATE {
        if cargo::dependencies(above)?.iter().any(|found| found == below) {
            offences.push(format!("{above} must not be built from {below}"));
        }
    }
    Ok(offences)
}
