//! The agent's core from end to end: real children (a shell script speaking the protocol), real memory, in-memory source.

#![expect(clippy::unwrap_used, reason = "a helper that fails is a failed test")]

mod gpu;
mod lab;

use lab::{Lab, by_name, eventually, holds, is_running, number_in, reason};
use sparkherd_crds::CopyState;

pub const MIB: u64 = 1 << 20;

/// Loads, serves, notes commands in $commands, ends when asked to drain or stop.
pub const GOOD: &str = r#"
loading 50 100
ready
while sleep 1; do stats; done &
while read -r line; do
    case "$line" in *drain*|*stop*) say '{"event":"draining"}'; exit 0 ;; esac
    printf '%s\n' "$line" >> "${commands:-/dev/null}"
done
"#;

#[tokio::test(flavor = "multi_thread")]
async fn serves_tells_access_drains_and_measures_the_memory_back() {
    let mut lab = Lab::new();
    let commands = lab.root.path().join("commands");
    let source = lab.weights("coder", "d1", &format!("commands={}\n{GOOD}", commands.display()));
    let model = lab.model("coder", &source);
    let key = lab.replica("coder", 100 * MIB);
    lab.apply();
    let status = lab.until_ready(&key).await;
    for type_ in ["Admitted", "WeightsReady", "Loaded", "Ready"] {
        assert!(holds(&status, type_), "{type_}: {status:#?}");
    }
    assert!(status.endpoint_port.is_some_and(|port| port >= 20100));
    assert_eq!((status.incarnation.as_deref(), status.attempt), (Some("stand-in"), 1));
    assert!((status.performance.unwrap().tokens_per_second - 9.5).abs() < 1e-9);
    let resolved = lab.until("resolved", |observed| observed.models.get(&model)?.resolved.clone()).await;
    assert_eq!((resolved.digest.as_str(), resolved.bytes), ("d1", 2));
    let node = lab.until("node", |observed| observed.node.clone()).await;
    let pool = &node.memory.unwrap().pools[0];
    assert_eq!(
        (pool.total_bytes, pool.reserve_bytes, pool.promised_bytes),
        (4096 * MIB, 1024 * MIB, 100 * MIB)
    );
    assert_eq!((lab.health.targets().len(), lab.health.is_alive()), (1, true));
    assert!(lab.metrics.text().unwrap().contains("sparkherd_agent_engines_ready 1"));

    lab.edit(&key, |replica| replica.spec.served_names.push("alias".to_owned()));
    eventually("the engine is told", || {
        std::fs::read_to_string(&commands)
            .is_ok_and(|told| told.contains("\"served_names\":[\"coder\",\"alias\"]"))
    })
    .await;
    lab.stop(&key);
    let status = lab.until_replica(&key, "Released", |status| holds(status, "Released")).await;
    assert_eq!(
        (reason(&status, "Released").as_str(), status.endpoint_port, status.failures),
        ("Draining", None, 0)
    );
    assert_eq!(status.last_exit.unwrap().status, "code 0");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_is_told_and_delays_nobody() {
    let mut lab = Lab::new();
    let failing =
        "say '{\"event\":\"failed\",\"reason\":\"UnsupportedModel\",\"message\":\"rope type x\"}'\nexit 3\n";
    for (name, script) in [("bad", failing), ("good", GOOD)] {
        let source = lab.weights(name, "d1", script);
        lab.model(name, &source);
    }
    let (bad, good) = (lab.replica("bad", 100 * MIB), lab.replica("good", 100 * MIB));
    lab.apply();
    lab.until_ready(&good).await;
    let status = lab.until_replica(&bad, "a failure", |status| status.failures == 1).await;
    let exit = status.last_exit.unwrap();
    assert_eq!((exit.status.as_str(), exit.reason.as_str()), ("code 3", "UnsupportedModel: rope type x"));
    assert!(status.failed_since.is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_fit_is_refused_in_numbers_and_starts_when_it_does() {
    let mut lab = Lab::new();
    for name in ["big", "small"] {
        let source = lab.weights(name, "d1", GOOD);
        lab.model(name, &source);
    }
    let small = lab.replica("small", 100 * MIB);
    lab.apply();
    lab.until_ready(&small).await;
    let big = lab.replica("big", 3000 * MIB);
    lab.apply();
    let status = lab.until_replica(&big, "refusal", |status| status.refusal.is_some()).await;
    assert_eq!(reason(&status, "Admitted"), "Refused");
    let message = status.refusal.unwrap().message;
    assert!(message.starts_with("needs 2.9 GiB, 2.9 GiB are free here: "), "{message}");
    lab.stop(&small);
    lab.until_ready(&big).await;
    lab.until("small is released", |observed| {
        holds(by_name(observed).get("small")?, "Released").then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_outside_the_roots_is_unresolvable_and_delays_nobody() {
    let mut lab = Lab::new();
    let outside = lab.model("outside", "file:///etc");
    let hub = lab.model("hub", "hf://org/name");
    let source = lab.weights("fine", "d1", GOOD);
    let fine = lab.model("fine", &source);
    lab.apply();
    lab.until_copy(&fine, "Ready", |copy| copy.state == CopyState::Ready).await;
    let status = lab.until_copy(&outside, "Failed", |copy| copy.state == CopyState::Failed).await;
    let verdict = status.nodes[0].resolve.clone().unwrap();
    assert_eq!(verdict.reason, "Unresolvable");
    let root = lab.root.path().join("models");
    assert!(verdict.message.contains(&format!("allowed: {}", root.display())), "{}", verdict.message);
    let status = lab.until_copy(&hub, "Failed", |copy| copy.state == CopyState::Failed).await;
    assert!(status.nodes[0].message.contains("this version serves file:/// sources only"));
}

#[tokio::test(flavor = "multi_thread")]
async fn files_that_change_are_verified_again() {
    let mut lab = Lab::new();
    let source = lab.weights("coder", "d1", GOOD);
    let model = lab.model("coder", &source);
    lab.apply();
    let status = lab.until_copy(&model, "Ready", |copy| copy.state == CopyState::Ready).await;
    let mut object = (*lab.desired.models[&model]).clone();
    object.status = Some(status);
    lab.desired.models.insert(model.clone(), object.into());
    lab.apply();
    lab.weights("coder", "d2", GOOD);
    let status = lab.until_copy(&model, "mismatch", |copy| copy.state == CopyState::Failed).await;
    assert!(status.nodes[0].message.starts_with("ChecksumMismatch"), "{status:?}");
    assert_eq!(status.resolved.unwrap().digest, "d1", "written once");
    lab.weights("coder", "d1", GOOD);
    lab.until_copy(&model, "Ready again", |copy| copy.state == CopyState::Ready).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn headers_that_become_readable_are_resolved_without_a_restart() {
    let mut lab = Lab::new();
    let source = lab.weights("coder", "d1", GOOD);
    let answer = lab.root.path().join("models/coder/answer.json");
    std::fs::write(&answer, r#"{"error":{"reason":"UnsupportedModel","message":"rope type x"}}"#).unwrap();
    let model = lab.model("coder", &source);
    lab.apply();
    let status = lab.until_copy(&model, "refused", |copy| copy.state == CopyState::Failed).await;
    assert_eq!(status.nodes[0].resolve.as_ref().unwrap().reason, "UnsupportedModel");
    std::fs::write(&answer, "no answer").unwrap();
    lab.until_copy(&model, "broken reader", |copy| copy.message.contains("without an answer")).await;
    lab.weights("coder", "d1", GOOD);
    lab.until_copy(&model, "Ready", |copy| copy.state == CopyState::Ready).await;
}

/// Starts a grandchild, notes both process ids, and ignores everything.
fn stubborn(lab: &Lab) -> (std::path::PathBuf, std::path::PathBuf, String) {
    let (child, grandchild) = (lab.root.path().join("child"), lab.root.path().join("grandchild"));
    let script = format!(
        "sleep 600 &\necho $! > {}\necho $$ > {}\nready\ntrap '' TERM\nwhile :; do sleep 1; stats; done\n",
        grandchild.display(),
        child.display()
    );
    (child, grandchild, script)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_without_a_replica_is_killed_with_all_it_started() {
    let mut lab = Lab::new();
    let (child, grandchild, script) = stubborn(&lab);
    let source = lab.weights("coder", "d1", &script);
    lab.model("coder", &source);
    let key = lab.replica("coder", 100 * MIB);
    lab.apply();
    lab.until_ready(&key).await;
    let pids = [number_in(&child).unwrap(), number_in(&grandchild).unwrap()];
    assert!(pids.into_iter().all(is_running));
    lab.desired.replicas.remove(&key);
    lab.apply();
    eventually("child and grandchild are gone", || !pids.into_iter().any(is_running)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_engine_outlives_an_agent_that_is_dropped() {
    let mut lab = Lab::new();
    let (child, grandchild, script) = stubborn(&lab);
    let source = lab.weights("coder", "d1", &script);
    lab.model("coder", &source);
    let key = lab.replica("coder", 100 * MIB);
    lab.apply();
    lab.until_ready(&key).await;
    let pids = [number_in(&child).unwrap(), number_in(&grandchild).unwrap()];
    lab.agent.take().unwrap().abort();
    eventually("child and grandchild are gone", || !pids.into_iter().any(is_running)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_ends_drains_its_engines_and_says_so() {
    let mut lab = Lab::new();
    let source = lab.weights("coder", "d1", GOOD);
    lab.model("coder", &source);
    let key = lab.replica("coder", 100 * MIB);
    lab.apply();
    lab.until_ready(&key).await;
    lab.end();
    lab.agent.take().unwrap().await.unwrap();
    let observed = lab.link.observed.borrow().clone();
    let status = &observed.replicas[&key];
    assert!(!holds(status, "Ready") && !holds(status, "Released"), "{status:#?}");
    assert!(!observed.node.as_ref().unwrap().conditions.iter().any(|condition| {
        condition.type_ == "Ready" && condition.status == sparkherd_crds::ConditionStatus::True
    }));
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_starts_while_the_api_is_away_but_what_served_comes_back() {
    let mut lab = Lab::new();
    let child = lab.root.path().join("child");
    let source = lab.weights("old", "d1", &format!("echo $$ > {}\n{GOOD}", child.display()));
    lab.model("old", &source);
    let old = lab.replica("old", 100 * MIB);
    lab.apply();
    lab.until_ready(&old).await;
    let first = number_in(&child).unwrap();
    let source = lab.weights("new", "d1", GOOD);
    lab.model("new", &source);
    let new = lab.replica("new", 100 * MIB);
    lab.desired.connected = false;
    lab.apply();
    lab.until_replica(&new, "weights", |status| holds(status, "WeightsReady")).await;
    let pid = rustix::process::Pid::from_raw(i32::try_from(first).unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    let status =
        lab.until_replica(&old, "restart", |status| status.restarts == 1 && holds(status, "Ready")).await;
    assert_eq!((status.failures, status.last_exit.unwrap().status.as_str()), (1, "signal 9"));
    assert!(!holds(&lab.link.observed.borrow().replicas[&new], "Admitted"));
    lab.desired.connected = true;
    lab.apply();
    lab.until_ready(&new).await;
}
