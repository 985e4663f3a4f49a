//! The quarterdeck binary: the table of controllers, handed to the manager.

use std::process::ExitCode;

use quarterdeck_manager::Manager;

// glibc keeps the arenas that a re-list fills; jemalloc gives them back.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

const ABOUT: &str = "quarterdeck runs the controllers of a Kubernetes control plane as workers on shared caches. Replicas on \
    every master elect one that works; the others stand by with warm caches. It takes over from kube-controller-manager \
    controller by controller, and from kube-addon-manager.";

fn main() -> ExitCode {
    quarterdeck_controllers::all(Manager::builder("quarterdeck").about(ABOUT).upstream()).main()
}
