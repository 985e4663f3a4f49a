//! quarterdeck with the faults that `QUARTERDECK_SEEDED_BUGS` names, to test the tests: never to be run elsewhere.

use std::process::ExitCode;

use quarterdeck_manager::Manager;

fn main() -> ExitCode {
    quarterdeck_controllers::all(Manager::builder("quarterdeck").about("Carries faults on purpose.").upstream()).main()
}
