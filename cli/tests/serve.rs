//! `sparkherd serve`: the same YAML, the real engine, one port, no Kubernetes.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail the test")]

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use e2e::client::ChatClient;
use e2e::wait::{self, Seen};

/// Far beyond what anything here takes on a busy machine.
const DEADLINE: Duration = Duration::from_mins(2);
/// A port range of its own, so that a demo on the same machine does not meet it.
const ENGINE_PORTS: &str = "18300-18363";

struct Serve {
    child: Child,
    address: SocketAddr,
    log: Receiver<String>,
}

impl Serve {
    /// Starts it and reads from its log where it answers.
    fn start(yaml: &Path, store: &Path) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_sparkherd"))
            .arg("serve")
            .arg(yaml)
            .args(["--listen", "127.0.0.1:0", "--memory-total", "4Gi", "--engine-ports", ENGINE_PORTS])
            .args(["--cpu-path", "portable"])
            .arg("--store")
            .arg(store)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let url = lines.by_ref().map_while(Result::ok).find(|line| line.contains("url=")).unwrap();
        let address = url.split("http://").nth(1).unwrap().split('/').next().unwrap().parse().unwrap();
        // The log is read to its end, or the process would block on a full pipe.
        let (sender, log) = channel();
        std::thread::spawn(move || lines.map_while(Result::ok).for_each(|line| drop(sender.send(line))));
        Self { child, address, log }
    }

    fn terminate(mut self) -> bool {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        self.child.wait().unwrap().success()
    }
}

fn deployment(name: &str) -> String {
    let model = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../examples/models/ask-sparkherd")
        .canonicalize()
        .unwrap();
    format!(
        "---\napiVersion: sparkherd.dev/v1alpha1\nkind: ModelDeployment\nmetadata: {{name: {name}}}\nspec: {{model: \"file://{}\"}}\n",
        model.display()
    )
}

async fn answers(client: &ChatClient, name: &str) -> String {
    let answer = wait::until(name, DEADLINE, async || {
        Ok(Seen::Done(client.stream(name, "What is sparkherd?", |_| ()).await?))
    });
    answer.await.unwrap().text
}

#[tokio::test(flavor = "multi_thread")]
async fn two_deployments_answer_on_one_port_and_end_with_it() {
    let directory = tempfile::tempdir().unwrap();
    let yaml: PathBuf = directory.path().join("models.yaml");
    std::fs::write(&yaml, deployment("first")).unwrap();
    let serve = Serve::start(&yaml, &directory.path().join("store"));
    let client = ChatClient::new(serve.address, None).unwrap();
    let first = answers(&client, "first").await;
    assert!(first.starts_with("sparkherd runs language models"), "{first}");
    let told = serve.log.try_iter().find(|line| line.contains("instructions"));
    assert!(told.as_ref().is_some_and(|line| line.contains("portable")), "the engine was not told: {told:?}");

    let unknown = client
        .post("/v1/chat/completions", &serde_json::json!({"model": "second", "messages": []}))
        .await
        .unwrap();
    assert_eq!((unknown.0, unknown.1["error"]["code"].as_str()), (404, Some("model_not_found")));

    // The file is watched: a second document is a second model, and the first goes on.
    std::fs::write(&yaml, deployment("first") + &deployment("second")).unwrap();
    assert_eq!(answers(&client, "second").await, first);
    assert_eq!(answers(&client, "first").await, first);

    // A file that is wrong changes nothing; one without the first ends it.
    std::fs::write(&yaml, "spec: [").unwrap();
    assert_eq!(answers(&client, "second").await, first);
    std::fs::write(&yaml, deployment("second")).unwrap();
    wait::until_true("the first to go", DEADLINE, async || {
        let (status, _) = client
            .post("/v1/chat/completions", &serde_json::json!({"model": "first", "messages": []}))
            .await?;
        Ok((status == 404, format!("status {status}")))
    })
    .await
    .unwrap();
    assert!(serve.terminate());
}

#[test]
fn instructions_that_are_not_there_are_named() {
    let output = Command::new(env!("CARGO_BIN_EXE_sparkherd"))
        .args(["serve", "models.yaml", "--cpu-path", "abacus"])
        .output()
        .unwrap();
    assert!(!output.status.success());
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        stderr.contains("this processor has no abacus, only ") && stderr.contains("portable"),
        "{stderr}"
    );
}

#[test]
fn an_address_others_can_reach_needs_a_key() {
    let directory = tempfile::tempdir().unwrap();
    let yaml = directory.path().join("models.yaml");
    std::fs::write(&yaml, deployment("first")).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_sparkherd"))
        .arg("serve")
        .arg(&yaml)
        .args(["--listen", "0.0.0.0:0"])
        .output()
        .unwrap();
    assert!(!output.status.success());
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(stderr.contains("--key-hash"), "{stderr}");
}
