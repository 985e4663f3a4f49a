//! kubectl's command line, as far as it is done natively: `apply`, `create` and `delete` of input
//! artifacts. References are words or parts of words here; values come later, so that none can be
//! taken for an option.

use super::program::Cascade;

/// What a kubectl command does with its files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verb {
    Apply,
    Create,
    Delete,
}

/// One kubectl command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Kubectl {
    pub(super) verb: Verb,
    /// Paths of the files, references not resolved.
    pub(super) files: Vec<String>,
    /// `-n`, references not resolved.
    pub(super) namespace: Option<String>,
    pub(super) cascade: Cascade,
    /// Whether a delete waits until its objects are gone.
    pub(super) wait: bool,
}

/// The kubectl commands that a container's command line is, if it is nothing else.
pub(super) fn kubectl(command: &[String], args: &[String]) -> Option<Vec<Kubectl>> {
    let words: Vec<&str> = command.iter().chain(args).map(String::as_str).collect();
    match *words.as_slice() {
        [shell, flags, script] if is_shell(shell) && is_run_flag(flags) => script_commands(script),
        [shell, set, flags, script] if is_shell(shell) && set == "-e" && is_run_flag(flags) => script_commands(script),
        _ => Some(vec![one(&words)?]),
    }
}

/// Whether a word names a shell.
pub(super) fn is_shell(word: &str) -> bool {
    let base = word.rsplit('/').next().unwrap_or_default();
    ["sh", "bash", "ash", "dash", "ksh", "zsh", "busybox"].contains(&base)
}

/// `-c`, `-ec`, `-exc`, `-euo…` and the like.
fn is_run_flag(word: &str) -> bool {
    word.strip_prefix('-').is_some_and(|flags| flags.ends_with('c') && flags.bytes().all(|b| b"eluxc".contains(&b)))
}

fn script_commands(script: &str) -> Option<Vec<Kubectl>> {
    let words = shell_words(script)?;
    words
        .split(|word| matches!(word, Word::And))
        .map(|command| {
            let words: Option<Vec<&str>> = command
                .iter()
                .map(|word| match word {
                    Word::Plain(text) => Some(text.as_str()),
                    Word::And => None,
                })
                .collect();
            one(&words?)
        })
        .collect()
}

enum Word {
    Plain(String),
    And,
}

/// The words of a script that is nothing but simple commands joined by `&&`.
fn shell_words(script: &str) -> Option<Vec<Word>> {
    let mut words = Vec::new();
    let mut rest = script.trim_matches([' ', '\t', '\n', '\r']);
    while !rest.is_empty() {
        if let Some(after) = rest.strip_prefix("&&") {
            words.push(Word::And);
            rest = after.trim_start_matches([' ', '\t', '\n', '\r']);
            continue;
        }
        let (word, after) = shell_word(rest)?;
        words.push(Word::Plain(word));
        rest = after.trim_start_matches([' ', '\t']);
        // A line that goes on.
        while let Some(after) = rest.strip_prefix("\\\n") {
            rest = after.trim_start_matches([' ', '\t']);
        }
    }
    Some(words)
}

/// One word of plain, quoted and referring parts; none if the shell would do anything else with it.
fn shell_word(text: &str) -> Option<(String, &str)> {
    let mut word = String::new();
    let mut rest = text;
    loop {
        if rest.starts_with("{{") {
            let token = super::token::token_at(rest, 0)?;
            word.push_str(&rest[..token.end]);
            rest = &rest[token.end..];
            continue;
        }
        let Some(first) = rest.chars().next() else { break };
        match first {
            '\'' | '"' => {
                let inner = &rest[1..];
                let end = inner.find(first)?;
                // What a shell would expand or unescape is left to a shell.
                if first == '"' && inner[..end].contains(['$', '`', '\\', '!']) {
                    return None;
                }
                word.push_str(&inner[..end]);
                rest = &inner[end + 1..];
            }
            ' ' | '\t' => break,
            '&' if rest.starts_with("&&") => break,
            c if super::substitute::is_plain(c) => {
                word.push(c);
                rest = &rest[c.len_utf8()..];
            }
            _ => return None,
        }
    }
    (!word.is_empty()).then_some((word, rest))
}

/// One command's words.
fn one(words: &[&str]) -> Option<Kubectl> {
    let (program, rest) = words.split_first()?;
    if program.rsplit('/').next() != Some("kubectl") {
        return None;
    }
    let mut verb = None;
    let mut out =
        Kubectl { verb: Verb::Apply, files: Vec::new(), namespace: None, cascade: Cascade::Background, wait: true };
    let mut words = rest.iter().copied();
    while let Some(word) = words.next() {
        let Some(flag) = word.strip_prefix('-') else {
            // Objects named on the command line are no artifact.
            if verb.is_some() {
                return None;
            }
            verb = Some(match word {
                "apply" => Verb::Apply,
                "create" => Verb::Create,
                "delete" => Verb::Delete,
                _ => return None,
            });
            continue;
        };
        let (name, mut value) = match flag.strip_prefix('-') {
            Some(long) => match long.split_once('=') {
                Some((name, value)) => (name, Some(value)),
                None => (long, None),
            },
            None => match flag.split_at_checked(1)? {
                (short @ ("n" | "f" | "o"), "") => (short, None),
                (short @ ("n" | "f" | "o"), value) => (short, Some(value.strip_prefix('=').unwrap_or(value))),
                _ => return None,
            },
        };
        let takes_value = [
            "n",
            "namespace",
            "f",
            "filename",
            "o",
            "output",
            "field-manager",
            "timeout",
            "request-timeout",
            "grace-period",
        ];
        if value.is_none() && takes_value.contains(&name) {
            // A word that looks like an option where a value belongs is a slip.
            value = Some(words.next().filter(|value| !value.starts_with('-'))?);
        }
        match (name, value) {
            ("n" | "namespace", Some(value)) => out.namespace = Some(value.to_owned()),
            ("f" | "filename", Some(value)) => out.files.extend(value.split(',').map(str::to_owned)),
            ("cascade", Some("background" | "true")) => out.cascade = Cascade::Background,
            ("cascade", Some("foreground")) => out.cascade = Cascade::Foreground,
            ("cascade", Some("orphan" | "false")) => out.cascade = Cascade::Orphan,
            ("wait", None | Some("true")) => out.wait = true,
            ("wait", Some("false")) => out.wait = false,
            // These change nothing in what is done natively.
            ("ignore-not-found" | "overwrite" | "record" | "save-config", None | Some("true" | "false"))
            | ("server-side" | "force-conflicts", None | Some("true" | "false"))
            | ("o" | "output" | "field-manager" | "validate" | "timeout" | "request-timeout", Some(_))
            | ("validate", None) => {}
            _ => return None,
        }
    }
    out.verb = verb?;
    (!out.files.is_empty() && !out.files.iter().any(String::is_empty)).then_some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &[&str]) -> Vec<String> {
        text.iter().map(|word| (*word).to_owned()).collect()
    }

    fn sh(script: &str) -> Option<Vec<Kubectl>> {
        kubectl(&words(&["sh", "-c"]), &words(&[script]))
    }

    fn plain(verb: Verb, file: &str) -> Kubectl {
        let (files, cascade) = (vec![file.to_owned()], Cascade::Background);
        Kubectl { verb, files, namespace: None, cascade, wait: true }
    }

    #[test]
    fn the_usual_spellings_are_understood() {
        let apply = Some(vec![plain(Verb::Apply, "/tmp/doc")]);
        assert_eq!(sh("kubectl apply -f /tmp/doc"), apply);
        assert_eq!(sh("  kubectl   apply \\\n  -f '/tmp/doc'\n"), apply);
        assert_eq!(sh("/usr/bin/kubectl apply --filename=\"/tmp/doc\" --server-side --validate=false -o yaml"), apply);
        assert_eq!(kubectl(&words(&["kubectl", "apply", "-f", "/tmp/doc"]), &[]), apply);
        assert_eq!(kubectl(&words(&["kubectl"]), &words(&["apply", "-f/tmp/doc"])), apply);
        assert_eq!(kubectl(&words(&["/bin/bash", "-exc"]), &words(&["kubectl apply -f /tmp/doc"])), apply);
        assert_eq!(kubectl(&words(&["/bin/bash", "-c", "kubectl apply -f /tmp/doc"]), &[]), apply);
        let namespaced =
            |verb, namespace: &str| Some(vec![Kubectl { namespace: Some(namespace.into()), ..plain(verb, "/d") }]);
        for script in ["kubectl create -n a -f /d", "kubectl -na create -f /d", "kubectl --namespace=a create -f /d"] {
            assert_eq!(sh(script), namespaced(Verb::Create, "a"), "{script}");
        }
        let reference = "{{workflow.parameters.namespace}}";
        assert_eq!(sh(&format!("kubectl delete -f /d -n {reference}")), namespaced(Verb::Delete, reference));
        assert_eq!(sh(&format!("kubectl delete -f /d -n \"{reference}\"")), namespaced(Verb::Delete, reference));
        assert_eq!(
            sh("kubectl delete -f /a --ignore-not-found --wait=false --cascade=orphan && kubectl apply -f /b,/c"),
            Some(vec![
                Kubectl { wait: false, cascade: Cascade::Orphan, ..plain(Verb::Delete, "/a") },
                Kubectl { files: words(&["/b", "/c"]), ..plain(Verb::Apply, "/b") }
            ])
        );
    }

    #[test]
    fn whatever_else_a_command_does_is_left_to_a_container() {
        for script in [
            "",
            "kubectl delete all -n x --all",
            "kubectl delete ns x",
            "kubectl apply -k /d",
            "kubectl apply -f /d; rm /d",
            "kubectl apply -f /d | cat",
            "kubectl apply -f /d || true",
            "kubectl apply -f /d &",
            "kubectl apply -f $DOC",
            "kubectl apply -f \"$DOC\"",
            "kubectl apply -f `doc`",
            "kubectl apply -f /d --force",
            "kubectl apply -f /d --prune",
            "kubectl apply -f /d --dry-run=client",
            "kubectl apply -f /d -n --wait",
            "kubectl apply -f",
            "kubectl apply -R -f /d",
            "kubectl apply {{workflow.parameters.x}} -f /d",
            "kubectl {{workflow.parameters.verb}} -f /d",
            "kubectl apply -f /d\nkubectl apply -f /e",
            "kubectl apply -f /d &&",
            "&& kubectl apply -f /d",
            "kubectl get -f /d",
            "echo kubectl apply -f /d",
            "kubectl apply -f /*",
            "kubectl apply -f ~/d",
            "kubectl replace -f /d",
            "kubectl apply -f 'a",
            "kubectl apply -f {{ .x }}",
        ] {
            assert_eq!(sh(script), None, "{script}");
        }
        assert_eq!(kubectl(&words(&["sh", "-c", "kubectl apply -f /d"]), &words(&["x"])), None);
        assert_eq!(kubectl(&[], &[]), None);
    }
}
