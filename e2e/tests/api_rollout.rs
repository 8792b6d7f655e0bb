//! Edits of a deployment that serves: a good one replaces the engine, a bad one gives the old engine back.

use anyhow::{Context, Result, ensure};
use e2e::herd::Herd;
use e2e::wait;
use serde_json::json;
use sparkherd_crds::RunState;

const NAME: &str = "coder";
const QUESTION: &str = "What is sparkherd?";

#[tokio::test]
async fn an_edit_replaces_or_returns() -> Result<()> {
    let say = |line: &str| println!("{line}");
    let herd = Herd::start(1, &say).await?;
    herd.apply(NAME, &json!({"model": herd.example(), "context": 256}))?;
    herd.until_serving(NAME, 1).await?;
    say("an edit whose engine fails at load");
    a_failing_edit_returns(&herd).await.context("failing edit")?;
    say("an edit that works");
    a_good_edit_replaces(&herd).await.context("good edit")
}

/// The new engine says in the pipe protocol why it cannot load. Its deadline passes while it is tried again, and the old
/// revision serves from the same object as before.
async fn a_failing_edit_returns(herd: &Herd) -> Result<()> {
    let answer = herd.until_answer(NAME, QUESTION).await?;
    let old = single_serving(herd).await?;
    herd.fake(&format!("{NAME}.context-512"), "fail-load \"tensor data is spoiled\"")?;
    herd.edit(NAME, &json!({"context": 512, "rollout": {"progressDeadlineSeconds": 5}})).await?;

    let message = herd.until_condition(NAME, ("Ready", "True", "RolledBack")).await?;
    ensure!(message.contains("tensor data is spoiled"), "the cause is not told: {message}");
    ensure!(message.contains("context 256"), "what serves is not told: {message}");
    herd.until_condition(NAME, ("Progressing", "False", "RolledBack")).await?;
    herd.until_condition(NAME, ("Degraded", "True", "RolledBack")).await?;
    herd.until_endpoints(NAME, 1).await?;
    assert_eq!(herd.until_answer(NAME, QUESTION).await?, answer);
    assert_eq!(single_serving(herd).await?, old, "another object than before serves");
    Ok(())
}

/// Another number of sequences needs another engine; the old one's record goes when the new one serves.
async fn a_good_edit_replaces(herd: &Herd) -> Result<()> {
    let old = single_serving(herd).await?;
    herd.edit(NAME, &json!({"context": 256, "concurrency": 4, "rollout": null})).await?;
    herd.until_serving(NAME, 1).await?;
    wait::until_true("the old replica to go", e2e::herd::DEADLINE, async || {
        let replicas = herd.replicas(NAME).await?;
        let names: Vec<_> = replicas.iter().filter_map(|replica| replica.metadata.name.clone()).collect();
        let is_new = |replica: &sparkherd_crds::ModelReplica| replica.spec.serving.concurrency == 4;
        Ok((replicas.len() == 1 && replicas.iter().all(is_new), format!("{names:?}")))
    })
    .await?;
    ensure!(single_serving(herd).await? != old, "the old object serves still");
    herd.until_condition(NAME, ("Degraded", "False", "Serving")).await?;
    herd.until_answer(NAME, QUESTION).await?;
    Ok(())
}

/// Name of the one replica that is to serve.
async fn single_serving(herd: &Herd) -> Result<String> {
    let replicas = herd.replicas(NAME).await?;
    let mut names = replicas.into_iter().filter(|replica| replica.spec.run == RunState::Serve);
    let name = names.next().and_then(|replica| replica.metadata.name).context("no replica serves")?;
    ensure!(names.next().is_none(), "more than one replica is to serve");
    Ok(name)
}
