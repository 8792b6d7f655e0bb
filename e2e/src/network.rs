//! Where the API server and the fake Sparks have their addresses. An `EndpointSlice` refuses loopback, so an engine
//! needs a real one:
//!
//! ```text
//! root:     host ── bridge sparkherd-311 (198.19.55.1, the API server) ─┬─ namespace sparkherd-311-spark-1 (.11)
//!                                                                       └─ namespace sparkherd-311-spark-2 (.12)
//! not root: all on the host's own address, apart by port
//! ```
//!
//! 198.18.0.0/15 is set aside for tests of network devices (RFC 2544), so no machine has real peers there. Making
//! the bridge claims one of its 512 /24 networks: its name is the network's number, and the kernel refuses a second
//! of the same name, so two runs never meet.

use std::net::{IpAddr, Ipv4Addr, TcpListener, UdpSocket};
use std::ops::RangeInclusive;
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use crate::Progress;
use crate::teardown::{PREFIX, Teardown};

/// The /24 networks in 198.18.0.0/15.
const SUBNETS: u16 = 512;
/// Host part of the bridge's address.
const BRIDGE_HOST: u8 = 1;
/// Host part of slot 0; the Sparks of a run are slots 0 to [`SLOTS`] − 1.
const FIRST_SPARK_HOST: u8 = 10;
/// Fake Sparks a run may have: more than a lab's 20.
pub const SLOTS: u8 = 64;
/// Engines per agent, as in the chart's port range.
const PORTS_PER_SPARK: u16 = 64;
/// Lowest engine port of slot 0 where all Sparks share an address; above the chart's and below the ephemeral range.
const SHARED_FIRST_PORT: u16 = 20_000;

/// The network of one run.
#[derive(Debug)]
pub struct Network {
    layout: Layout,
}

#[derive(Debug)]
enum Layout {
    Isolated { subnet: u16, bridge: String },
    Shared { host: IpAddr },
}

/// What one fake Spark's agent listens on.
#[derive(Debug, Clone)]
pub struct SparkNetwork {
    /// Network namespace its processes run in; `None` is the host's.
    pub namespace: Option<String>,
    pub address: IpAddr,
    pub admin_port: u16,
    pub engine_ports: RangeInclusive<u16>,
}

impl Network {
    /// Claims a subnet where we may make bridges, else settles for the host's own address and says so.
    pub fn start(teardown: &Teardown, progress: Progress) -> Result<Self> {
        if rustix::process::geteuid().is_root() {
            match claim_bridge(teardown) {
                Ok(layout) => return Ok(Self { layout }),
                Err(error) => {
                    progress(&format!("no network namespaces here ({error:#}): all on the host's address"));
                }
            }
        }
        Self::shared()
    }

    /// Everything on the host's own address.
    pub fn shared() -> Result<Self> {
        Ok(Self { layout: Layout::Shared { host: host_address()? } })
    }

    /// Where the API server listens; fake Sparks and the host reach it.
    pub fn api_address(&self) -> IpAddr {
        match &self.layout {
            Layout::Isolated { subnet, .. } => address_in(*subnet, BRIDGE_HOST),
            Layout::Shared { host } => *host,
        }
    }

    /// The address that a Spark in this slot has or will have: the operator is told before the Spark is made.
    pub fn spark_address(&self, slot: u8) -> IpAddr {
        match &self.layout {
            Layout::Isolated { subnet, .. } => address_in(*subnet, FIRST_SPARK_HOST + slot),
            Layout::Shared { host } => *host,
        }
    }

    /// True if each Spark has an address (and so a namespace) of its own.
    pub fn is_isolated(&self) -> bool {
        matches!(self.layout, Layout::Isolated { .. })
    }

    /// Makes the namespace of a Spark, once per slot.
    pub fn add_spark(&self, teardown: &Teardown, slot: u8) -> Result<SparkNetwork> {
        ensure!(slot < SLOTS, "slot {slot} is not below {SLOTS}");
        let address = self.spark_address(slot);
        let Layout::Isolated { subnet, bridge } = &self.layout else {
            let first = SHARED_FIRST_PORT + u16::from(slot) * (PORTS_PER_SPARK + 1);
            let engine_ports = first + 1..=first + PORTS_PER_SPARK;
            return Ok(SparkNetwork { namespace: None, address, admin_port: first, engine_ports });
        };
        let namespace = format!("{PREFIX}{subnet:03}-spark-{slot}");
        // Linux allows 15 characters in the name of an interface: this one has exactly that many.
        let veth = format!("{PREFIX}{subnet:03}{slot:02}");
        ip(&format!("netns add {namespace}"))?;
        teardown.namespace(&namespace)?;
        ip(&format!("link add {veth} type veth peer name eth0 netns {namespace}"))?;
        teardown.link(&veth)?;
        ip(&format!("link set {veth} master {bridge} up"))?;
        ip(&format!("-n {namespace} address add {address}/24 dev eth0"))?;
        ip(&format!("-n {namespace} link set eth0 up"))?;
        ip(&format!("-n {namespace} link set lo up"))?;
        let engine_ports = 8100..=8100 + PORTS_PER_SPARK - 1;
        Ok(SparkNetwork { namespace: Some(namespace), address, admin_port: 9470, engine_ports })
    }
}

/// A port that nothing listens on at this moment. Whoever gets it must cope with having lost it again.
pub fn free_port(address: IpAddr) -> Result<u16> {
    Ok(TcpListener::bind((address, 0))?.local_addr()?.port())
}

fn claim_bridge(teardown: &Teardown) -> Result<Layout> {
    // Runs start their search at different places, so that they seldom try the same.
    let first = std::process::id() % u32::from(SUBNETS);
    let first = u16::try_from(first)?;
    let mut refusal = None;
    for subnet in (first..SUBNETS).chain(0..first) {
        let network = address_in(subnet, 0);
        // Somebody else's route into the subnet: not ours to shadow.
        if !ip(&format!("-4 route show root {network}/24"))?.is_empty() {
            continue;
        }
        let bridge = format!("{PREFIX}{subnet:03}");
        match ip(&format!("link add {bridge} type bridge")) {
            Ok(_) => {}
            Err(error) if error.to_string().contains("File exists") => continue,
            Err(error) => {
                refusal = Some(error);
                break;
            }
        }
        teardown.link(&bridge)?;
        ip(&format!("address add {}/24 dev {bridge}", address_in(subnet, BRIDGE_HOST)))?;
        ip(&format!("link set {bridge} up"))?;
        return Ok(Layout::Isolated { subnet, bridge });
    }
    Err(refusal.unwrap_or_else(|| anyhow::anyhow!("all {SUBNETS} test networks are in use")))
}

fn address_in(subnet: u16, host: u8) -> IpAddr {
    let [high, low] = subnet.to_be_bytes();
    IpAddr::V4(Ipv4Addr::new(198, 18 + high, low, host))
}

/// The address a packet to the outside would leave from. Connecting a UDP socket sends nothing.
fn host_address() -> Result<IpAddr> {
    // Documentation addresses (RFC 5737 and 3849): only the routing table is asked about them.
    for (local, remote) in [("0.0.0.0:0", "192.0.2.1:9"), ("[::]:0", "[2001:db8::1]:9")] {
        let Ok(socket) = UdpSocket::bind(local) else { continue };
        if socket.connect(remote).is_ok() {
            return Ok(socket.local_addr()?.ip());
        }
    }
    bail!("this machine has no address besides loopback, and an EndpointSlice refuses that: run as root")
}

fn ip(arguments: &str) -> Result<String> {
    let output = Command::new("ip").args(arguments.split(' ')).output();
    let output = output.context("failed to run ip (install iproute2)")?;
    let complaint = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "ip {arguments}: {}", complaint.trim());
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_subnet_is_within_the_range_for_tests() {
        assert_eq!(address_in(0, 1).to_string(), "198.18.0.1");
        assert_eq!(address_in(255, 1).to_string(), "198.18.255.1");
        assert_eq!(address_in(SUBNETS - 1, 254).to_string(), "198.19.255.254");
    }

    #[test]
    fn sparks_on_one_address_have_ports_of_their_own() {
        let network = Network { layout: Layout::Shared { host: Ipv4Addr::new(192, 0, 2, 7).into() } };
        let teardown = Teardown::start().unwrap();
        let mut taken = std::collections::BTreeSet::new();
        for slot in 0..SLOTS {
            let spark = network.add_spark(&teardown, slot).unwrap();
            assert!(taken.insert(spark.admin_port), "slot {slot}");
            assert!(spark.engine_ports.clone().all(|port| taken.insert(port)), "slot {slot}");
        }
        assert!(taken.iter().all(|port| *port < 32_768), "below Linux' ephemeral ports");
    }
}
