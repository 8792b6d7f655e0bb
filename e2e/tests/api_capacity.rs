//! What does not fit or cannot be read says so, harms nobody else, and is served once it can be.

use std::fs::{self, File};
use std::path::Path;

use anyhow::{Context, Result, ensure};
use e2e::herd::Herd;
use serde_json::{Value, json};

/// A KV pool of 8 GiB, on Sparks that have 3 GiB for engines: the model takes 1 KiB a token.
const TOO_MANY_TOKENS: u64 = 8 << 20;
const QUESTION: &str = "What is sparkherd?";
const SMALL: &str = "small";

#[tokio::test]
async fn what_cannot_be_served_says_why() -> Result<()> {
    let say = |line: &str| println!("{line}");
    let mut herd = Herd::start(2, &say).await?;
    herd.apply(SMALL, &json!({"model": herd.example(), "context": 256}))?;
    herd.until_serving(SMALL, 1).await?;
    let answer = herd.until_answer(SMALL, QUESTION).await?;
    let engines = herd.engine_pids()?;
    say("a deployment that fits nowhere");
    too_large_until_edited(&herd).await.context("too large")?;
    say("an edit that fits nowhere");
    too_large_by_an_edit(&herd, &answer).await.context("edited to be too large")?;
    say("weights that cannot be read");
    unreadable_until_repaired(&herd).await.context("unreadable")?;

    assert_eq!(herd.until_answer(SMALL, QUESTION).await?, answer);
    let engines_now = herd.engine_pids()?;
    ensure!(engines.iter().all(|pid| engines_now.contains(pid)), "the small one's engine was restarted");
    herd.lab.expect_operator()?;
    herd.sparks.iter_mut().try_for_each(e2e::lab::Spark::expect_agent)
}

async fn too_large_until_edited(herd: &Herd) -> Result<()> {
    herd.apply("large", &json!({"model": herd.example(), "kvCache": {"tokens": TOO_MANY_TOKENS}}))?;
    let message = herd.until_condition("large", ("Ready", "False", "InsufficientMemory")).await?;
    has_numbers(&message)?;
    herd.until_condition("large", ("Placed", "False", "InsufficientMemory")).await?;
    ensure!(herd.replicas("large").await?.is_empty(), "something was placed");
    herd.until_condition(SMALL, ("Ready", "True", "Serving")).await?;

    herd.edit("large", &json!({"kvCache": {"tokens": 2048}})).await?;
    herd.until_serving("large", 1).await?;
    herd.until_answer("large", QUESTION).await?;
    Ok(())
}

/// The old revision goes on as if nothing had happened, and editing back finds everything as it was.
async fn too_large_by_an_edit(herd: &Herd, answer: &str) -> Result<()> {
    let (engines, replicas) = (herd.engine_pids()?, herd.replicas(SMALL).await?.len());
    herd.edit(SMALL, &json!({"kvCache": {"tokens": TOO_MANY_TOKENS}})).await?;
    let message = herd.until_condition(SMALL, ("Ready", "True", "InsufficientMemory")).await?;
    has_numbers(&message)?;
    herd.until_condition(SMALL, ("Progressing", "False", "InsufficientMemory")).await?;
    assert_eq!(herd.until_answer(SMALL, QUESTION).await?, answer);

    herd.edit(SMALL, &json!({"kvCache": null})).await?;
    herd.until_serving(SMALL, 1).await?;
    assert_eq!(herd.engine_pids()?, engines, "an engine was restarted");
    assert_eq!(herd.replicas(SMALL).await?.len(), replicas);
    Ok(())
}

/// What it needs and what each Spark has.
fn has_numbers(message: &str) -> Result<()> {
    for word in ["needs 10.", " GiB", "kv 8.0", "spark-1", "spark-2", "has "] {
        ensure!(message.contains(word), "no {word:?} in {message}");
    }
    Ok(())
}

/// Four kinds of bad source at once, each with its own reason, each repaired where it lies.
async fn unreadable_until_repaired(herd: &Herd) -> Result<()> {
    let missing = herd.models.join("missing");
    let truncated = herd.copy_model("truncated")?;
    truncate(&truncated.join("model.safetensors"))?;
    let unknown = herd.copy_model("unknown")?;
    let config = unknown.join("config.json");
    let known_config = fs::read_to_string(&config)?;
    fs::write(&config, unknown_architecture(&known_config)?)?;

    let serve = |name: &str, path: &Path| {
        herd.apply(name, &json!({"model": format!("file://{}", path.display()), "context": 256}))
    };
    serve("outside", Path::new("/etc/ssl"))?;
    serve("missing", &missing)?;
    serve("truncated", &truncated)?;
    serve("unknown", &unknown)?;
    for (name, reason, named) in [
        ("outside", "Unresolvable", "allowed root"),
        ("missing", "Unresolvable", "missing"),
        ("truncated", "Unresolvable", "model.safetensors: tensors end at byte"),
        ("unknown", "UnsupportedModel", "HerdForCausalLM"),
    ] {
        let message = herd.until_condition(name, ("Ready", "False", reason)).await?;
        ensure!(message.contains(named), "{name}: no {named:?} in {message}");
    }
    herd.until_condition(SMALL, ("Ready", "True", "Serving")).await?;

    herd.edit("outside", &json!({"model": herd.example()})).await?;
    herd.copy_model("missing")?;
    herd.copy_model("truncated")?;
    fs::write(&config, known_config)?;
    for name in ["outside", "missing", "truncated", "unknown"] {
        herd.until_serving(name, 1).await?;
        herd.until_answer(name, QUESTION).await?;
    }
    Ok(())
}

fn truncate(weights: &Path) -> Result<()> {
    let file = File::options().write(true).open(weights)?;
    Ok(file.set_len(file.metadata()?.len() / 2)?)
}

fn unknown_architecture(config: &str) -> Result<String> {
    let mut config: Value = serde_json::from_str(config)?;
    config["architectures"] = json!(["HerdForCausalLM"]);
    config["model_type"] = json!("herd");
    Ok(config.to_string())
}
