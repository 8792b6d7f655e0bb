//! What the unit tests of several modules build their cases from.

use std::path::PathBuf;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use sparkherd_checkpoint::{Architecture, CheckpointFile, Dtype, Facts, Inspection, Requantize};
use sparkherd_footprint::{Footprint, KvDtype, Parts, Serving};
use sparkherd_protocol::Access;

use crate::clock::Moment;
use crate::engine::{Engine, EngineId};
use crate::memory::PoolBytes;
use crate::store::{Located, Roots};
use crate::wanted::{ReplicaKey, Wanted};

pub const GIB: u64 = 1 << 30;

pub fn moment(seconds: u64) -> Moment {
    let wall = Timestamp::UNIX_EPOCH + SignedDuration::from_secs(i64::try_from(seconds).unwrap());
    Moment { since_start: Duration::from_secs(seconds), wall }
}

pub fn key(name: &str) -> ReplicaKey {
    ReplicaKey { namespace: "lab".to_owned(), name: name.to_owned(), uid: format!("uid-{name}") }
}

/// A replica of deployment `name` that is to serve and takes this many GiB.
pub fn wanted(name: &str, footprint_gib: u64) -> Wanted {
    Wanted {
        generation: Some(1),
        created_at: None,
        deployment: name.to_owned(),
        serve: true,
        attempt: 1,
        drain_seconds: 60,
        model: "weights".to_owned(),
        digest: "d1".to_owned(),
        serving: Serving {
            context: 64,
            concurrency: 1,
            kv_tokens: 64,
            kv_dtype: KvDtype::F32,
            requantize: Requantize::None,
        },
        footprint: Footprint { device_bytes: 0, host_bytes: footprint_gib * GIB, parts: Parts::default() },
        access: Access::default(),
        served_names: vec![name.to_owned()],
    }
}

pub fn engine(id: u64, wanted: &Wanted, at: Moment) -> Engine {
    Engine::spawned(
        EngineId(id),
        100 + u32::try_from(id).unwrap(),
        8100,
        wanted,
        PoolBytes::host(wanted.footprint.total_bytes()),
        at.since_start,
    )
}

/// An inspection with this digest.
pub fn inspection(digest: &str) -> Inspection {
    Inspection {
        facts: Facts {
            architecture: Architecture::Llama,
            dtype: Dtype::Bf16,
            parameters: 1,
            weight_bytes: 2,
            layers: 1,
            hidden_size: 1,
            intermediate_size: 1,
            attention_heads: 1,
            kv_heads: 1,
            head_dim: 1,
            vocab_size: 1,
            max_context: 64,
            int8_weight_bytes: None,
            tokenizer_bytes: 1,
        },
        files: vec![CheckpointFile { name: "config.json".to_owned(), bytes: 2 }],
        digest: digest.to_owned(),
    }
}

/// A real directory with one file, found below itself; each call with another text has another fingerprint.
pub fn located(root: &tempfile::TempDir, text: &str) -> Located {
    std::fs::write(root.path().join("config.json"), text).unwrap();
    let source = format!("file://{}", root.path().display());
    Roots::new(vec![PathBuf::from(root.path())]).locate(&source).unwrap()
}
