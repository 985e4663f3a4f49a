//! Reasons of the Events of this controller; upstream's, `kubernetes:pkg/controller/endpoint/endpoints_controller.go` v1.36.3.

quarterdeck_runtime::reasons! {
    /// All of them.
    ALL:
    /// The Endpoints of a service cannot be made.
    CREATE_FAILED = Warning "FailedToCreateEndpoint" about "Endpoints";
    /// They cannot be brought up to date.
    UPDATE_FAILED = Warning "FailedToUpdateEndpoint" about "Endpoints";
}
