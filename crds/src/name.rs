use sha2::{Digest, Sha256};

pub const GROUP: &str = "sparkherd.dev";
pub const VERSION: &str = "v1alpha1";

/// Kept on a ModelReplica until its memory is measured back or its node is lost.
pub const FINALIZER: &str = "sparkherd.dev/release";
/// On all that belongs to one ModelDeployment: its name.
pub const DEPLOYMENT_LABEL: &str = "sparkherd.dev/deployment";
/// On an EndpointSlice: the replica's name.
pub const REPLICA_LABEL: &str = "sparkherd.dev/replica";
/// On a Model that the operator made, so that it may delete it: `"true"`.
pub const MADE_BY_OPERATOR_LABEL: &str = "sparkherd.dev/made-by-operator";
/// `endpointslice.kubernetes.io/managed-by` of our slices: Kubernetes' own controllers leave them alone.
pub const ENDPOINT_SLICE_MANAGER: &str = "sparkherd.dev";
/// Condition of a SparkNode on which less than half the reserve is available: engines are moved away (rule 4).
pub const MEMORY_STARVED: &str = "MemoryStarved";
/// Field manager of the operator's applies.
pub const OPERATOR_MANAGER: &str = "sparkherd-operator";
/// Field managers of agents start with this; one per node, for a shared one would erase other nodes' entries.
pub const AGENT_MANAGER_PREFIX: &str = "sparkherd-agent/";

/// Longest field manager the API server takes.
const MANAGER_LENGTH_MAX: usize = 128;

/// Field manager of the agent on `node`; a name too long is cut and told apart by a hash.
pub fn agent_manager(node: &str) -> String {
    let whole = format!("{AGENT_MANAGER_PREFIX}{node}");
    if whole.len() <= MANAGER_LENGTH_MAX {
        return whole;
    }
    let digest = <[u8; 32]>::from(Sha256::digest(node.as_bytes()));
    let hash = format!("{:08x}", u32::from_be_bytes([digest[0], digest[1], digest[2], digest[3]]));
    // Node names are DNS subdomains: ASCII, so any cut is between characters.
    let kept = &whole[..MANAGER_LENGTH_MAX - hash.len() - 1];
    format!("{kept}-{hash}")
}
