//! The controllers, one folder each, and their table.

pub mod addon;
pub mod cloud_node;
pub mod cloud_node_lifecycle;
pub mod endpoints;
pub mod endpointslice;
pub mod endpointslice_mirroring;
pub mod metal;
pub mod namespace;
pub mod node_route;
pub mod service_lb;

use quarterdeck_cloud::Cloud;
use quarterdeck_runtime::controller::Registrar;

/// The table: every controller of this build.
#[must_use]
pub fn all<R: Registrar>(manager: R) -> R {
    manager
        .facility::<Cloud>()
        .controller::<endpoints::EndpointsController>()
        .controller::<endpointslice::EndpointSliceController>()
        .controller::<endpointslice_mirroring::EndpointSliceMirroringController>()
        .controller::<namespace::NamespaceController>()
        .controller::<service_lb::ServiceLbController>()
        .controller::<addon::AddonController>()
        .controller::<metal::MetalController>()
        .controller::<cloud_node::CloudNodeController>()
        .controller::<cloud_node_lifecycle::CloudNodeLifecycleController>()
        .controller::<node_route::NodeRouteController>()
}
