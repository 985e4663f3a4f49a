//! Tests that cannot run on this machine.

use std::fs::OpenOptions;
use std::io::Write as _;

/// Names the file that gets a line for each test that is skipped, as its name, a tab and the reason.
const FILE: &str = "QUARTERDECK_SKIPS";

/// Says that the test of this thread cannot run here, and why; the test then returns. `hack/test` counts it as skipped,
/// and is red unless `tests/allowed-skips.txt` names it.
///
/// # Panics
/// When the skip cannot be told: it would pass for a test that ran.
pub fn skip(reason: &str) {
    let thread = std::thread::current();
    let name = thread.name().unwrap_or("a thread without a name");
    eprintln!("{name}: skipped: {reason}");
    let Some(path) = std::env::var_os(FILE) else { return };
    let line = format!("{name}\t{}\n", reason.replace(['\n', '\t'], " "));
    // One write: tests of several processes tell at the same time.
    let told =
        OpenOptions::new().append(true).create(true).open(&path).and_then(|mut file| file.write_all(line.as_bytes()));
    told.unwrap_or_else(|error| panic!("{}: the skip cannot be told: {error}", path.display()));
}
