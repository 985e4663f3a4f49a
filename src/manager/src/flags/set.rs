//! The flags that exist, and what a command line makes of them.

use std::any::TypeId;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;

use clap::builder::OsStr;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches};
use quarterdeck_runtime::controller::Descriptor;

use super::controllers::{ControllerTable, Selection};
use super::help;
use super::options::{self, Options};
use super::token::{Arity, Given, Vocabulary};

/// Owner of the manager's own flags.
const MANAGER: &str = "manager";

/// The program whose command line this is.
#[derive(Clone, Debug)]
pub struct Program {
    /// Name, as typed; also the default name of its Lease.
    pub name: String,
    /// Version, as `--version` prints it.
    pub version: String,
    /// What the program is, for `--help`; one paragraph.
    pub about: String,
    /// Its controllers.
    pub controllers: Vec<Descriptor>,
    /// Whether it stands in for kube-controller-manager, so that upstream's controller names and
    /// flags are accepted.
    pub upstream: bool,
}

/// Flags that belong together.
#[derive(Clone)]
pub(crate) struct Group {
    owner: String,
    pub(crate) command: Command,
    check: fn(&ArgMatches) -> Result<(), clap::Error>,
}

/// A word that may stand in place of flags, such as `install`.
#[derive(Clone)]
pub(crate) struct Subcommand {
    pub(crate) name: &'static str,
    pub(crate) about: &'static str,
    group: Group,
}

/// The flags that exist.
#[derive(Clone)]
pub struct FlagSet {
    pub(crate) program: Program,
    pub(crate) table: ControllerTable,
    pub(crate) groups: Vec<Group>,
    pub(crate) subcommands: Vec<Subcommand>,
}

/// What the command line asks for.
#[derive(Debug)]
pub enum Outcome {
    /// Run the manager.
    Run(Box<Parsed>),
    /// Run a subcommand.
    Command(&'static str, Box<Parsed>),
    /// Print this to standard output and end well.
    Print(String),
}

/// A command line that made sense.
#[derive(Clone, Debug)]
pub struct Parsed {
    /// The manager's own flags.
    pub options: Options,
    /// Which controllers run.
    pub selection: Selection,
    /// What the operator should know, each once; log these at start.
    pub warnings: Vec<String>,
    matches: BTreeMap<String, ArgMatches>,
    values: BTreeMap<String, String>,
}

/// A command line that makes no sense; prints every mistake, and how to get help.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct UsageError {
    /// Name of the program.
    pub program: String,
    /// The mistakes.
    pub errors: Vec<String>,
}

impl fmt::Display for UsageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for error in &self.errors {
            writeln!(f, "Error: {error}")?;
        }
        write!(f, "See '{} --help' for usage.", self.program)
    }
}

impl Subcommand {
    /// The flags that only this subcommand has.
    pub(crate) fn arguments(&self) -> impl Iterator<Item = &Arg> {
        self.group.command.get_arguments()
    }
}

impl FlagSet {
    /// The flags that every manager has.
    #[must_use]
    pub fn new(program: Program) -> Self {
        let table = ControllerTable::new(program.controllers.clone(), program.upstream);
        let mut manager = group::<Options>(MANAGER, None);
        let lease = OsStr::from(program.name.clone());
        manager.command = manager.command.mut_arg("leader_elect_resource_name", |arg| arg.default_value(lease));
        Self { program, table, groups: vec![manager], subcommands: Vec::new() }
    }

    /// Adds the flags of a controller. Those without a heading stand under its name.
    #[must_use]
    pub fn with<A: Args>(mut self, owner: &str) -> Self {
        self.groups.push(group::<A>(owner, Some(owner)));
        self
    }

    /// Adds a subcommand, which takes all flags, and those of `A` besides.
    #[must_use]
    pub fn subcommand<A: Args>(mut self, name: &'static str, about: &'static str) -> Self {
        self.subcommands.push(Subcommand { name, about, group: group::<A>(name, Some(name)) });
        self
    }

    /// Which controllers there are.
    #[must_use]
    pub fn table(&self) -> &ControllerTable {
        &self.table
    }

    /// The text of `--help`, wrapped at `width` columns, or not at all if that is 0.
    #[must_use]
    pub fn help(&self, width: usize) -> String {
        help::render(self, None, width)
    }

    /// Reads the arguments that follow the program's name; help is wrapped at `width` columns.
    ///
    /// # Errors
    /// When the command line makes no sense; every mistake is named.
    pub fn parse<I>(&self, args: I, width: usize) -> Result<Outcome, UsageError>
    where
        I: IntoIterator,
        I::Item: Into<OsString>,
    {
        let mut errors = Vec::new();
        let mut words = Vec::new();
        for arg in args {
            match arg.into().into_string() {
                Ok(word) => words.push(word),
                Err(raw) => errors.push(format!("argument {raw:?} is not valid UTF-8")),
            }
        }
        if words.first().is_some_and(|word| word == "help") {
            return Ok(Outcome::Print(self.help(width)));
        }
        let subcommand = self.subcommands.iter().find(|s| words.first().is_some_and(|word| word == s.name));
        let groups: Vec<&Group> = self.groups.iter().chain(subcommand.map(|s| &s.group)).collect();
        let given = vocabulary(&groups, self.program.upstream).read(words.into_iter().skip(subcommand.iter().count()));
        if given.help {
            return Ok(Outcome::Print(help::render(self, subcommand, width)));
        }
        errors.extend(given.errors.iter().cloned());
        let matches = read_groups(&groups, &given, &mut errors);
        let options = matches
            .get(MANAGER)
            .and_then(|matches| Options::from_arg_matches(matches).ok())
            .filter(|_| errors.is_empty());
        let Some(options) = options else { return Err(self.usage(errors)) };
        if let Some(version) = given.version.as_deref().filter(|v| *v != "false") {
            return Ok(Outcome::Print(self.version(version)));
        }
        errors.extend(options.validate());
        let selection =
            match self.table.select(&options::elements(&options.generic.controllers)) {
                Ok(selection) if errors.is_empty() => selection,
                Ok(_) => return Err(self.usage(errors)),
                Err(unknown) => {
                    errors.extend(unknown.names.iter().map(|name| {
                        format!("--controllers: {}", super::UnknownControllers { names: vec![name.clone()] })
                    }));
                    return Err(self.usage(errors));
                }
            };
        if options.misc.print_kcm_controllers {
            return Ok(Outcome::Print(format!("{}\n", self.table.complement(&selection))));
        }
        let warnings = (given.ignored.iter().map(|flag| flag.warning()))
            .chain(selection.warnings().iter().cloned())
            .chain(options.warnings())
            .collect();
        let values = values(&groups, &given);
        let parsed = Box::new(Parsed { options, selection, warnings, matches, values });
        Ok(match subcommand {
            Some(subcommand) => Outcome::Command(subcommand.name, parsed),
            None => Outcome::Run(parsed),
        })
    }

    fn usage(&self, errors: Vec<String>) -> UsageError {
        UsageError { program: self.program.name.clone(), errors }
    }

    fn version(&self, form: &str) -> String {
        let Program { name, version, .. } = &self.program;
        match form {
            "raw" => format!("{name} version={version} os={} arch={}\n", std::env::consts::OS, std::env::consts::ARCH),
            _ => format!("{name} {version}\n"),
        }
    }
}

impl Parsed {
    /// The flags of one owner, as they were added with [`FlagSet::with`] or [`FlagSet::subcommand`].
    ///
    /// # Panics
    /// When `A` was not added under this owner.
    #[must_use]
    pub fn get<A: Args>(&self, owner: &str) -> A {
        let matches = self.matches.get(owner).expect("only flags that were added are asked for");
        A::from_arg_matches(matches).expect("the flags of each group were read once when parsing")
    }

    /// Every flag with its value, by name, for `/flagz`.
    #[must_use]
    pub fn values(&self) -> &BTreeMap<String, String> {
        &self.values
    }
}

/// The flags of `A`, changed so that each takes its value as `--flag=value`.
fn group<A: Args>(owner: &str, heading: Option<&str>) -> Group {
    let command = Command::new(owner.to_owned())
        .no_binary_name(true)
        .disable_help_flag(true)
        .disable_version_flag(true)
        .disable_help_subcommand(true);
    let command = A::augment_args(command).mut_args(|arg| {
        let arg = match (arg.get_help_heading(), heading) {
            (None, Some(heading)) => arg.help_heading(heading.to_owned()),
            _ => arg,
        };
        match arg.get_action() {
            ArgAction::SetTrue => {
                let default = if arg.get_default_values().is_empty() { Some("false") } else { None };
                let arg = arg.action(ArgAction::Set).num_args(1);
                default.into_iter().fold(arg, clap::Arg::default_value)
            }
            ArgAction::Set | ArgAction::Append => arg.allow_hyphen_values(true),
            _ => arg,
        }
    });
    Group { owner: owner.to_owned(), command, check: |matches| A::from_arg_matches(matches).map(drop) }
}

/// Whether a flag may stand without a value.
pub(crate) fn is_switch(arg: &Arg) -> bool {
    matches!(arg.get_action(), ArgAction::SetTrue) || arg.get_value_parser().type_id() == TypeId::of::<bool>()
}

/// Whether a flag holds a list that is written with commas.
pub(crate) fn is_list(arg: &Arg) -> bool {
    matches!(arg.get_action(), ArgAction::Append) && arg.get_value_delimiter() == Some(',')
}

fn vocabulary(groups: &[&Group], upstream: bool) -> Vocabulary {
    let mut vocabulary = Vocabulary { upstream, ..Vocabulary::default() };
    for arg in groups.iter().flat_map(|group| group.command.get_arguments()) {
        let Some(long) = arg.get_long() else { continue };
        let arity = if is_switch(arg) { Arity::Switch } else { Arity::Value };
        vocabulary.flags.insert(long.to_owned(), arity);
        for alias in arg.get_all_aliases().unwrap_or_default() {
            vocabulary.flags.insert(alias.to_owned(), arity);
        }
        if let Some(short) = arg.get_short() {
            vocabulary.letters.insert(short, long.to_owned());
        }
    }
    vocabulary
}

/// What was given for a flag under its name or an alias of it.
fn given_for<'a>(arg: &Arg, given: &'a Given) -> Vec<&'a str> {
    let aliases = arg.get_all_aliases().unwrap_or_default();
    arg.get_long()
        .into_iter()
        .chain(aliases)
        .filter_map(|name| given.values.get(name))
        .flatten()
        .map(String::as_str)
        .collect()
}

/// The flags of a group as clap is to read them.
fn tokens(group: &Group, given: &Given) -> BTreeMap<String, Vec<String>> {
    let mut tokens = BTreeMap::new();
    for arg in group.command.get_arguments() {
        let values = given_for(arg, given);
        let (Some(long), Some(last)) = (arg.get_long(), values.last()) else { continue };
        let token = |value: &str| format!("--{long}={value}");
        let these = if is_list(arg) {
            let filled: Vec<&str> = values.into_iter().filter(|value| !value.is_empty()).collect();
            vec![token(&filled.join(","))]
        } else if matches!(arg.get_action(), ArgAction::Append) {
            values.into_iter().map(token).collect()
        } else {
            vec![token(last)]
        };
        tokens.insert(long.to_owned(), these);
    }
    tokens
}

/// Reads each group; a bad value does not hide the next one.
fn read_groups(groups: &[&Group], given: &Given, errors: &mut Vec<String>) -> BTreeMap<String, ArgMatches> {
    let mut read = BTreeMap::new();
    for group in groups {
        let mut tokens = tokens(group, given);
        loop {
            let line: Vec<&String> = tokens.values().flatten().collect();
            let result = group.command.clone().try_get_matches_from(line);
            match result.and_then(|matches| (group.check)(&matches).map(|()| matches)) {
                Ok(matches) => {
                    read.insert(group.owner.clone(), matches);
                    break;
                }
                Err(error) => {
                    let (flag, message) = explain(&error);
                    if !errors.contains(&message) {
                        errors.push(message);
                    }
                    // Go on without the flag that was wrong, to find the others.
                    if flag.is_none_or(|flag| tokens.remove(&flag).is_none()) {
                        break;
                    }
                }
            }
        }
    }
    read
}

/// The flag that an error is about, and the error in pflag's words.
fn explain(error: &clap::Error) -> (Option<String>, String) {
    let context = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text.clone()),
        _ => None,
    };
    let flag = context(ContextKind::InvalidArg).map(|arg| {
        let name = arg.trim_start_matches("--");
        name.split([' ', '=']).next().unwrap_or(name).to_owned()
    });
    let value = context(ContextKind::InvalidValue);
    match (error.kind(), &flag, value) {
        (ErrorKind::ValueValidation, Some(flag), Some(value)) => {
            let reason = std::error::Error::source(error).map_or_else(String::new, |source| format!(": {source}"));
            (Some(flag.clone()), format!("invalid argument {value:?} for \"--{flag}\" flag{reason}"))
        }
        (ErrorKind::InvalidValue, Some(flag), Some(value)) => {
            let valid = match error.get(ContextKind::ValidValue) {
                Some(ContextValue::Strings(valid)) if !valid.is_empty() => {
                    format!(": must be one of {}", valid.join(", "))
                }
                _ => ": must not be empty".to_owned(),
            };
            (Some(flag.clone()), format!("invalid argument {value:?} for \"--{flag}\" flag{valid}"))
        }
        _ => {
            let text = error.to_string();
            let line = text.lines().next().unwrap_or_default();
            (flag, line.trim_start_matches("error: ").to_owned())
        }
    }
}

/// Every flag with its value as text: the one given, or the default.
fn values(groups: &[&Group], given: &Given) -> BTreeMap<String, String> {
    let mut values = BTreeMap::new();
    for arg in groups.iter().flat_map(|group| group.command.get_arguments()) {
        let Some(long) = arg.get_long() else { continue };
        let stated = given_for(arg, given);
        let text = match stated.last() {
            Some(_) if is_list(arg) => {
                format!("[{}]", stated.iter().filter(|s| !s.is_empty()).copied().collect::<Vec<_>>().join(","))
            }
            Some(last) => (*last).to_owned(),
            None => help::default_text(arg),
        };
        values.insert(long.to_owned(), text);
    }
    values
}
