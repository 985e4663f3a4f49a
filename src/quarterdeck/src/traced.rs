//! quarterdeck with traces under a name of its own, so that tests can have it beside the one without.

use std::process::ExitCode;

use quarterdeck_manager::Manager;

fn main() -> ExitCode {
    quarterdeck_controllers::all(Manager::builder("quarterdeck").about("Sends traces.").upstream()).main()
}
