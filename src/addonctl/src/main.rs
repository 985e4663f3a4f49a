//! `addonctl`: the client for addons, and for the managers that look after them. It acts as its user, talks to
//! kube-apiserver (and, for `status`, `top` and `dashboard`, to a manager that it has verified), and asks no server where
//! nothing is asked of it.

mod channels;
mod cli;
mod columns;
mod commands;
mod create;
mod dashboard;
mod exit;
mod kinds;
mod output;
mod plan;
mod reach;
mod server;
mod status;
mod top;

use std::process::ExitCode;

use exit::Exit;

fn main() -> ExitCode {
    // One provider is built in; without this, the first TLS handshake would have to find that out.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let cli = match cli::parse(std::env::args_os()) {
        Ok(cli) => cli,
        Err(error) => {
            // Nothing can be done if this cannot be printed.
            let _ = error.print();
            return if error.use_stderr() { Exit::Usage.into() } else { Exit::Fine.into() };
        }
    };
    match commands::run(cli) {
        Ok(exit) => exit.into(),
        Err(error) => exit::tell(&error).into(),
    }
}
