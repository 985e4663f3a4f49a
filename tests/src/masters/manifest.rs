//! The static pod that users are told to run (`deploy/static-pod`), with what a test changes of it.

use anyhow::{Context, Result};
use tokio::process::Command;

use crate::binaries::repository;
use crate::deck::program;

/// The image that the shipped manifest names.
const SHIPPED_IMAGE: &str = "quarterdeck.dev/quarterdeck:0.1.0";
/// The line after which flags are added.
const LAST_FLAG: &str = "        - --addon-path=/etc/kubernetes/addons\n";
/// The line after which a label is added.
const LAST_LABEL: &str = "    tier: control-plane\n";
/// The line with its limit.
const LIMIT: &str = "          memory: 512Mi\n";

/// A manifest.
#[derive(Clone, Debug)]
pub struct Manifest {
    text: String,
}

impl Manifest {
    /// The one that is shipped, as it is.
    ///
    /// # Errors
    /// When it cannot be read, or has not the shape that the rest of this needs.
    pub fn shipped() -> Result<Self> {
        let file = repository().join("deploy/static-pod/quarterdeck.yaml");
        let text = std::fs::read_to_string(&file).with_context(|| file.display().to_string())?;
        for line in [SHIPPED_IMAGE, LAST_FLAG, LAST_LABEL, LIMIT] {
            anyhow::ensure!(text.contains(line), "{} lacks {line:?}", file.display());
        }
        Ok(Self { text })
    }

    /// With another image.
    #[must_use]
    pub fn image(mut self, name: &str) -> Self {
        self.text = self.text.replace(SHIPPED_IMAGE, name);
        self
    }

    /// With the controllers named that the masters' Go manager leaves to it: unnamed they would wait for that manager.
    ///
    /// # Errors
    /// When the program does not tell them.
    pub async fn named_controllers(self) -> Result<Self> {
        let output = Command::new(program()?).arg("--print-kcm-controllers").output().await?;
        let theirs = String::from_utf8(output.stdout)?;
        let ours: Vec<_> = theirs.trim().split(',').map(|name| name.trim_start_matches('-')).collect();
        anyhow::ensure!(ours.len() > 1, "--print-kcm-controllers: {theirs:?}");
        Ok(self.arg(&format!("--controllers={}", ours.join(","))))
    }

    /// With one more flag.
    #[must_use]
    pub fn arg(mut self, arg: &str) -> Self {
        self.text = self.text.replace(LAST_FLAG, &format!("{LAST_FLAG}        - '{arg}'\n"));
        self
    }

    /// With a number among its labels: nothing that runs heeds it, but it is another pod.
    #[must_use]
    pub fn edition(mut self, number: usize) -> Self {
        self.text = self.text.replace(LAST_LABEL, &format!("{LAST_LABEL}    edition: '{number}'\n"));
        self
    }

    /// With another limit of memory, such as `64Mi`, which is what it asks for besides.
    #[must_use]
    pub fn memory(mut self, limit: &str) -> Self {
        self.text = self.text.replace(LIMIT, &format!("          memory: {limit}\n"));
        self.text = self.text.replace("          memory: 64Mi\n", &format!("          memory: {limit}\n"));
        self
    }

    /// Its text.
    pub fn text(&self) -> &str {
        &self.text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_changed_stands_in_the_text() {
        let manifest = Manifest::shipped().unwrap().image("there/other:2").arg("--v=1").arg("--fence=required");
        let text = manifest.memory("48Mi").edition(7).text().to_owned();
        for part in
            ["    edition: '7'\n", "image: there/other:2\n", "        - '--v=1'\n", "        - '--fence=required'\n"]
        {
            assert!(text.contains(part), "{part:?} in {text}");
        }
        assert_eq!(text.matches("memory: 48Mi").count(), 2);
        assert!(!text.contains("512Mi"));
    }
}
