//! A manager of one's own: accounts become namespaces with rights and limits.
//!
//! The whole program is this table of one controller; flags, election, caches, metrics and health come
//! with the manager. `account-manager install` brings the rights that the controller declares.

mod account;
mod controller;
mod plan;

use std::process::ExitCode;

use quarterdeck_manager::{Manager, Registrar as _};

fn main() -> ExitCode {
    Manager::builder("account-manager")
        .about("account-manager gives each Account a namespace, its members the right to edit it, and a quota.")
        .version(env!("CARGO_PKG_VERSION"))
        .controller::<controller::AccountController>()
        .main()
}
