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
use quarterdeck_runtime::controller::{Controller, Registrar};
use quarterdeck_runtime::events::Reason;

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

/// The reasons of all Events that they make, by controller; those about cloud providers, which any controller of clouds may
/// make, under the facility's name.
#[must_use]
pub fn event_reasons() -> Vec<(&'static str, &'static [Reason])> {
    fn of<C: Controller>(reasons: &'static [Reason]) -> (&'static str, &'static [Reason]) {
        (C::DESCRIPTOR.name, reasons)
    }
    vec![
        of::<endpoints::EndpointsController>(endpoints::reasons::ALL),
        of::<endpointslice::EndpointSliceController>(endpointslice::reasons::ALL),
        of::<endpointslice_mirroring::EndpointSliceMirroringController>(endpointslice_mirroring::reasons::ALL),
        of::<namespace::NamespaceController>(namespace::reasons::ALL),
        of::<service_lb::ServiceLbController>(service_lb::reasons::ALL),
        of::<addon::AddonController>(addon::reasons::ALL),
        of::<metal::MetalController>(metal::reasons::ALL),
        of::<cloud_node::CloudNodeController>(cloud_node::reasons::ALL),
        of::<cloud_node_lifecycle::CloudNodeLifecycleController>(cloud_node_lifecycle::reasons::ALL),
        of::<node_route::NodeRouteController>(node_route::reasons::ALL),
        ("cloud", quarterdeck_cloud::reasons::ALL),
    ]
}
