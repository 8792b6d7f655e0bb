use super::{install, runs_against_fake_and_real, scripts};

/// The release the script was written against.
const OPENAI: &[&str] = &["openai==3.52.0"];
/// The same. It brings a client of OpenAI's that it chose, and asks for `mcp` where there are tools, without requiring it.
const LITELLM: &[&str] = &["litellm==1.106.2", "openai==2.54.0", "mcp==2.3.0"];

#[test]
#[ignore = "needs python3 and a package registry; the height \"python\" of cargo xtask test"]
fn openais_client() {
    let python = install::python("openai-python", OPENAI);
    runs_against_fake_and_real(&python, &scripts().join("python/openai_client.py"));
}

#[test]
#[ignore = "needs python3 and a package registry; the height \"python\" of cargo xtask test"]
fn litellm() {
    let python = install::python("litellm", LITELLM);
    runs_against_fake_and_real(&python, &scripts().join("python/litellm_client.py"));
}
