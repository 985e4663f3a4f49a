//! The endpointslice_mirroring controller.
