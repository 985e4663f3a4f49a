//! Splits a command line into flags and values, as Go's pflag does.

use std::collections::BTreeMap;

use quarterdeck_api::nearest::nearest;

use super::known::{self, KnownFlag};

/// How a flag takes its value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Arity {
    /// `--flag` alone means true; another value must follow an equals sign.
    Switch,
    /// A value follows an equals sign or as the next argument.
    Value,
}

/// What the reader must know about the flags that exist.
#[derive(Clone, Debug, Default)]
pub(crate) struct Vocabulary {
    /// Arity by long name.
    pub(crate) flags: BTreeMap<String, Arity>,
    /// Long names by letter.
    pub(crate) letters: BTreeMap<char, String>,
    /// Whether upstream's flags that this build lacks are accepted.
    pub(crate) upstream: bool,
}

/// What a command line says.
#[derive(Clone, Debug, Default)]
pub(crate) struct Given {
    /// Values of each flag, in the order given.
    pub(crate) values: BTreeMap<String, Vec<String>>,
    /// Flags that are accepted and ignored, each once, in the order given.
    pub(crate) ignored: Vec<&'static KnownFlag>,
    /// Mistakes, each a line for the operator.
    pub(crate) errors: Vec<String>,
    /// `--help` or `-h` was given.
    pub(crate) help: bool,
    /// The value of `--version`, if it was given.
    pub(crate) version: Option<String>,
}

impl Vocabulary {
    /// Reads the arguments that follow the program's name.
    pub(crate) fn read(&self, args: impl IntoIterator<Item = String>) -> Given {
        let mut given = Given::default();
        let mut args = args.into_iter();
        while let Some(arg) = args.next() {
            if arg == "--" {
                args.by_ref().for_each(|rest| given.positional(&rest));
            } else if let Some(flag) = arg.strip_prefix("--") {
                self.long(flag, &mut args, &mut given);
            } else if arg.len() > 1 && arg.starts_with('-') {
                self.short(&arg, &mut args, &mut given);
            } else {
                given.positional(&arg);
            }
        }
        given
    }

    fn long(&self, flag: &str, args: &mut impl Iterator<Item = String>, given: &mut Given) {
        let (name, value) = match flag.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (flag, None),
        };
        if name.is_empty() || name.starts_with('-') {
            given.errors.push(format!("bad flag syntax: --{flag}"));
            return;
        }
        self.flag(&name.replace('_', "-"), value, args, given);
    }

    /// `-v 2`, `-v=2`, `-v2`, and letters of switches run together.
    fn short(&self, arg: &str, args: &mut impl Iterator<Item = String>, given: &mut Given) {
        let mut rest = &arg[1..];
        while let Some(letter) = rest.chars().next() {
            rest = &rest[letter.len_utf8()..];
            if letter == 'h' {
                given.help = true;
                continue;
            }
            let Some(name) = self.letters.get(&letter) else {
                given.errors.push(format!("unknown shorthand flag: {letter:?} in {arg}"));
                return;
            };
            let value = match rest.strip_prefix('=') {
                Some(value) => Some(value.to_owned()),
                None if self.flags.get(name) == Some(&Arity::Value) && !rest.is_empty() => Some(rest.to_owned()),
                None => None,
            };
            let ends = value.is_some() || rest.is_empty();
            self.flag(name, value, args, given);
            if ends {
                return;
            }
        }
    }

    fn flag(&self, name: &str, value: Option<String>, args: &mut impl Iterator<Item = String>, given: &mut Given) {
        match name {
            "help" => {
                given.help = true;
                return;
            }
            "version" => {
                given.version = Some(value.unwrap_or_else(|| "true".to_owned()));
                return;
            }
            _ => {}
        }
        let arity = self.flags.get(name).copied();
        let ignored = known::find(name).filter(|_| arity.is_none() && self.upstream);
        let arity = match (arity, ignored) {
            (Some(arity), _) => arity,
            (None, Some(flag)) if flag.switch => Arity::Switch,
            (None, Some(_)) => Arity::Value,
            (None, None) => {
                given.errors.push(self.unknown(name));
                return;
            }
        };
        let value = match (value, arity) {
            (Some(value), _) => value,
            (None, Arity::Switch) => "true".to_owned(),
            (None, Arity::Value) => match args.next() {
                Some(value) => value,
                None => {
                    given.errors.push(format!("flag needs an argument: --{name}"));
                    return;
                }
            },
        };
        if let Some(flag) = ignored {
            if !given.ignored.iter().any(|seen| seen.name == flag.name) {
                given.ignored.push(flag);
            }
            return;
        }
        let value = match arity {
            Arity::Value => value,
            Arity::Switch => match parse_bool(&value) {
                Some(on) => on.to_string(),
                None => {
                    given
                        .errors
                        .push(format!("invalid argument {value:?} for \"--{name}\" flag: must be true or false"));
                    return;
                }
            },
        };
        given.values.entry(name.to_owned()).or_default().push(value);
    }

    fn unknown(&self, name: &str) -> String {
        let ours = self.flags.keys().cloned().chain(["help".to_owned(), "version".to_owned()]);
        let upstream = known::names().filter(|_| self.upstream).map(str::to_owned);
        let candidates: Vec<String> = ours.chain(upstream).collect();
        match nearest(name, candidates.iter().map(String::as_str)) {
            Some(near) => format!("unknown flag: --{name} (did you mean --{near}?)"),
            None => format!("unknown flag: --{name}"),
        }
    }
}

impl Given {
    fn positional(&mut self, argument: &str) {
        self.errors.push(format!("unexpected argument {argument:?}: this command takes flags only"));
    }
}

/// Go's `strconv.ParseBool`.
fn parse_bool(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "TRUE" | "true" | "True" => Some(true),
        "0" | "f" | "F" | "FALSE" | "false" | "False" => Some(false),
        _ => None,
    }
}
