//! What `portreeve-node run` begins with: the datapath, the proxy, and the node's state.
//!
//! A start that fails leaves the node as it was. What can fail without the programs inside of the kernel is
//! tried first; and when something fails later, what this start has set up is taken away again. What was
//! there before goes on judging.

use std::fs::File;
use std::net::TcpListener;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use portreeve_core::observer::Observing;
use portreeve_core::telemetry::{Sink, TelemetryError};
use portreeve_core::{NodeConfig, StartError};
use portreeve_ebpf::node::{NodeCapacity, NodeKernel, NodeSettings, missing};

use crate::cli::DatapathKind;
use crate::command::Failure;
use crate::config::{Config, Refusals};
use crate::datapath::{
    Datapath, EbpfDatapath, NoDatapath, Outside, Proxying, SharedProxy, counting,
};
use crate::events::{Flows, Reader, Told};
use crate::identities::{EndpointIds, Identities};
use crate::state::{Node, NodeOptions};
use crate::trouble;

/// Before anything is begun: whether what is wanted can be at all.
pub(crate) fn check_datapath(config: &Config) -> Result<(), Failure> {
    match config.datapath {
        DatapathKind::None => Ok(()),
        DatapathKind::Ebpf => match trouble::missing(&missing(&config.kernel.bpffs)) {
            Some(failure) => Err(failure),
            None => Ok(()),
        },
    }
}

/// The node, and who reads what its kernel tells: to be dropped first.
pub(crate) fn open_node(config: &Config) -> Result<(Arc<Mutex<Node>>, Option<Reader>), Failure> {
    let flows = Flows::default();
    if config.datapath == DatapathKind::None {
        // Nobody is to believe that policy is in force when it is not.
        tracing::warn!(
            "NOTHING IS ENFORCED: running without a datapath, as asked. Identities and policies \
             are computed and shown; every packet passes as if there were none"
        );
        let (datapath, proxy) = (Box::new(NoDatapath), Box::new(NoDatapath));
        return begin(config, Carried { datapath, proxy, told: None }, flows);
    }
    try_without_kernel(config)?;
    let datapath = open_datapath(config)?;
    let kernel = datapath.kernel();
    carry_out(config, datapath, &flows)
        .and_then(|carried| begin(config, carried, flows))
        .inspect_err(|_| take_back(config, &kernel))
}

/// What would fail later, too, once programs are attached. Between this and then it may still come to fail.
fn try_without_kernel(config: &Config) -> Result<(), Failure> {
    let now = Instant::now();
    let read =
        Identities::open(&config.state, now).and_then(|_| EndpointIds::open(&config.state, now));
    read.map_err(|error| trouble::node(&error.into()))?;
    if let Some(address) = config.admin {
        let bound = TcpListener::bind(address);
        bound.map_err(|source| trouble::proxy(&StartError::Admin { address, source }))?;
    }
    if let Sink::File(path) = &config.access_log.sink {
        File::options().create(true).append(true).open(path).map_err(|source| {
            let path = path.clone();
            trouble::proxy(&StartError::Telemetry(TelemetryError::Open { path, source }))
        })?;
    }
    Ok(())
}

/// Programs and maps, new or taken over.
fn open_datapath(config: &Config) -> Result<EbpfDatapath, Failure> {
    let settings = NodeSettings {
        instance: config.kernel.instance.clone(),
        bpffs: config.kernel.bpffs.clone(),
        capacity: NodeCapacity::default(),
    };
    let told = config.kernel.refusals == Refusals::Told;
    EbpfDatapath::open(&settings, told).map_err(|error| trouble::kernel(&error))
}

/// What carries policy out.
struct Carried {
    datapath: Box<dyn Datapath>,
    proxy: Box<dyn Proxying>,
    told: Option<Told>,
}

fn carry_out(
    config: &Config,
    mut datapath: EbpfDatapath,
    flows: &Flows,
) -> Result<Carried, Failure> {
    let (devices, addresses) = (config.kernel.devices.clone(), config.kernel.addresses.clone());
    datapath.serve_outside(Outside::new(devices, addresses));
    for trouble in datapath.troubles() {
        tracing::error!("{trouble}");
    }
    datapath
        .serve_processes(config.kernel.cgroup.as_deref())
        .map_err(|error| Failure::new(format!("services can't be had at `connect()`: {error}")))?;
    datapath.share_out_connections().map_err(Failure::new)?;
    let mut proxy = NodeConfig::new(Vec::new());
    proxy.access_log = config.access_log.clone();
    proxy.admin = config.admin;
    proxy.limits = config.limits.resolve(config.drain_timeout);
    proxy.workers = config.workers;
    proxy.kernel = counting(datapath.kernel());
    proxy.observer = Observing::by(flows.clone());
    let proxy =
        SharedProxy::start(proxy, datapath.kernel()).map_err(|error| trouble::proxy(&error))?;
    let (kernel, names) = (datapath.kernel(), datapath.names());
    let told = proxy.reporter().map(|reporter| Told { kernel, names, reporter });
    Ok(Carried { datapath: Box::new(datapath), proxy: Box::new(proxy), told })
}

fn begin(
    config: &Config,
    Carried { datapath, proxy, told }: Carried,
    flows: Flows,
) -> Result<(Arc<Mutex<Node>>, Option<Reader>), Failure> {
    let options = NodeOptions {
        name: config.node.clone(),
        policy: config.policy.clone(),
        identity_linger: config.identity_linger,
    };
    let node = Node::open(options, &config.state, datapath, proxy, Instant::now())
        .map_err(|error| trouble::node(&error))?
        .with_flows(flows.clone());
    let reader = told.map(|told| Reader::start(told, flows).map_err(Failure::new));
    Ok((Arc::new(Mutex::new(node)), reader.transpose()?))
}

/// Leaves nothing of an instance that there was nothing of before.
fn take_back(config: &Config, kernel: &NodeKernel) {
    let instance = &config.kernel.instance;
    match kernel.take_back() {
        Ok(None) => {}
        Ok(Some(_)) => tracing::info!("what was set up as instance `{instance}` is removed again"),
        Err(error) => tracing::error!(
            "what was set up as instance `{instance}` is still there: {error}\n  hint: \
             `{}`",
            trouble::detach_command(&config.kernel.bpffs, instance)
        ),
    }
}
