//! `dashboard`: the leader's status page in a browser on this machine.
//!
//! A server on the loopback address passes the page and its data on from the leader, over the verified connection and with
//! the user's credentials that `status` and `top` use. Other programs of the machine reach that address too, and so do
//! pages of other sites in the same browser: [`guard`] says what keeps them out.

mod guard;
mod open;
mod proxy;
mod respond;

use std::net::Ipv4Addr;
use std::sync::Arc;

use anyhow::Context as _;
use http::header::ACCEPT;
use http::{HeaderMap, HeaderValue, Method};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

use crate::cli::{Connection, DashboardArgs};
use crate::output::print;
use crate::reach::{Follower, Site};
use guard::{Guard, PAGE};
use proxy::Proxy;

/// Serves the page until it is told to end.
///
/// # Errors
/// When no manager can be reached or may be asked, or the port is taken.
pub(crate) async fn run(connection: &Connection, args: &DashboardArgs) -> anyhow::Result<()> {
    let mut follower = Follower::new(Site::open(connection, &args.reach).await?);
    // What cannot work is said here, and not in the browser.
    let html = HeaderMap::from_iter([(ACCEPT, HeaderValue::from_static("text/html"))]);
    let answer = follower.ask(&Method::GET, PAGE, &html).await?;
    let place = follower.place().unwrap_or_default().to_owned();
    answer.accepted(&place, PAGE).context("the status page")?;

    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, args.port)).await;
    let listener = listener.with_context(|| format!("--port: 127.0.0.1:{}", args.port))?;
    let guard = Guard::new(listener.local_addr()?.port());
    let url = guard.url();
    print(&format!("{url}\n"))?;
    eprintln!("The page of {place}; Ctrl-C ends it.");
    let _opened = if args.open { open::browser(&url) } else { None };

    let proxy = Arc::new(Proxy::new(guard, follower, (connection.clone(), args.reach.clone())));
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    tokio::select! {
        () = proxy::serve(listener, proxy) => {}
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    Ok(())
}
