//! The harness of the end-to-end tests and of `cargo xtask demo`: a real Kubernetes API server on this machine,
//! with sparkherd's operator and agents as processes beside it.
//!
//! ```text
//! toolchain  builds localkube (Kubernetes in one binary), helm and sparkherd, once, with progress
//!     │
//! network    one bridge, one network namespace per fake Spark
//!     │
//! cluster    etcd, kube-apiserver, kube-controller-manager; kubeconfig of an administrator
//!     │
//! chart      helm template, install, uninstall          kubectl    as a person would type it
//!     │
//! node       Node objects, node-bound tokens            process    operator and agents
//!     │
//!     │
//! lab        all of it together: the chart installed, an operator, fake Sparks with their agents
//!     │
//! herd       such a lab in the hands of a test: edit, wait for a condition, ask
//!     │
//! client     HTTP to a published endpoint               wait       poll a condition until a deadline
//! ```
//!
//! Whatever is started or made is written down with [`teardown::Teardown`] first, which undoes it when the owner
//! ends, also by SIGKILL.

pub mod chart;
pub mod client;
pub mod cluster;
pub mod herd;
pub mod kubeconfig;
pub mod kubectl;
pub mod lab;
pub mod network;
pub mod node;
pub mod process;
pub mod teardown;
pub mod toolchain;
pub mod wait;

/// Where progress lines go: the terminal in the demo, captured output in a test.
pub type Progress<'a> = &'a (dyn Fn(&str) + Sync);
