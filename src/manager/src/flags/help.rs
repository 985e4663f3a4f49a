//! `--help` in upstream's form: a description, a usage line, and one section for each group of
//! flags, laid out as pflag does.
//!
//! In a terminal, upstream writes each flag on a line of its own and its description under it,
//! indented by 16 and wrapped; elsewhere the descriptions stand in a column and are not wrapped
//! (component-base:cli/flag/sectioned.go, v1.36.3).

use std::any::TypeId;
use std::fmt::Write as _;
use std::io::IsTerminal as _;
use std::net::IpAddr;
use std::time::Duration;

use clap::Arg;
use quarterdeck_api::duration;

use super::set::{FlagSet, Subcommand, is_list, is_switch};

/// Sections before those of the controllers, in upstream's order.
const FIRST: [&str; 5] = ["debugging", "generic", "secure serving", "authentication", "authorization"];
/// Sections behind them.
const LAST: [&str; 4] = ["metrics", "logs", "misc", "global"];
/// Where descriptions start when they stand under their flag.
const INDENT: usize = 16;
/// The narrowest room that text is wrapped into.
const NARROWEST: usize = 24;

/// The width of the terminal that standard output is, or 0 if it is none.
#[must_use]
pub fn terminal_width() -> usize {
    let stdout = std::io::stdout();
    if !stdout.is_terminal() {
        return 0;
    }
    rustix::termios::tcgetwinsize(&stdout).map_or(0, |size| usize::from(size.ws_col))
}

/// One flag, ready to print.
struct Line {
    heading: String,
    name: String,
    short: Option<char>,
    kind: Option<String>,
    usage: String,
    default: Option<String>,
}

/// Renders the help of the program, or of one of its subcommands.
pub(crate) fn render(flags: &FlagSet, subcommand: Option<&Subcommand>, width: usize) -> String {
    let program = &flags.program;
    let mut lines: Vec<Line> =
        flags.groups.iter().flat_map(|group| group.command.get_arguments()).filter_map(line).collect();
    if let Some(controllers) = lines.iter_mut().find(|line| line.name == "controllers") {
        controllers.usage.push_str(&controllers_text(flags));
    }
    for (name, short, kind, usage) in [
        ("help", Some('h'), None, format!("help for {}", program.name)),
        (
            "version",
            None,
            Some("version[=true]"),
            "--version, --version=raw prints version information and quits".into(),
        ),
    ] {
        let kind = kind.map(str::to_owned);
        lines.push(Line { heading: "global".into(), name: name.into(), short, kind, usage, default: None });
    }
    let (about, usage) = match subcommand {
        Some(subcommand) => {
            lines.extend(subcommand.arguments().filter_map(line));
            (subcommand.about, format!("{} {} [flags]", program.name, subcommand.name))
        }
        None => (program.about.as_str(), format!("{} [flags]", program.name)),
    };
    let mut text = wrap(0, if width > NARROWEST { width.min(80) } else { 80 }, about.trim());
    write!(text, "\n\nUsage:\n  {usage}\n").expect("writing to a String cannot fail");
    if subcommand.is_none() && !flags.subcommands.is_empty() {
        let longest = flags.subcommands.iter().map(|s| s.name.len()).max().unwrap_or(0);
        text.push_str("\nAvailable Commands:\n");
        for Subcommand { name, about, .. } in &flags.subcommands {
            writeln!(text, "  {name:longest$}   {about}").expect("writing to a String cannot fail");
        }
    }
    let mut headings: Vec<String> = Vec::new();
    for line in &lines {
        if !headings.contains(&line.heading) {
            headings.push(line.heading.clone());
        }
    }
    headings.sort_by_key(|heading| rank(heading));
    for heading in headings {
        let mut section: Vec<&Line> = lines.iter().filter(|line| line.heading == heading).collect();
        section.sort_by(|a, b| a.name.cmp(&b.name));
        section.dedup_by(|a, b| a.name == b.name);
        write!(text, "\n{} flags:\n\n", capitalised(&heading)).expect("writing to a String cannot fail");
        text.push_str(&layout(&section, width));
    }
    text
}

/// The place of a section; the sort is stable, so controllers keep theirs.
fn rank(heading: &str) -> usize {
    let first = FIRST.iter().position(|known| *known == heading);
    let last = LAST.iter().position(|known| *known == heading).map(|at| FIRST.len() + 1 + at);
    first.or(last).unwrap_or(FIRST.len())
}

fn capitalised(heading: &str) -> String {
    let mut letters = heading.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}

fn controllers_text(flags: &FlagSet) -> String {
    let list = |names: Vec<&str>| if names.is_empty() { "none".to_owned() } else { names.join(", ") };
    let mut text = format!(
        "\nAll controllers: {}\nDisabled-by-default controllers: {}",
        list(flags.table.names()),
        list(flags.table.disabled_by_default()),
    );
    let lacking = flags.table.lacking();
    if !lacking.is_empty() {
        write!(
            text,
            "\nControllers of upstream's managers that this build lacks (accepted, not run): {}",
            list(lacking)
        )
        .expect("writing to a String cannot fail");
    }
    text
}

fn line(arg: &Arg) -> Option<Line> {
    let name = arg.get_long()?.to_owned();
    if arg.is_hide_set() {
        return None;
    }
    let usage = arg.get_long_help().or_else(|| arg.get_help()).map(ToString::to_string).unwrap_or_default();
    Some(Line {
        heading: arg.get_help_heading().unwrap_or("misc").to_owned(),
        short: arg.get_short(),
        kind: kind(arg),
        default: shown_default(arg),
        usage,
        name,
    })
}

/// The type of a flag in pflag's words; `None` for a switch.
fn kind(arg: &Arg) -> Option<String> {
    if is_switch(arg) {
        return None;
    }
    let id = arg.get_id().as_str().to_uppercase();
    if let Some(name) = arg.get_value_names().and_then(<[_]>::first).filter(|name| name.as_str() != id) {
        return Some(name.to_string());
    }
    if is_list(arg) {
        return Some("strings".into());
    }
    let parsed = arg.get_value_parser().type_id();
    let is = |id: TypeId| parsed == id;
    let kind = if is(TypeId::of::<Duration>()) {
        "duration"
    } else if is(TypeId::of::<i32>()) || is(TypeId::of::<u32>()) {
        "int32"
    } else if is(TypeId::of::<f32>()) {
        "float32"
    } else if is(TypeId::of::<f64>()) {
        "float"
    } else if is(TypeId::of::<IpAddr>()) {
        "ip"
    } else if [TypeId::of::<usize>(), TypeId::of::<u16>(), TypeId::of::<u64>(), TypeId::of::<i64>()].into_iter().any(is)
    {
        "int"
    } else {
        "string"
    };
    Some(kind.into())
}

/// The default of a flag as text, in Go's form.
pub(crate) fn default_text(arg: &Arg) -> String {
    let values: Vec<_> = arg.get_default_values().iter().map(|value| value.to_string_lossy()).collect();
    let text = values.join(",");
    if is_list(arg) {
        return format!("[{text}]");
    }
    if arg.get_value_parser().type_id() == TypeId::of::<Duration>() {
        return duration::parse(&text).map_or(text, duration::format);
    }
    text
}

/// The default as the help shows it; zero values are not shown.
fn shown_default(arg: &Arg) -> Option<String> {
    let text = default_text(arg);
    if ["", "0", "0s", "false", "[]"].contains(&text.as_str()) {
        return None;
    }
    let quoted = kind(arg).is_some_and(|kind| kind == "string");
    Some(if quoted { format!("{text:?}") } else { text })
}

fn layout(section: &[&Line], width: usize) -> String {
    let heads: Vec<String> = section
        .iter()
        .map(|line| {
            let short = line.short.map_or_else(|| "      ".to_owned(), |short| format!("  -{short}, "));
            let kind = line.kind.as_ref().map_or_else(String::new, |kind| format!(" {kind}"));
            format!("{short}--{}{kind}", line.name)
        })
        .collect();
    let longest = heads.iter().map(|head| head.chars().count()).max().unwrap_or(0);
    let mut text = String::new();
    for (line, head) in section.iter().zip(&heads) {
        let default = line.default.as_ref().map_or_else(String::new, |default| format!(" (default {default})"));
        let usage = format!("{}{default}", line.usage);
        if width > NARROWEST {
            let body = wrap(INDENT, width, &usage);
            writeln!(text, "{head}\n{:INDENT$}{body}", "")
        } else {
            let column = longest + 3;
            let body = usage.replace('\n', &format!("\n{:column$}", ""));
            writeln!(text, "{head:column$}{body}")
        }
        .expect("writing to a String cannot fail");
    }
    text
}

/// Breaks text into lines of at most `width` columns; all but the first are indented.
fn wrap(indent: usize, width: usize, text: &str) -> String {
    let room = width.saturating_sub(indent).max(NARROWEST);
    let mut lines = Vec::new();
    for paragraph in text.lines() {
        let mut current = String::new();
        for word in paragraph.split_whitespace() {
            if !current.is_empty() && current.chars().count() + 1 + word.chars().count() > room {
                lines.push(std::mem::take(&mut current));
            }
            if !current.is_empty() {
                current.push(' ');
            }
            current.push_str(word);
        }
        lines.push(current);
    }
    lines.join(&format!("\n{:indent$}", ""))
}
