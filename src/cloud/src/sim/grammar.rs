//! Faults in words: `loadbalancers.ensure=hang:at=after,times=1`.

use std::str::FromStr;
use std::time::Duration;

use serde::Deserialize as _;
use serde::de::IntoDeserializer as _;
use serde::de::value::{Error as Words, StrDeserializer};

use super::clock::millis;
use super::faults::{FailKind, Fault, Moment, Rule};

/// What is wrong with a fault in words.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("fault {text:?}: {problem}; as in loadbalancers.ensure=delay:ms=2s,times=1")]
pub struct BadFault {
    text: String,
    problem: String,
}

/// The options that follow the kind of a fault.
#[derive(Default)]
struct Options {
    at: Moment,
    error: Option<FailKind>,
    time: Option<u64>,
    number: Option<usize>,
    word: Option<String>,
    subject: String,
    skip: u32,
    times: Option<u32>,
}

impl FromStr for Rule {
    type Err = BadFault;

    fn from_str(text: &str) -> Result<Self, BadFault> {
        parse(text).map_err(|problem| BadFault { text: text.to_owned(), problem })
    }
}

fn parse(text: &str) -> Result<Rule, String> {
    let (method, rest) = text.split_once('=').ok_or("it has no =")?;
    let (kind, options) = rest.split_once(':').unwrap_or((rest, ""));
    let options = read(options)?;
    let time = || options.time.ok_or(format!("{kind} needs a time"));
    let number = || options.number.ok_or(format!("{kind} needs a number"));
    let word = || options.word.clone().ok_or(format!("{kind} needs a name"));
    let fault = match kind {
        "hang" => Fault::Hang { at: options.at },
        "hold" => Fault::Hold { at: options.at },
        "delay" => Fault::Delay { ms: time()?, at: options.at },
        "fail" => {
            let error = options.error.ok_or("fail needs error=KIND")?;
            Fault::Fail { error, retry_after_ms: options.time, at: options.at }
        }
        "throttle" => Fault::Fail { error: FailKind::Throttled, retry_after_ms: options.time, at: Moment::Before },
        "lost-reply" => Fault::Fail { error: FailKind::Unavailable, retry_after_ms: None, at: Moment::After },
        "fail-at-step" => Fault::FailAtStep { step: number()? },
        "read-lag" => Fault::ReadLag { ms: time()? },
        "stuck-pending" => Fault::StuckPending,
        "error-lb" => Fault::ErrorLb,
        "partial" => Fault::Partial { keep: number()? },
        "empty" => Fault::Partial { keep: 0 },
        "wrong-account" => Fault::WrongAccount { account: word()? },
        "block-thread" => Fault::BlockThread { ms: time()? },
        "poison-node" => Fault::PoisonNode { name: word()? },
        "panic" => Fault::Panic,
        other => return Err(format!("{other:?} is no kind of fault")),
    };
    Ok(Rule { method: method.to_owned(), fault, subject: options.subject, skip: options.skip, times: options.times })
}

fn read(text: &str) -> Result<Options, String> {
    let mut options = Options::default();
    for option in text.split(',').filter(|option| !option.is_empty()) {
        let (key, value) = option.split_once('=').ok_or_else(|| format!("option {option:?} has no ="))?;
        let bad = |_| format!("{value:?} is no {key}");
        match key {
            "at" => {
                options.at =
                    Moment::deserialize(word(value)).map_err(|_| format!("at is before or after, not {value:?}"))?
            }
            "error" => {
                options.error = Some(FailKind::deserialize(word(value)).map_err(|_| format!("{value:?} is no error"))?);
            }
            "ms" | "time" | "retry-after" => options.time = Some(time(value).ok_or(format!("{value:?} is no time"))?),
            "step" | "keep" => options.number = Some(value.parse().map_err(bad)?),
            "account" | "name" => options.word = Some(value.to_owned()),
            "subject" => value.clone_into(&mut options.subject),
            "skip" => options.skip = value.parse().map_err(bad)?,
            "times" => options.times = Some(value.parse().map_err(bad)?),
            _ => return Err(format!("there is no option {key:?}")),
        }
    }
    Ok(options)
}

fn word(value: &str) -> StrDeserializer<'_, Words> {
    value.into_deserializer()
}

/// A time in words: `250`, `250ms`, `2s` or `3m`; plain numbers are ms.
fn time(text: &str) -> Option<u64> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let number: u64 = digits.parse().ok()?;
    Some(match &text[digits.len()..] {
        "" | "ms" => number,
        "s" => millis(Duration::from_secs(number)),
        "m" => millis(Duration::from_secs(number.checked_mul(60)?)),
        _ => return None,
    })
}
