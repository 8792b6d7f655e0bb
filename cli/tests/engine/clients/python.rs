use super::{install, runs_against_fake_and_real, scripts};

/// The release the script was written against.
const OPENAI: &[&str] = &["openai==3.52.0"];

#[test]
#[ignore = "needs python3 and a package registry; the height \"python\" of cargo xtask test"]
fn openais_client() {
    let python = install::python("openai-python", OPENAI);
    runs_against_fake_and_real(&python, &scripts().join("python/openai_client.py"));
}
