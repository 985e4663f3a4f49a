//! The endpointslice controller.
