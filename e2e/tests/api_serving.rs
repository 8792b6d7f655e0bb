//! A deployment's whole life: applied, asked, looked at, scaled, deleted.

use std::fs;

use anyhow::{Context, Result, ensure};
use e2e::client::{ChatClient, Endpoint, endpoints};
use e2e::herd::{DEADLINE, Herd, NAMESPACE};
use e2e::kubectl::Kubectl;
use e2e::toolchain::repository;
use e2e::wait;
use k8s_openapi::api::core::v1::Service;
use kube::Api;
use serde_json::{Value, json};
use sparkherd_crds::{MemoryPool, SparkNode};

const NAME: &str = "ask-sparkherd";
const EXAMPLE: &str = "examples/ask-sparkherd.yaml";
/// Where the example's model lies on a real Spark; here it lies in the checkout.
const MODELS_ON_A_SPARK: &str = "/var/lib/sparkherd/models";

/// What `kubectl get smd,smr,smodel,spark` shows, its columns apart by ` | ` and what differs from run to run replaced.
const TABLES: &str = "\
NAME | MODEL | READY | REASON | NODES | MEMORY | AGE
modeldeployment.sparkherd.dev/ask-sparkherd | SOURCE | True | Serving | [\"spark-1\"] | BYTES | AGE

NAME | MODEL | READY | REASON | NODE | MEMORY | AGE
modelreplica.sparkherd.dev/ask-sparkherd-HASH | SOURCE | True | Serving | spark-1 | BYTES of BYTES | AGE

NAME | MODEL | READY | REASON | NODES | BYTES | AGE
model.sparkherd.dev/ask-sparkherd-HASH | SOURCE | Ready |  | spark-1 | BYTES | AGE

NAME | READY | REACHABLE | REASON | MEMORY | ENGINE | AGE
sparknode.sparkherd.dev/spark-1 | True | True | Serving | BYTES free of 4.0Gi | Cpu | AGE
sparknode.sparkherd.dev/spark-2 | True | True | Serving | BYTES free of 4.0Gi | Cpu | AGE
";

#[tokio::test]
async fn a_model_is_applied_asked_scaled_and_deleted() -> Result<()> {
    let say = |line: &str| println!("{line}");
    let herd = Herd::start(2, &say).await?;
    let before = pools(&herd).await?;
    say("kubectl apply");
    let endpoint = applied(&herd).await?;
    say("questions");
    answers_are_exact(&herd, &endpoint).await.context("answers")?;
    strangers_are_turned_away(&herd, &endpoint).await.context("strangers")?;
    say("kubectl get and explain");
    tables_are_as_documented(&herd.lab.cluster.kubectl()).await?;
    for path in ["spec", "spec.kvCache", "spec.placement", "spec.rollout", "spec.access", "spec.expose"] {
        fields_are_explained(&herd.lab.cluster.kubectl(), &format!("smd.{path}"))?;
    }
    say("scale");
    scaled_up_and_down(&herd).await.context("scale")?;
    say("delete");
    deleted(&herd, &before).await.context("delete")?;
    say("invalid specs");
    invalid_specs_are_refused(&herd)
}

async fn applied(herd: &Herd) -> Result<Endpoint> {
    let models = repository().join("examples/models");
    let manifest = fs::read_to_string(repository().join(EXAMPLE))?
        .replace(MODELS_ON_A_SPARK, &models.display().to_string());
    let applied = herd.lab.cluster.kubectl().apply(&manifest)?;
    ensure!(applied.status.success(), "{}", String::from_utf8_lossy(&applied.stderr));
    let mut endpoints = herd.until_serving(NAME, 1).await?;
    Ok(endpoints.remove(0))
}

async fn answers_are_exact(herd: &Herd, endpoint: &Endpoint) -> Result<()> {
    let client = ChatClient::new(endpoint.address, Some(&herd.lab.key))?;
    let lines = fs::read_to_string(repository().join("examples/models/ask-sparkherd/exact_answers.jsonl"))?;
    let mut asked = 0;
    for line in lines.lines() {
        let known: Value = serde_json::from_str(line)?;
        let question = known["question"].as_str().context("no question")?;
        let answer = client.stream(NAME, question, |_| ()).await?;
        assert_eq!(json!(answer.text), known["answer"], "{question}");
        assert_eq!(answer.finish_reason, "stop", "{question}");
        asked += 1;
    }
    assert_eq!(asked, 20);
    Ok(())
}

async fn strangers_are_turned_away(herd: &Herd, endpoint: &Endpoint) -> Result<()> {
    let ask = |model: &str| json!({"model": model, "messages": [{"role": "user", "content": "Hello?"}]});
    let key = herd.lab.key.as_str();
    let tried = [
        (None, NAME, 401, "invalid_api_key"),
        (Some("sk-not-the-key"), NAME, 401, "invalid_api_key"),
        (Some(key), "another-model", 404, "model_not_found"),
    ];
    for (key, model, status, code) in tried {
        let client = ChatClient::new(endpoint.address, key)?;
        let (got, body) = client.post("/v1/chat/completions", &ask(model)).await?;
        assert_eq!((got, body["error"]["code"].as_str()), (status, Some(code)), "{body}");
        ensure!(body["error"]["message"].is_string() && body["error"]["type"].is_string(), "{body}");
    }
    let client = ChatClient::new(endpoint.address, Some(key))?;
    let (status, body) = client.post("/v1/chat/completions", &ask(NAME)).await?;
    assert_eq!(status, 200, "{body}");
    Ok(())
}

/// Polls: a Spark's numbers follow an engine's start by a moment.
async fn tables_are_as_documented(kubectl: &Kubectl) -> Result<()> {
    wait::until_true("the tables", DEADLINE, async || {
        let tables = shape(&kubectl.run("get smd,smr,smodel,spark")?);
        Ok((tables == TABLES, tables))
    })
    .await
}

/// Columns of each table by the places of its headings, since a value may be empty or have spaces in it.
fn shape(tables: &str) -> String {
    let mut shaped = String::new();
    let mut starts = Vec::new();
    for line in tables.lines() {
        if line.starts_with("NAME ") {
            starts = (0..line.len())
                .filter(|at| !line[*at..].starts_with(' ') && (*at == 0 || line[..*at].ends_with("  ")))
                .collect();
        }
        let cells: Vec<String> = starts
            .iter()
            .enumerate()
            .filter(|_| !line.is_empty())
            .map(|(column, start)| {
                let end = starts.get(column + 1).copied().unwrap_or(line.len());
                let is_age = column + 1 == starts.len() && !line.starts_with("NAME ");
                if is_age { "AGE".to_owned() } else { shape_cell(line.get(*start..end).unwrap_or_default()) }
            })
            .collect();
        shaped.push_str(&cells.join(" | "));
        shaped.push('\n');
    }
    shaped
}

fn shape_cell(cell: &str) -> String {
    let words = cell.trim().split(' ').map(|word| {
        let number = word.trim_end_matches(['K', 'M', 'G', 'i']);
        if word.starts_with("file://") {
            "SOURCE".to_owned()
        } else if word != "4.0Gi" && number.parse::<f64>().is_ok() {
            "BYTES".to_owned()
        } else {
            without_hash(word)
        }
    });
    words.collect::<Vec<_>>().join(" ")
}

/// `ask-sparkherd-1f0c…` and `ask-sparkherd-1f0c…-2b9e…` lose what is not the name.
fn without_hash(word: &str) -> String {
    match word.split_once(&format!("/{NAME}-")) {
        Some((kind, _)) => format!("{kind}/{NAME}-HASH"),
        None => word.to_owned(),
    }
}

/// Every field has a description; every optional one says what it is without being set.
fn fields_are_explained(kubectl: &Kubectl, path: &str) -> Result<()> {
    let explained = kubectl.run(&format!("explain {path}"))?;
    let (_, fields) = explained.split_once("FIELDS:\n").context("no fields")?;
    // A field begins with two spaces, as does the list of its values; what is said of it begins with four.
    let mut seen: Vec<(&str, String)> = Vec::new();
    let is_said = |line: &&str| !line.trim().is_empty() && !line.starts_with("  enum: ");
    for line in fields.lines().filter(is_said) {
        match (line.strip_prefix("    "), seen.last_mut()) {
            (Some(text), Some((_, description))) => {
                description.push_str(text.trim());
                description.push(' ');
            }
            _ => seen.push((line.trim(), String::new())),
        }
    }
    ensure!(!seen.is_empty(), "no fields in {explained}");
    for (field, description) in seen {
        ensure!(!description.contains("<no description>"), "{path}: {field} is not explained");
        ensure!(description.len() > 10, "{path}: {field} is not explained: {description:?}");
        let is_required = field.ends_with("-required-");
        let is_object = field.contains("<Object>") && !field.contains("[]");
        ensure!(
            is_required || is_object || description.contains("Default:"),
            "{path}: {field} has no default: {description}"
        );
    }
    Ok(())
}

async fn scaled_up_and_down(herd: &Herd) -> Result<()> {
    let kubectl = herd.lab.cluster.kubectl();
    kubectl.run(&format!("scale smd/{NAME} --replicas=2"))?;
    let endpoints = herd.until_serving(NAME, 2).await?;
    let nodes: Vec<&str> = endpoints.iter().map(|endpoint| endpoint.node.as_str()).collect();
    assert_eq!(nodes, ["spark-1", "spark-2"]);
    for endpoint in &endpoints {
        let client = ChatClient::new(endpoint.address, Some(&herd.lab.key))?;
        ensure!(!client.stream(NAME, "What is sparkherd?", |_| ()).await?.text.is_empty(), "{endpoint:?}");
    }
    kubectl.run(&format!("scale smd/{NAME} --replicas=0"))?;
    herd.until_condition(NAME, ("Ready", "False", "ScaledToZero")).await?;
    herd.until_endpoints(NAME, 0).await?;
    until_no_engine(herd).await?;
    kubectl.run(&format!("scale smd/{NAME} --replicas=1"))?;
    herd.until_serving(NAME, 1).await?;
    Ok(())
}

async fn until_no_engine(herd: &Herd) -> Result<()> {
    wait::until_true("every engine to end", DEADLINE, async || {
        let (pids, replicas) = (herd.engine_pids()?, herd.replicas(NAME).await?.len());
        Ok((pids.is_empty() && replicas == 0, format!("engines {pids:?}, {replicas} replicas")))
    })
    .await
}

/// All that was made for it goes, and the memory is measured back.
async fn deleted(herd: &Herd, before: &[MemoryPool]) -> Result<()> {
    herd.lab.cluster.kubectl().run(&format!("delete smd/{NAME}"))?;
    until_no_engine(herd).await?;
    let services: Api<Service> = Api::namespaced(herd.client.clone(), NAMESPACE);
    wait::until_true("the Service and its slices to go", DEADLINE, async || {
        let slices = endpoints(&herd.client, NAMESPACE, NAME).await?;
        let service = services.get_opt(NAME).await?;
        Ok((slices.is_empty() && service.is_none(), format!("service {}, {slices:?}", service.is_some())))
    })
    .await?;
    wait::until_true("the memory", DEADLINE, async || {
        let now = pools(herd).await?;
        let is_back = now.iter().zip(before).all(|(now, before)| {
            // Allocatable is told in steps of 1 % of the pool.
            let grain_bytes = now.total_bytes / 100;
            now.promised_bytes == 0
                && now.held_bytes == 0
                && now.allocatable_bytes + grain_bytes >= before.allocatable_bytes
        });
        Ok((is_back, format!("{now:?}, before {before:?}")))
    })
    .await
}

/// The pool of each Spark.
async fn pools(herd: &Herd) -> Result<Vec<MemoryPool>> {
    let nodes: Api<SparkNode> = Api::all(herd.client.clone());
    let mut pools = Vec::new();
    for spark in &herd.sparks {
        let status = nodes.get(&spark.name).await?.status.unwrap_or_default();
        let memory = status.memory.context("no memory told")?;
        pools.push(memory.pools.first().context("no pool")?.clone());
    }
    Ok(pools)
}

/// Each with a sentence that names the field and what is allowed.
fn invalid_specs_are_refused(herd: &Herd) -> Result<()> {
    let model = herd.example();
    let long_name = "a".repeat(43);
    for (name, spec, sentence) in [
        ("2fast", json!({"model": model}), "metadata.name"),
        (long_name.as_str(), json!({"model": model}), "at most 42 lower-case letters"),
        (
            "a",
            json!({"model": "s3://bucket/model"}),
            "must be hf://org/name[@revision], file:///path or https://",
        ),
        (
            "a",
            json!({"model": model, "replicas": 65}),
            "spec.replicas in body should be less than or equal to 64",
        ),
        (
            "a",
            json!({"model": model, "replicas": 2, "rollout": {"minAvailable": 3}}),
            "rollout.minAvailable must be at most replicas",
        ),
        (
            "a",
            json!({"model": model, "context": 512, "kvCache": {"tokens": 256}}),
            "kvCache.tokens must be at least context",
        ),
        ("a", json!({"model": model, "memory": "12 GB"}), "spec.memory in body should match"),
        ("a", json!({"replicas": 1}), "spec.model: Required value"),
        ("a", json!({"model": model, "contxt": 512}), "contxt"),
    ] {
        let complaint = herd.refused(name, &spec)?;
        ensure!(complaint.contains(sentence), "{spec}: no {sentence:?} in {complaint}");
    }
    Ok(())
}
