//! `top`: the leader's queues, caches and controllers, from moment to moment.

mod screen;
mod view;

use std::io::{IsTerminal as _, stdout};

use http::header::ACCEPT;
use http::{HeaderMap, HeaderValue, Method};
use jiff::Timestamp;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::Instant;

use crate::cli::{Connection, ObjectForm, TopArgs, TopForm};
use crate::columns::{Dress, size};
use crate::exit::Exit;
use crate::output::{object, print};
use crate::reach::{Follower, ReachError, Site};
use crate::status::{PATH, Page, Verdict, look};
use screen::{Key, Screen};

/// Shows how the leader is, until it is told to end; once where nobody watches.
///
/// # Errors
/// When nothing can be found out.
pub(crate) async fn run(connection: &Connection, args: &TopArgs) -> anyhow::Result<Exit> {
    let site = Site::open(connection, &args.reach).await?;
    if !args.once && args.output == TopForm::Table && stdout().is_terminal() {
        return live(site, args).await;
    }
    let page = look(&site).await?;
    let verdict = Verdict::of(&page);
    match args.output {
        TopForm::Json => print(&object(&page.whole, ObjectForm::Json)?)?,
        TopForm::Table => {
            let shown = view::Shown { page: &page, verdict: &verdict, order: args.sort_by, now: Timestamp::now() };
            print(&view::render(&shown, None, usize::MAX, Dress::of_stdout()))?;
        }
    }
    Ok(verdict.exit())
}

/// Looks again and again, and shows it in place.
async fn live(site: Site, args: &TopArgs) -> anyhow::Result<Exit> {
    let mut follower = Follower::new(site);
    let headers = HeaderMap::from_iter([(ACCEPT, HeaderValue::from_static("application/json"))]);
    // Where something is wrong with the command line or the user's rights, that is said on an untouched screen.
    let mut page = Some(read(&mut follower, &headers).await?);
    let mut trouble: Option<ReachError> = None;
    let mut order = args.sort_by;
    let mut next = Instant::now() + args.interval;
    let mut stop = [SignalKind::interrupt(), SignalKind::terminate()].map(signal);
    let [Ok(interrupt), Ok(terminate)] = &mut stop else { anyhow::bail!("signals cannot be caught") };
    let mut resized = signal(SignalKind::window_change())?;
    let screen = Screen::open()?;
    let mut keys = screen.keys();
    let mut typing = true;
    loop {
        if let Some(page) = &page {
            let (columns, rows) = size().unwrap_or((80, 24));
            let verdict = Verdict::of(page);
            let shown = view::Shown { page, verdict: &verdict, order, now: Timestamp::now() };
            let dress = Dress { width: Some(columns), ..Dress::of_stdout() };
            let said = trouble.as_ref().map(ToString::to_string);
            screen.draw(&view::render(&shown, said.as_deref(), rows, dress))?;
        }
        let looked = async {
            tokio::time::sleep_until(next).await;
            read(&mut follower, &headers).await
        };
        tokio::select! {
            answer = looked => {
                match answer {
                    Ok(new) => (page, trouble) = (Some(new), None),
                    Err(Failed::Reach(error)) if error.may_pass() => trouble = Some(error),
                    Err(error) => return Err(error.into()),
                }
                next = Instant::now() + args.interval;
            }
            key = keys.recv(), if typing => match key {
                Some(Key::Quit) => return Ok(Exit::Fine),
                Some(Key::Order) => order = view::after(order),
                Some(Key::Now) => next = Instant::now(),
                Some(Key::Other) => {}
                // Nobody types any more; signals still come.
                None => typing = false,
            },
            _ = interrupt.recv() => return Ok(Exit::Fine),
            _ = terminate.recv() => return Ok(Exit::Fine),
            _ = resized.recv() => {}
        }
    }
}

/// Why there is nothing to show.
#[derive(Debug, thiserror::Error)]
enum Failed {
    #[error(transparent)]
    Reach(#[from] ReachError),
    #[error(transparent)]
    Page(#[from] crate::status::NoStatus),
}

/// What the leader tells now.
async fn read(follower: &mut Follower, headers: &HeaderMap) -> Result<Page, Failed> {
    let answer = follower.ask(&Method::GET, PATH, headers).await?;
    let place = follower.place().unwrap_or_default().to_owned();
    let answer = answer.accepted(&place, PATH)?;
    Ok(Page::read(&answer.body, &place)?)
}
