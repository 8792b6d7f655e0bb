//! `cargo xtask demo`: from nothing to an answer, on this machine, with a real Kubernetes API.
//!
//! ```text
//! toolchain ─► cluster ─► chart and operator ─► two Sparks ─► kubectl apply ─► conditions ─► stream an answer
//! ```

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use e2e::client::{ChatClient, Endpoint, endpoints};
use e2e::cluster::Cluster;
use e2e::lab::{Lab, Spark, SparkOptions};
use e2e::toolchain::{Toolchain, repository};
use e2e::wait::{self, Seen};
use kube::Api;
use sparkherd_crds::{ModelDeployment, find_condition};

/// Where the example's model lies on a real Spark; here it lies in the checkout.
const MODELS_ON_A_SPARK: &str = "/var/lib/sparkherd/models";
const EXAMPLE: &str = "examples/ask-sparkherd.yaml";
const NAME: &str = "ask-sparkherd";
const NAMESPACE: &str = "default";
const QUESTION: &str = "What is sparkherd?";
/// Two Sparks, so that scaling can be tried.
const SPARKS: usize = 2;
/// What each fake Spark takes for its memory: enough for the example many times over.
const MEMORY_TOTAL: &str = "8Gi";
/// From apply to ready takes about two seconds; a machine that compiles beside it needs more.
const READY_DEADLINE: Duration = Duration::from_mins(3);
/// While nothing changes, say so this often.
const QUIET_MAX: Duration = Duration::from_secs(10);

/// A demo that is up: dropping it takes everything down again.
struct Demo {
    lab: Lab,
    _sparks: Vec<Spark>,
    endpoint: Endpoint,
}

pub fn run(once: bool, kubeconfig: Option<&Path>) -> Result<()> {
    let started = Instant::now();
    let progress = move |line: &str| println!("[{:>4.0} s] {line}", started.elapsed().as_secs_f64());
    let toolchain = Toolchain::prepare(&progress)?;
    tokio::runtime::Runtime::new()?.block_on(async {
        let cluster = match kubeconfig {
            Some(path) => Cluster::existing(toolchain, path)?,
            None => Cluster::start(toolchain, &progress).await?,
        };
        let demo = bring_up(cluster, &progress).await?;
        ask(&demo, &progress).await?;
        if once {
            return Ok(());
        }
        println!("{}", how_to_go_on(&demo)?);
        tokio::signal::ctrl_c().await?;
        progress("taking everything down");
        Ok(())
    })
}

async fn bring_up(cluster: Cluster, progress: e2e::Progress<'_>) -> Result<Demo> {
    let lab = Lab::start(cluster, progress).await?;
    let options = SparkOptions {
        memory_total: MEMORY_TOTAL.to_owned(),
        model_roots: vec![models()],
        fake_engines: None,
    };
    let mut sparks = Vec::new();
    for _ in 0..SPARKS {
        let spark = lab.add_spark(&options).await?;
        progress(&format!("agent of {} starts", spark.name));
        sparks.push(spark);
    }
    progress(&format!("kubectl apply -f {EXAMPLE}"));
    // The policies that guard the API take effect within seconds of the chart; until then an apply may be early.
    let manifest = fs::read_to_string(repository().join(EXAMPLE))?
        .replace(MODELS_ON_A_SPARK, &models().display().to_string());
    let applied = lab.cluster.kubectl().apply(&manifest)?;
    ensure!(applied.status.success(), "kubectl apply: {}", String::from_utf8_lossy(&applied.stderr));
    ready(&lab, &mut sparks, progress).await?;
    let client = lab.cluster.client().await?;
    let endpoint = wait::until("a ready endpoint", READY_DEADLINE, async || {
        let found = endpoints(&client, NAMESPACE, NAME).await?;
        Ok(found.into_iter().find(|endpoint| endpoint.ready).map_or(Seen::NotYet("none".into()), Seen::Done))
    });
    let endpoint = endpoint.await?;
    Ok(Demo { lab, _sparks: sparks, endpoint })
}

/// Waits for `Ready=True` and says each new thing the object says.
async fn ready(lab: &Lab, sparks: &mut [Spark], progress: e2e::Progress<'_>) -> Result<()> {
    let deployments: Api<ModelDeployment> = Api::namespaced(lab.cluster.client().await?, NAMESPACE);
    let (mut said, mut said_at) = (String::new(), Instant::now());
    wait::until("the model", READY_DEADLINE, async || {
        lab.expect_operator()?;
        for spark in &mut *sparks {
            spark.expect_agent()?;
        }
        let status = deployments.get(NAME).await?.status.unwrap_or_default();
        let Some(ready) = find_condition(&status.conditions, "Ready") else {
            return Ok(Seen::NotYet("no status yet".into()));
        };
        let state = format!("{}: {}", ready.reason, ready.message);
        if said != state || said_at.elapsed() > QUIET_MAX {
            progress(&state);
            (said, said_at) = (state.clone(), Instant::now());
        }
        let is_ready = ready.status == sparkherd_crds::ConditionStatus::True;
        Ok(if is_ready { Seen::Done(()) } else { Seen::NotYet(state) })
    })
    .await
}

async fn ask(demo: &Demo, progress: e2e::Progress<'_>) -> Result<()> {
    let Endpoint { address, node, .. } = &demo.endpoint;
    progress(&format!("asking {address} on {node}, from the Service's EndpointSlice, with the lab's key"));
    println!("\n> {QUESTION}");
    let client = ChatClient::new(*address, Some(&demo.lab.key))?;
    let answer = client.stream(NAME, QUESTION, |text| {
        print!("{text}");
        // A terminal that is gone is no reason to fail.
        let _ = std::io::stdout().flush();
    });
    let answer = answer.await?;
    println!("\n");
    ensure!(
        !answer.text.is_empty() && answer.finish_reason == "stop",
        "the answer did not end by itself: {answer:?}"
    );
    progress("answered");
    Ok(())
}

fn how_to_go_on(demo: &Demo) -> Result<String> {
    let cluster = &demo.lab.cluster;
    let kubectl = cluster.work.join("kubectl");
    let localkube = cluster.toolchain.localkube.display();
    std::os::unix::fs::symlink(&cluster.toolchain.localkube, &kubectl)
        .with_context(|| format!("failed to link kubectl to {localkube}"))?;
    let (work, kubeconfig) = (cluster.work.display(), cluster.kubeconfig.display());
    let (address, key) = (demo.endpoint.address, &demo.lab.key);
    Ok(format!(
        "URL  http://{address}/v1\nKEY  {key}\n\nIn another terminal:\n  export KUBECONFIG={kubeconfig} PATH={work}:$PATH\n\n\
         1. kubectl get smd,smr,smodel,spark\n\
         2. curl -s http://{address}/v1/chat/completions -H 'Authorization: Bearer {key}' -H 'Content-Type: application/json' \\\n     \
         -d '{{\"model\": \"{NAME}\", \"messages\": [{{\"role\": \"user\", \"content\": \"How much memory does a DGX Spark have?\"}}]}}'\n\
         3. kubectl scale smd/{NAME} --replicas=2\n\nCtrl-C takes everything down."
    ))
}

fn models() -> PathBuf {
    repository().join("examples/models")
}
