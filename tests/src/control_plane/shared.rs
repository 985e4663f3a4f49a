//! The control plane that the tests of one process share.

use tokio::sync::OnceCell;

use super::ControlPlane;

/// The control plane of this process, started by the first that asks. It ends
/// with the process. Tests that use it keep to namespaces (and users) of their
/// own, and never stop or pause its servers.
///
/// # Panics
/// When it cannot be started: every test would fail.
pub async fn shared() -> &'static ControlPlane {
    static SHARED: OnceCell<ControlPlane> = OnceCell::const_new();
    let start = || async { ControlPlane::builder().apiservers(1).start().await };
    match SHARED.get_or_try_init(start).await {
        Ok(control_plane) => control_plane,
        Err(error) => panic!("no control plane for the tests: {error:#}"),
    }
}
