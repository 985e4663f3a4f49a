//! Values of flags that hold lists.

use std::collections::BTreeMap;

use anyhow::{Context as _, bail, ensure};

/// The items of a comma separated list, trimmed; empty ones are refused.
fn items<'a>(flag: &'a str, text: &'a str) -> impl Iterator<Item = anyhow::Result<&'a str>> {
    let all = (!text.trim().is_empty()).then(|| text.split(','));
    all.into_iter().flatten().map(move |item| {
        let item = item.trim();
        ensure!(!item.is_empty(), "{flag} {text:?}: there is nothing between two commas");
        Ok(item)
    })
}

/// `name:version,…`. A version may itself hold commas (`a:>=1.0,<2.0,b:*`): what has no colon and begins
/// like a constraint goes on with the one before.
pub(super) fn dependencies(text: &str) -> anyhow::Result<BTreeMap<String, String>> {
    let mut found = BTreeMap::new();
    let mut last: Option<String> = None;
    for item in items("--deps", text) {
        let item = item?;
        if let Some((name, version)) = item.split_once(':') {
            let (name, version) = (name.trim(), version.trim());
            ensure!(
                !name.is_empty() && !version.is_empty() && !version.contains(':'),
                "--deps {item:?}: write pkgName:pkgVersion"
            );
            ensure!(found.insert(name.to_owned(), version.to_owned()).is_none(), "--deps: {name:?} is given twice");
            last = Some(name.to_owned());
        } else {
            let goes_on = item.starts_with(['<', '>', '=', '!', '~', '^']);
            let before = last.as_ref().and_then(|name| found.get_mut(name)).filter(|_| goes_on);
            let version: &mut String = before.with_context(|| format!("--deps {item:?}: write pkgName:pkgVersion"))?;
            version.push_str(", ");
            version.push_str(item);
        }
    }
    Ok(found)
}

/// `name=value,…`, of several flags. A value may hold `=`; one that holds a comma needs a flag of its
/// own, where what has no `=` goes on with the value before.
pub(super) fn params(flags: &[String]) -> anyhow::Result<BTreeMap<String, String>> {
    let mut found: BTreeMap<String, String> = BTreeMap::new();
    for text in flags {
        let mut last: Option<String> = None;
        for item in text.split(',').filter(|_| !text.trim().is_empty()) {
            match (item.split_once('='), &last) {
                (Some((name, value)), _) => {
                    let name = name.trim();
                    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
                    ensure!(
                        !name.is_empty() && name.chars().all(plain),
                        "--params {item:?}: a name has letters, digits, '-' and '_'"
                    );
                    ensure!(
                        found.insert(name.to_owned(), value.to_owned()).is_none(),
                        "--params: {name:?} is given twice"
                    );
                    last = Some(name.to_owned());
                }
                (None, Some(name)) if !item.trim().is_empty() => {
                    let value = found.get_mut(name).expect("it was inserted above");
                    value.push(',');
                    value.push_str(item);
                }
                _ => bail!("--params {item:?}: write name=value"),
            }
        }
    }
    Ok(found)
}

/// Names of Secrets.
pub(super) fn secrets(text: &str) -> anyhow::Result<Vec<String>> {
    items("--secrets", text)
        .map(|item| {
            let name = item?;
            let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '.');
            ensure!(
                name.chars().all(plain) && name.len() <= 253,
                "--secrets {name:?}: a name has lower case letters, digits, '-' and '.'"
            );
            Ok(name.to_owned())
        })
        .collect()
}

/// `key:value,…`; `key=value`, as kubectl writes it, will do too.
pub(super) fn selector(text: &str) -> anyhow::Result<BTreeMap<String, String>> {
    let mut found = BTreeMap::new();
    for item in items("--selector", text) {
        let item = item?;
        let (key, value) =
            item.split_once([':', '=']).with_context(|| format!("--selector {item:?}: write key:value"))?;
        ensure!(!key.is_empty() && !value.contains([':', '=']), "--selector {item:?}: write key:value");
        ensure!(found.insert(key.to_owned(), value.to_owned()).is_none(), "--selector: {key:?} is given twice");
    }
    Ok(found)
}
