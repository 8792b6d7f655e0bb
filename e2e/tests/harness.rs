//! The harness itself: a cluster comes up, tells identities apart, and leaves nothing behind.

use std::net::{IpAddr, TcpListener};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Result, ensure};
use e2e::cluster::Cluster;
use e2e::process::{Process, Program};
use e2e::toolchain::Toolchain;
use e2e::{kubeconfig, node, wait};
use k8s_openapi::api::authentication::v1::SelfSubjectReview;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, ServiceAccount};
use kube::api::{Api, DeleteParams, ObjectMeta, PostParams};
use serde_json::json;

const DEADLINE: Duration = Duration::from_mins(2);

#[tokio::test]
async fn a_cluster_serves_and_leaves_nothing_behind() -> Result<()> {
    let say = |line: &str| println!("{line}");
    let cluster = Cluster::start(Toolchain::prepare_kubernetes(&say)?, &say).await?;
    objects_live_and_die(&cluster).await?;
    a_token_names_its_node(&cluster).await?;
    let (mut sleeper, spark) = a_process_lives_in_its_own_network(&cluster)?;

    let (work, address) = (cluster.work.clone(), cluster.network.api_address());
    let is_isolated = cluster.network.is_isolated();
    drop(cluster);
    assert!(!work.exists(), "{} is left", work.display());
    assert!(sleeper.ended()?.is_some(), "process {} is left", sleeper.pid());
    if is_isolated {
        let namespace = spark.expect("an isolated Spark has a namespace");
        assert!(!Path::new("/run/netns").join(namespace).exists());
        assert!(TcpListener::bind((address, 0)).is_err(), "the bridge's address is left");
    }
    Ok(())
}

/// CRUD, and the controllers: a namespace goes only if the controller manager empties it.
async fn objects_live_and_die(cluster: &Cluster) -> Result<()> {
    let client = cluster.client().await?;
    let namespaces: Api<Namespace> = Api::all(client.clone());
    namespaces.create(&PostParams::default(), &named("lab")).await?;
    let maps: Api<ConfigMap> = Api::namespaced(client, "lab");
    maps.create(&PostParams::default(), &named("notes")).await?;
    let listed = cluster.kubectl().run("get configmap notes --namespace=lab --output=name")?;
    assert_eq!(listed, "configmap/notes\n");
    let complaint = cluster.kubectl().refused("get configmap other --namespace=lab")?;
    assert!(complaint.contains("\"other\" not found"), "{complaint}");
    namespaces.delete("lab", &DeleteParams::default()).await?;
    wait::until_true("the namespace to go", DEADLINE, async || {
        let left = namespaces.get_opt("lab").await?;
        Ok((left.is_none(), format!("{:?}", left.and_then(|namespace| namespace.status))))
    })
    .await
}

/// A node-bound token carries the node's name in what admission sees of its user.
async fn a_token_names_its_node(cluster: &Cluster) -> Result<()> {
    let client = cluster.client().await?;
    let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), "default");
    accounts.create(&PostParams::default(), &named("agent")).await?;
    let spark = node::create(&client, "spark-1").await?;
    let token = node::token(&client, "default", "agent", Some(&spark)).await?;
    let file = cluster.work.join("agent.kubeconfig");
    kubeconfig::write_for(&file, &cluster.kubeconfig, &token)?;
    let agent = kubeconfig::client(&file).await?;
    let review = Api::<SelfSubjectReview>::all(agent)
        .create(&PostParams::default(), &SelfSubjectReview::default())
        .await?;
    let user = review.status.and_then(|status| status.user_info).unwrap_or_default();
    assert_eq!(user.username.as_deref(), Some("system:serviceaccount:default:agent"));
    let node_names = user.extra.unwrap_or_default().remove("authentication.kubernetes.io/node-name");
    assert_eq!(json!(node_names), json!(["spark-1"]));
    Ok(())
}

/// It reaches the API server's address and has one of its own that the host reaches.
fn a_process_lives_in_its_own_network(cluster: &Cluster) -> Result<(Process, Option<String>)> {
    let spark = cluster.network.add_spark(&cluster.teardown, 1)?;
    if let Some(namespace) = &spark.namespace {
        let listed = Command::new("ip").args(["-n", namespace, "-brief", "address"]).output()?;
        let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
        let IpAddr::V4(address) = spark.address else { unreachable!("test networks are IPv4") };
        ensure!(listed.contains(&address.to_string()), "no {address} in {listed}");
    }
    let sleeper = Program::new("sleeper", "sleep").arg("600").in_namespace(spark.namespace.as_deref());
    let process = cluster.spawn(&sleeper)?;
    Ok((process, spark.namespace))
}

fn named<T: Default + kube::Resource>(name: &str) -> T {
    let mut object = T::default();
    *object.meta_mut() = ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() };
    object
}
