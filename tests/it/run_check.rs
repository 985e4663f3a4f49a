//! `hack/run --check`: what the README's first command promises.

use anyhow::{Result, ensure};
use quarterdeck_it::deck::program_named;
use tokio::process::Command;

#[tokio::test]
async fn the_demonstration_checks_itself() -> Result<()> {
    check(&[]).await
}

/// Beside a Go manager, a scheduler and fake nodes.
#[tokio::test]
async fn the_full_demonstration_checks_itself() -> Result<()> {
    check(&["--full"]).await
}

async fn check(flags: &[&str]) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let output = Command::new(program_named("deck")?)
        .arg("--check")
        .args(flags)
        .arg(format!("--dir={}", folder.path().join("run").display()))
        .output()
        .await?;
    let said = String::from_utf8_lossy(&output.stdout);
    ensure!(
        output.status.success() && said.contains("check passed"),
        "{said}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}
