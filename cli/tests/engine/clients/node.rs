use std::path::Path;

use super::{install, runs_against_fake_and_real, scripts};

#[test]
#[ignore = "needs node, npm and a package registry; the height \"node\" of cargo xtask test"]
fn openais_client() {
    let script = install::node("openai-node", &scripts().join("node/openai_client.mjs"));
    runs_against_fake_and_real(Path::new("node"), &script);
}
