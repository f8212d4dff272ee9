//! No datapath: everything is accepted, nothing is carried out.

use std::collections::BTreeSet;

use ipnet::IpNet;
use portreeve_policy::{EndpointPolicy, Identity};

use super::{
    Datapath, DatapathError, DatapathStatus, EndpointId, EndpointSpec, NumbersInUse, Proxying,
    ServiceName, ServiceSpec,
};

/// Carries nothing out: for trying policies and identities on a machine that has no workloads.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoDatapath;

impl Datapath for NoDatapath {
    fn name(&self) -> &'static str {
        "none"
    }

    fn is_enforcing(&self) -> bool {
        false
    }

    fn endpoint_put(&mut self, _: &EndpointSpec) -> Result<(), DatapathError> {
        Ok(())
    }

    fn endpoint_removed(&mut self, _: EndpointId) -> Result<(), DatapathError> {
        Ok(())
    }

    fn endpoint_closed(&mut self, _: EndpointId) -> Result<(), DatapathError> {
        Ok(())
    }

    fn policy_set(
        &mut self,
        _: EndpointId,
        _: u64,
        _: &EndpointPolicy,
    ) -> Result<(), DatapathError> {
        Ok(())
    }

    fn ipcache_put(&mut self, _: IpNet, _: Identity) -> Result<(), DatapathError> {
        Ok(())
    }

    fn ipcache_removed(&mut self, _: IpNet) -> Result<(), DatapathError> {
        Ok(())
    }

    fn service_put(&mut self, _: &ServiceSpec) -> Result<(), DatapathError> {
        Ok(())
    }

    fn service_removed(&mut self, _: &ServiceName) -> Result<(), DatapathError> {
        Ok(())
    }

    fn rejudge(&mut self) -> Result<(), DatapathError> {
        Ok(())
    }

    fn keep_endpoints(&mut self, _: &BTreeSet<EndpointId>) -> Result<(), DatapathError> {
        Ok(())
    }

    fn keep_addresses(&mut self) -> Result<(), DatapathError> {
        Ok(())
    }

    fn lost(&mut self) -> Vec<EndpointId> {
        Vec::new()
    }

    fn numbers_in_use(&self) -> Result<NumbersInUse, DatapathError> {
        Ok(NumbersInUse::default())
    }

    fn status(&self) -> DatapathStatus {
        DatapathStatus::default()
    }
}

impl Proxying for NoDatapath {
    fn policy_set(
        &mut self,
        _: &EndpointSpec,
        _: u64,
        _: EndpointPolicy,
    ) -> Result<(), DatapathError> {
        Ok(())
    }

    fn endpoint_removed(&mut self, _: EndpointId) {}

    fn addresses_changed(&mut self, _: &mut dyn Iterator<Item = (EndpointId, EndpointPolicy)>) {}

    fn health(&self) -> Result<(), DatapathError> {
        Ok(())
    }

    fn reopen_logs(&mut self) {}
}
