//! Reasons of the Events of this controller; upstream's,
//! `kubernetes:pkg/controller/endpointslicemirroring` v1.36.3.

quarterdeck_runtime::reasons! {
    /// All of them.
    ALL:
    /// The slices that mirror an Endpoints object cannot be brought up to date.
    UPDATE_FAILED = Warning "FailedToUpdateEndpointSlices" about "Endpoints";
    /// Some of what stands there as an address is none.
    INVALID_ADDRESS = Warning "InvalidIPAddress" about "Endpoints";
    /// There are more addresses than are mirrored.
    TOO_MANY = Warning "TooManyAddressesToMirror" about "Endpoints";
}
