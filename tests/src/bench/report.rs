//! Figures, their medians and ratios, as a table and as JSON.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use jiff::Timestamp;
use serde::Serialize;

use crate::contestant::Side;
use crate::machine::{Machine, load_average};

/// All that one run measured.
#[derive(Serialize)]
pub(crate) struct Report {
    name: String,
    command: String,
    date: String,
    machine: Machine,
    kubernetes: &'static str,
    #[serde(skip)]
    scale: Scale,
    figures: Vec<Figure>,
    notes: Vec<String>,
}

/// How much is measured.
#[derive(Clone, Copy)]
pub(crate) struct Scale {
    rounds: Option<usize>,
    small: bool,
}

impl Scale {
    /// Rounds to make of a figure whose own number is `usual`.
    pub(crate) fn rounds(self, usual: usize) -> usize {
        self.rounds.unwrap_or(usual)
    }

    /// How many there are of something of which there usually are so many.
    pub(crate) fn size(self, usual: usize) -> usize {
        if self.small { usual.div_ceil(10) } else { usual }
    }
}

/// What is to be reached.
#[derive(Clone, Copy, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Goal {
    /// Ours at the 99th percentile is at most this, in the figure's unit.
    P99AtMost(f64),
    /// Ours is at most the first at the median, and at most the second at the 99th percentile.
    MedianAndP99AtMost(f64, f64),
    /// Ours at the median is at most this, in the figure's unit.
    AtMost(f64),
    /// Ours is at most this part of the peer's, at the median.
    Ratio(f64),
    /// It is only told.
    None,
}

/// One figure: the samples of both sides.
#[derive(Serialize)]
pub(crate) struct Figure {
    group: String,
    name: String,
    unit: &'static str,
    goal: Goal,
    quarterdeck: Samples,
    peer: Samples,
    ratio: Option<f64>,
    reached: Option<bool>,
    load_average: f64,
}

/// Measurements in the order in which they were made, and what is drawn from them.
#[derive(Default, Serialize)]
pub(crate) struct Samples {
    values: Vec<f64>,
    median: Option<f64>,
    p99: Option<f64>,
}

/// A figure while it is measured.
pub(crate) struct Collector {
    name: String,
    unit: &'static str,
    goal: Goal,
    ours: Vec<f64>,
    peer: Vec<f64>,
}

impl Collector {
    /// A figure without samples; `unit` is for people.
    pub(crate) fn new(name: impl Into<String>, unit: &'static str, goal: Goal) -> Self {
        Self { name: name.into(), unit, goal, ours: Vec::new(), peer: Vec::new() }
    }

    /// Adds a sample.
    pub(crate) fn add(&mut self, side: Side, value: f64) {
        eprintln!("   {:<62}{:<26}{}", self.name, side.title(), number(value, self.unit));
        match side {
            Side::Ours => self.ours.push(value),
            Side::Go => self.peer.push(value),
        }
    }
}

impl Samples {
    fn new(values: Vec<f64>) -> Self {
        let (median, p99) = (percentile(&values, 0.5), percentile(&values, 0.99));
        Self { values, median, p99 }
    }

    /// Median, range and number, for the table.
    fn text(&self, unit: &str) -> String {
        let Some(median) = self.median else {
            return "—".to_owned();
        };
        let low = self.values.iter().copied().fold(f64::INFINITY, f64::min);
        let high = self.values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let [median, low, high] = [median, low, high].map(|value| number(value, unit));
        format!("{median} ({low}–{high})")
    }
}

impl Report {
    /// An empty report.
    pub(crate) fn new(name: &str, machine: Machine, rounds: Option<usize>, small: bool) -> Self {
        let arguments: Vec<_> = std::env::args().skip(1).collect();
        Self {
            name: name.to_owned(),
            command: ["hack/bench".to_owned()].into_iter().chain(arguments).collect::<Vec<_>>().join(" "),
            date: Timestamp::now().strftime("%Y-%m-%d %H:%M UTC").to_string(),
            machine,
            kubernetes: "v1.36.3",
            scale: Scale { rounds, small },
            figures: Vec::new(),
            notes: Vec::new(),
        }
    }

    /// Rounds to make of a figure whose own number is `usual`.
    pub(crate) fn rounds(&self, usual: usize) -> usize {
        self.scale.rounds(usual)
    }

    /// How much is measured.
    pub(crate) fn scale(&self) -> Scale {
        self.scale
    }

    /// Takes finished figures of a group.
    pub(crate) fn take(&mut self, group: &str, figures: impl IntoIterator<Item = Collector>) {
        for figure in figures {
            let ours = Samples::new(figure.ours);
            let peer = Samples::new(figure.peer);
            let ratio = match (ours.median, peer.median) {
                (Some(ours), Some(peer)) if peer > 0.0 => Some(ours / peer),
                _ => None,
            };
            let reached = match figure.goal {
                Goal::P99AtMost(most) => ours.p99.map(|value| value <= most),
                Goal::MedianAndP99AtMost(median, p99) => {
                    ours.median.zip(ours.p99).map(|value| value.0 <= median && value.1 <= p99)
                }
                Goal::AtMost(most) => ours.median.map(|value| value <= most),
                Goal::Ratio(most) => ratio.map(|value| value <= most),
                Goal::None => None,
            };
            self.figures.push(Figure {
                group: group.to_owned(),
                name: figure.name,
                unit: figure.unit,
                goal: figure.goal,
                quarterdeck: ours,
                peer,
                ratio,
                reached,
                load_average: load_average(),
            });
        }
    }

    /// Adds a line that is printed under the table.
    pub(crate) fn note(&mut self, text: impl Into<String>) {
        self.notes.push(text.into());
    }

    /// Prints the table, in Markdown.
    pub(crate) fn print(&self) {
        let machine = &self.machine;
        println!(
            "\n{}, `{}`, {} processors, {} GiB\n",
            self.date, self.command, machine.processors, machine.memory_gib
        );
        println!(
            "| figure | quarterdeck: median (range) | kube-controller-manager, or the peer that is named | ratio | to reach | reached | samples | load |"
        );
        println!("|---|---|---|---|---|---|---|---|");
        for figure in &self.figures {
            let (ours, peer) = (&figure.quarterdeck, &figure.peer);
            println!(
                "| {}, {} | {} | {} | {} | {} | {} | {} / {} | {:.1} |",
                figure.name,
                figure.unit,
                ours.text(figure.unit),
                peer.text(figure.unit),
                figure.ratio.map_or_else(|| "—".to_owned(), |ratio| format!("{ratio:.3}")),
                figure.goal.text(figure.unit),
                figure.reached.map_or("—", |reached| if reached { "yes" } else { "**no**" }),
                ours.values.len(),
                peer.values.len(),
                figure.load_average,
            );
        }
        for note in &self.notes {
            println!("\n{note}");
        }
    }

    /// Writes `<folder>/<name>.json`.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(crate) fn save(&self, folder: &Path) -> Result<PathBuf> {
        std::fs::create_dir_all(folder).with_context(|| format!("creating {}", folder.display()))?;
        let file = folder.join(format!("{}.json", self.name));
        let text = serde_json::to_string_pretty(self)? + "\n";
        std::fs::write(&file, text).with_context(|| format!("writing {}", file.display()))?;
        Ok(file)
    }
}

impl Goal {
    fn text(self, unit: &str) -> String {
        match self {
            Self::P99AtMost(most) => format!("p99 ≤ {}", number(most, unit)),
            Self::MedianAndP99AtMost(median, p99) => {
                format!("p50 ≤ {}, p99 ≤ {}", number(median, unit), number(p99, unit))
            }
            Self::AtMost(most) => format!("≤ {}", number(most, unit)),
            Self::Ratio(most) => format!("≤ {most}×"),
            Self::None => "—".to_owned(),
        }
    }
}

/// The value below which this part of the samples lies; none without samples. Of a few samples the
/// 99th percentile is the highest.
pub(crate) fn percentile(values: &[f64], part: f64) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let last = sorted.len().checked_sub(1)?;
    if (part - 0.5).abs() < f64::EPSILON && sorted.len().is_multiple_of(2) {
        return Some((sorted[last / 2] + sorted[last / 2 + 1]) / 2.0);
    }
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss)]
    let rank = (part * sorted.len() as f64).ceil() as usize;
    Some(sorted[rank.clamp(1, sorted.len()) - 1])
}

fn number(value: f64, unit: &str) -> String {
    match unit {
        "writes" | "lists" | "requests" | "calls" | "duplicates" | "leaks" | "connections" => format!("{value:.0}"),
        "MiB" => format!("{value:.1}"),
        "KiB" => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_ranks_and_medians_of_even_numbers_are_means() {
        let hundred: Vec<f64> = (1..=100).rev().map(f64::from).collect();
        assert_eq!(percentile(&hundred, 0.99), Some(99.0));
        assert_eq!(percentile(&hundred, 0.5), Some(50.5));
        assert_eq!(percentile(&[3.0, 1.0, 2.0], 0.5), Some(2.0));
        assert_eq!(percentile(&[3.0, 1.0, 2.0], 0.99), Some(3.0));
        assert_eq!(percentile(&[], 0.5), None);
    }
}
