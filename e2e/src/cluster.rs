//! A Kubernetes control plane of its own: etcd, kube-apiserver and kube-controller-manager as processes. There is
//! no kubelet: what a Pod would run, the test runs as a process with the Pod's identity.

use std::fs::{self, File};
use std::io::Read;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::Progress;
use crate::kubeconfig::{self, Server};
use crate::kubectl::Kubectl;
use crate::network::{Network, free_port};
use crate::process::{Process, Program};
use crate::teardown::{PREFIX, Teardown};
use crate::toolchain::Toolchain;
use crate::wait::{self, Seen};

/// It takes about three seconds; a machine that compiles at the same time gets much longer.
const READY_DEADLINE: Duration = Duration::from_mins(3);
/// Logs of earlier runs that are kept, for whoever asks why a test failed.
const LOG_FOLDERS_KEPT: usize = 8;

/// Every request with its user, verb, object and answer, but no bodies: tests read from it who was denied what.
const AUDIT_POLICY: &str = r#"{"apiVersion": "audit.k8s.io/v1", "kind": "Policy", "omitStages": ["RequestReceived"],
 "rules": [{"level": "Metadata"}]}"#;

/// A control plane, with a place for the processes of a run. Dropping it ends those and removes what was made.
#[derive(Debug)]
pub struct Cluster {
    // First, so that the processes are dead when they are dropped.
    pub teardown: Teardown,
    pub network: Network,
    /// Kubeconfig of an administrator.
    pub kubeconfig: PathBuf,
    /// Folder for what the run writes; removed with the cluster.
    pub work: PathBuf,
    /// One file per process; left in the target directory after the run.
    pub logs: PathBuf,
    pub toolchain: Toolchain,
    processes: Vec<Process>,
}

impl Cluster {
    pub async fn start(toolchain: Toolchain, progress: Progress<'_>) -> Result<Self> {
        let teardown = Teardown::start()?;
        let (work, logs) = folders(&toolchain.target, &teardown)?;
        let network = Network::start(&teardown, progress)?;
        let url = SocketAddr::new(network.api_address(), free_port(network.api_address())?);
        let server = Server {
            url: format!("https://{url}"),
            certificate_authority: work.join("certificates/apiserver.crt"),
        };
        let kubeconfig = work.join("admin.kubeconfig");
        let mut cluster =
            Self { teardown, network, kubeconfig, work, logs, toolchain, processes: Vec::new() };
        cluster.start_control_plane(url, &server).await?;
        progress(&format!("Kubernetes answers at {}", server.url));
        Ok(cluster)
    }

    /// A cluster that is there already. Our processes run on this machine's own address, which its nodes need to
    /// reach only if they are to use the models.
    pub fn existing(toolchain: Toolchain, kubeconfig: &Path) -> Result<Self> {
        let teardown = Teardown::start()?;
        let (work, logs) = folders(&toolchain.target, &teardown)?;
        let (network, kubeconfig) = (Network::shared()?, kubeconfig.to_owned());
        Ok(Self { teardown, network, kubeconfig, work, logs, toolchain, processes: Vec::new() })
    }

    /// An administrator's client.
    pub async fn client(&self) -> Result<kube::Client> {
        kubeconfig::client(&self.kubeconfig).await
    }

    /// kubectl as the administrator.
    pub fn kubectl(&self) -> Kubectl {
        Kubectl::new(&self.toolchain.localkube, &self.kubeconfig, &self.work)
    }

    /// The audit log: one JSON object a line.
    pub fn audit_log(&self) -> PathBuf {
        self.work.join("audit.log")
    }

    /// Starts a program that lives as long as the cluster, if it is not ended before.
    pub fn spawn(&self, program: &Program) -> Result<Process> {
        program.start(&self.logs, &self.teardown)
    }

    async fn start_control_plane(&mut self, url: SocketAddr, server: &Server) -> Result<()> {
        self.write_secrets(server)?;
        let etcd_url = self.start_etcd()?;
        self.start_apiserver(url, &etcd_url)?;
        wait::until("the API server", READY_DEADLINE, async || self.look_ready(server).await).await?;
        let controllers = self
            .kubernetes_program("kube-controller-manager")
            .arg(flag("kubeconfig", &self.kubeconfig))
            .arg(flag("root-ca-file", &server.certificate_authority))
            .arg(flag("service-account-private-key-file", self.work.join("service-account.key")))
            .args(["--use-service-account-credentials=true", "--leader-elect=false", "--secure-port=0"]);
        let process = self.spawn(&controllers)?;
        self.processes.push(process);
        Ok(())
    }

    /// The administrator's token, the key that signs the tokens of service accounts, and the audit policy.
    fn write_secrets(&self, server: &Server) -> Result<()> {
        let token = random_token()?;
        fs::write(self.work.join("tokens.csv"), format!("{token},admin,admin,\"system:masters\"\n"))?;
        kubeconfig::write(&self.kubeconfig, server, "admin", &token)?;
        let made = Command::new(&self.toolchain.localkube).arg("service-account-key").output()?;
        ensure!(made.status.success(), "localkube: {}", String::from_utf8_lossy(&made.stderr));
        fs::write(self.work.join("service-account.key"), made.stdout)?;
        fs::write(self.work.join("audit-policy.json"), AUDIT_POLICY)?;
        Ok(())
    }

    fn start_etcd(&mut self) -> Result<String> {
        let loopback = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let client_url = format!("http://{}", SocketAddr::new(loopback, free_port(loopback)?));
        let peer_url = format!("http://{}", SocketAddr::new(loopback, free_port(loopback)?));
        let etcd = self
            .kubernetes_program("etcd")
            .arg(flag("data-dir", self.work.join("etcd")))
            .arg(format!("--listen-client-urls={client_url}"))
            .arg(format!("--advertise-client-urls={client_url}"))
            .arg(format!("--listen-peer-urls={peer_url}"))
            .arg(format!("--initial-advertise-peer-urls={peer_url}"))
            .arg(format!("--initial-cluster=default={peer_url}"))
            // The data dies with the run: nothing is gained by waiting for the disk.
            .args(["--unsafe-no-fsync", "--log-level=warn"]);
        let process = self.spawn(&etcd)?;
        self.processes.push(process);
        Ok(client_url)
    }

    fn start_apiserver(&mut self, url: SocketAddr, etcd_url: &str) -> Result<()> {
        let signing_key = self.work.join("service-account.key");
        let apiserver = self
            .kubernetes_program("kube-apiserver")
            .arg(format!("--etcd-servers={etcd_url}"))
            .arg(format!("--bind-address={}", url.ip()))
            .arg(format!("--advertise-address={}", url.ip()))
            .arg(format!("--secure-port={}", url.port()))
            // It makes a certificate for its own address, signed by an authority of its own, in one file.
            .arg(flag("cert-dir", self.work.join("certificates")))
            .arg(flag("token-auth-file", self.work.join("tokens.csv")))
            .arg(flag("service-account-key-file", &signing_key))
            .arg(flag("service-account-signing-key-file", &signing_key))
            .arg("--service-account-issuer=https://kubernetes.default.svc")
            .arg("--service-cluster-ip-range=10.96.0.0/16")
            .arg("--authorization-mode=Node,RBAC")
            .arg("--allow-privileged=true")
            .arg(flag("audit-policy-file", self.work.join("audit-policy.json")))
            .arg(flag("audit-log-path", self.audit_log()));
        let process = self.spawn(&apiserver)?;
        self.processes.push(process);
        Ok(())
    }

    fn kubernetes_program(&self, name: &str) -> Program {
        Program::new(name, &self.toolchain.localkube).arg(name)
    }

    async fn look_ready(&mut self, server: &Server) -> Result<Seen<()>> {
        for process in &mut self.processes {
            if let Err(ended) = process.expect_running() {
                return Ok(Seen::Never(ended.to_string()));
            }
        }
        if !server.certificate_authority.is_file() {
            return Ok(Seen::NotYet("no certificate yet".into()));
        }
        let readyz = kube::api::Request::new("").get("readyz", &kube::api::GetParams::default())?;
        let answer = self.client().await?.request_text(readyz).await?;
        Ok(if answer == "ok" { Seen::Done(()) } else { Seen::NotYet(answer) })
    }
}

fn flag(name: &str, path: impl AsRef<Path>) -> String {
    format!("--{name}={}", path.as_ref().display())
}

/// 128 bits: whoever shares the machine must not guess it.
fn random_token() -> Result<String> {
    let mut bytes = [0_u8; 16];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(format!("{:032x}", u128::from_ne_bytes(bytes)))
}

/// One for what dies with the run, one for its logs.
fn folders(target: &Path, teardown: &Teardown) -> Result<(PathBuf, PathBuf)> {
    let work = tempfile::Builder::new().prefix(PREFIX).tempdir()?.keep();
    teardown.directory(&work)?;
    let logs = log_folder(target, &work)?;
    Ok((work, logs))
}

/// A folder in the target directory that bears the run's name; the oldest of earlier runs go.
fn log_folder(target: &Path, work: &Path) -> Result<PathBuf> {
    let all = target.join("e2e-logs");
    let logs = all.join(work.file_name().context("work folder has no name")?);
    fs::create_dir_all(&logs)?;
    let mut folders = Vec::new();
    for entry in fs::read_dir(&all)? {
        let entry = entry?;
        folders.push((entry.metadata()?.modified()?, entry.path()));
    }
    folders.sort();
    for (_, path) in folders.iter().rev().skip(LOG_FOLDERS_KEPT) {
        fs::remove_dir_all(path)?;
    }
    Ok(logs)
}
