//! What the figures were measured on.

use serde::Serialize;

/// This machine at the start of a run.
#[derive(Serialize)]
pub(crate) struct Machine {
    /// Processors that this process may use.
    pub(crate) processors: usize,
    /// Memory in GiB.
    pub(crate) memory_gib: u64,
    /// Name of the processor, as the kernel knows it.
    pub(crate) processor: String,
    /// Version of the kernel.
    pub(crate) kernel: String,
}

impl Machine {
    /// Reads it from `/proc`; what cannot be read is empty.
    pub(crate) fn look() -> Self {
        let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let field = |text: &str, name: &str| {
            let line = text.lines().find(|line| line.starts_with(name));
            line.and_then(|line| line.split_once(':')).map_or("", |(_, value)| value.trim()).to_owned()
        };
        let memory = field(&read("/proc/meminfo"), "MemTotal");
        let kib = memory.split_whitespace().next().and_then(|number| number.parse::<u64>().ok());
        Self {
            processors: std::thread::available_parallelism().map_or(0, usize::from),
            memory_gib: kib.unwrap_or_default().div_ceil(1 << 20),
            processor: field(&read("/proc/cpuinfo"), "model name"),
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
        }
    }
}

/// Processes that wanted a processor in the last minute; more than there are processors means that
/// wall-clock figures suffer.
pub(crate) fn load_average() -> f64 {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split_whitespace().next().and_then(|number| number.parse().ok()).unwrap_or_default()
}
