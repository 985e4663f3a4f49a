//! Processes: signals, ends, and who dies with whom.

use std::time::Duration;

use anyhow::{Context, ensure};
use quarterdeck_it::deck::program_named;
use quarterdeck_it::{Launch, Signal, eventually};

use super::LONG;

fn sleeper() -> Launch {
    Launch::new("sleeper", "sleep").arg("1000")
}

#[tokio::test]
async fn ends_are_told_apart() {
    let shell = |script: &str| Launch::new("shell", "sh").args(["-c", script]).spawn().unwrap();
    let failed = shell("exit 3").wait(LONG).await.unwrap();
    assert_eq!((failed.code, failed.success()), (Some(3), false));

    let killed = sleeper().spawn().unwrap();
    assert!(killed.is_running());
    assert_eq!(killed.kill().await.unwrap().signal, Some(Signal::SIGKILL as i32));
    // A signal to an ended process is no error.
    killed.signal(Signal::SIGTERM).unwrap();
    assert!(killed.usage().is_err());

    let stopped = sleeper().spawn().unwrap();
    stopped.pause().await.unwrap();
    let exit = stopped.stop(LONG).await.unwrap();
    assert_eq!(exit.signal, Some(Signal::SIGTERM as i32));

    let missing = Launch::new("missing", "/no/such/program").spawn().unwrap_err();
    assert!(format!("{missing:#}").contains("/no/such/program is not a file"), "{missing:#}");
}

#[tokio::test]
async fn a_wait_that_is_too_long_shows_the_log() {
    let folder = tempfile::tempdir().unwrap();
    let process = Launch::new("talker", "sh")
        .args(["-c", "echo $WORD; exec sleep 1000"])
        .env("WORD", "ahoy")
        .log(folder.path().join("log"))
        .spawn()
        .unwrap();
    eventually("its word", LONG, async || {
        ensure!(process.log_text() == "ahoy\n", "{:?}", process.log_text());
        Ok(())
    })
    .await
    .unwrap();
    let error = process.wait(Duration::ZERO).await.unwrap_err().to_string();
    assert!(error.contains("talker still runs") && error.contains("ahoy"), "{error}");
}

#[tokio::test]
async fn eventually_tells_what_was_seen_last() {
    let error =
        eventually::<(), _, _>("the moon", Duration::ZERO, async || anyhow::bail!("only clouds")).await.unwrap_err();
    assert_eq!(format!("{error:#}"), "not within 0ns: the moon; last seen: only clouds");
}

#[tokio::test]
async fn a_child_outlives_the_thread_that_started_it_but_not_the_process() {
    let folder = tempfile::tempdir().unwrap();
    let parent = Launch::new("parent", program_named("cluster").unwrap())
        .arg("parent")
        .log(folder.path().join("log"))
        .spawn()
        .unwrap();
    let child = eventually("the child's pid", LONG, async || {
        let text = parent.log_text();
        let line = text.lines().find_map(|line| line.strip_prefix("child "));
        Ok(line.with_context(|| text.clone())?.to_owned())
    })
    .await
    .unwrap();
    let there = || std::path::Path::new("/proc").join(&child).exists();
    assert!(there());
    parent.kill().await.unwrap();
    eventually("the child's end", LONG, async || {
        ensure!(!there(), "it lives");
        Ok(())
    })
    .await
    .unwrap();
}
