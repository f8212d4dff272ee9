//! The ways that lead packets to the proxy, looked after: the device, the rules and the routes are the
//! host's, and whoever manages its network may take them away. systemd-networkd removes rules that it has not
//! made when it starts again.

use std::sync::atomic::Ordering;

use super::device;
use super::error::NodeError;
use super::kernel::NodeKernel;
use super::programs::TO_PROXY;
use crate::error::MapError;
use crate::sys::attach_type;

impl NodeKernel {
    /// Makes anew what leads packets to the proxy, as far as it is not there any more. Until then they are
    /// dropped.
    ///
    /// # Errors
    /// What can't be made.
    pub fn restore_ways(&self) -> Result<(), NodeError> {
        let device = device::prepare()?;
        if self.device.load(Ordering::Relaxed) == device {
            return Ok(());
        }
        self.hold("device", TO_PROXY, attach_type::TCX_INGRESS, device)?;
        let read = self.maps.config.get(&0).map_err(MapError::system("can't read", "CONFIG"))?;
        let mut config = read.unwrap_or_default();
        config.device = device;
        let put = self.maps.config.put(&0, &config);
        put.map_err(MapError::system("can't write", "CONFIG"))?;
        // Only now: what has failed is tried again.
        self.device.store(device, Ordering::Relaxed);
        Ok(())
    }
}
