//! Differences between two objects, as lines of YAML.

use serde_json::Value;

/// Lines around a change that are shown with it.
const AROUND: usize = 3;
/// Most cells of the table that finds the longest common lines; beyond it a change is shown whole.
const CELLS: usize = 4_000_000;

/// One line of a difference.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Line {
    /// In both.
    Same(String),
    /// Only before.
    Gone(String),
    /// Only after.
    New(String),
    /// Lines left out, all in both.
    Skipped(usize),
}

/// The object without what the server alone writes.
pub(super) fn clean(mut object: Value) -> Value {
    if let Some(map) = object.as_object_mut() {
        map.remove("status");
    }
    if let Some(metadata) = object["metadata"].as_object_mut() {
        for field in ["managedFields", "resourceVersion", "generation", "uid", "creationTimestamp", "selfLink"] {
            metadata.remove(field);
        }
        if let Some(annotations) = metadata.get_mut("annotations").and_then(Value::as_object_mut) {
            annotations.remove("kubectl.kubernetes.io/last-applied-configuration");
        }
        metadata.retain(|_, value| !value.as_object().is_some_and(serde_json::Map::is_empty));
    }
    object
}

/// The differing lines with those around them. The content of a Secret is not shown, only that it
/// differs.
pub(super) fn lines(before: &Value, after: &Value) -> Vec<Line> {
    let (mut before, mut after) = (before.clone(), after.clone());
    if before["kind"] == "Secret" && before["apiVersion"] == "v1" {
        mask(&mut before, &mut after);
    }
    let text = |value: &Value| serde_saphyr::to_string(value).unwrap_or_else(|_| value.to_string());
    let (before, after) = (text(&before), text(&after));
    let (before, after): (Vec<&str>, Vec<&str>) = (before.lines().collect(), after.lines().collect());
    shorten(whole(&before, &after))
}

/// Puts marks in the place of a Secret's values.
fn mask(before: &mut Value, after: &mut Value) {
    for field in ["data", "stringData"] {
        let old = before[field].clone();
        let new = after[field].clone();
        for (object, other, word) in [(&mut *before, &new, "before"), (&mut *after, &old, "after")] {
            for (key, value) in object.get_mut(field).and_then(Value::as_object_mut).into_iter().flatten() {
                let same = other.get(key) == Some(value);
                *value = if same { "***".into() } else { format!("*** ({word})").into() };
            }
        }
    }
}

/// All lines of both, by the longest common subsequence of what differs between a common beginning and
/// a common end.
fn whole(before: &[&str], after: &[&str]) -> Vec<Line> {
    let head = before.iter().zip(after).take_while(|(a, b)| a == b).count();
    let (before_rest, after_rest) = (&before[head..], &after[head..]);
    let tail = before_rest.iter().rev().zip(after_rest.iter().rev()).take_while(|(a, b)| a == b).count();
    let (a, b) = (&before_rest[..before_rest.len() - tail], &after_rest[..after_rest.len() - tail]);
    let same = |line: &&str| Line::Same((*line).to_owned());
    let mut lines: Vec<Line> = before[..head].iter().map(same).collect();
    middle(a, b, &mut lines);
    lines.extend(before_rest[before_rest.len() - tail..].iter().map(same));
    lines
}

fn middle(a: &[&str], b: &[&str], lines: &mut Vec<Line>) {
    let gone = |line: &&str| Line::Gone((*line).to_owned());
    let new = |line: &&str| Line::New((*line).to_owned());
    if a.len().saturating_mul(b.len()) > CELLS {
        lines.extend(a.iter().map(gone));
        lines.extend(b.iter().map(new));
        return;
    }
    // longest[i][j]: of the common lines of a[i..] and b[j..].
    let width = b.len() + 1;
    let mut longest = vec![0u32; (a.len() + 1) * width];
    for i in (0..a.len()).rev() {
        for j in (0..b.len()).rev() {
            longest[i * width + j] = if a[i] == b[j] {
                longest[(i + 1) * width + j + 1] + 1
            } else {
                longest[(i + 1) * width + j].max(longest[i * width + j + 1])
            };
        }
    }
    let (mut i, mut j) = (0, 0);
    while i < a.len() || j < b.len() {
        if i < a.len() && j < b.len() && a[i] == b[j] {
            lines.push(Line::Same(a[i].to_owned()));
            (i, j) = (i + 1, j + 1);
        } else if j == b.len() || (i < a.len() && longest[(i + 1) * width + j] >= longest[i * width + j + 1]) {
            lines.push(gone(&a[i]));
            i += 1;
        } else {
            lines.push(new(&b[j]));
            j += 1;
        }
    }
}

/// Leaves out what is far from any change.
fn shorten(lines: Vec<Line>) -> Vec<Line> {
    let changed: Vec<usize> =
        lines.iter().enumerate().filter(|(_, line)| !matches!(line, Line::Same(_))).map(|(at, _)| at).collect();
    let near = |at: usize| {
        let next = changed.partition_point(|change| *change < at);
        let around = [next.checked_sub(1).and_then(|i| changed.get(i)), changed.get(next)];
        around.into_iter().flatten().any(|change| change.abs_diff(at) <= AROUND)
    };
    let mut short = Vec::new();
    for (at, line) in lines.into_iter().enumerate() {
        if near(at) {
            short.push(line);
        } else if let Some(Line::Skipped(count)) = short.last_mut() {
            *count += 1;
        } else {
            short.push(Line::Skipped(1));
        }
    }
    short
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn told(before: &Value, after: &Value) -> String {
        let mark = |line: Line| match line {
            Line::Same(text) => format!(" {text}"),
            Line::Gone(text) => format!("-{text}"),
            Line::New(text) => format!("+{text}"),
            Line::Skipped(count) => format!("@{count}"),
        };
        lines(before, after).into_iter().map(mark).collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn what_differs_is_shown_with_what_is_around_it() {
        let before = json!({"a": 1, "b": 2, "c": 3, "d": 4, "e": 5, "f": 6, "g": 7, "h": 8, "z": [1, 2, 3]});
        let mut after = before.clone();
        after["f"] = json!("six");
        after["z"] = json!([1, 3, 4]);
        assert_eq!(
            told(&before, &after),
            "@2\n c: 3\n d: 4\n e: 5\n-f: 6\n+f: six\n g: 7\n h: 8\n z:\n - 1\n-- 2\n - 3\n+- 4"
        );
        assert_eq!(told(&before, &before), "@12");
    }

    #[test]
    fn the_content_of_secrets_is_not_shown() {
        let secret = |a: &str, c: Option<&str>| {
            let mut secret = json!({"apiVersion": "v1", "kind": "Secret", "data": {"a": a, "b": "same"}});
            if let Some(c) = c {
                secret["data"]["c"] = c.into();
            }
            secret
        };
        let text = told(&secret("old", None), &secret("new", Some("added")));
        assert!(text.contains("-  a: \"*** (before)\"\n+  a: \"*** (after)\"\n"), "{text}");
        assert!(text.contains("+  c: \"*** (after)\"") && text.contains("b: \"***\""), "{text}");
        for content in ["old", "new", "same", "added"] {
            assert!(!text.contains(content), "{text}");
        }
    }

    #[test]
    fn what_the_server_writes_is_no_difference() {
        let live = json!({"metadata": {
            "name": "a", "uid": "u", "resourceVersion": "1", "generation": 2, "managedFields": [],
            "annotations": {"kubectl.kubernetes.io/last-applied-configuration": "{}"},
        }, "status": {"x": 1}});
        assert_eq!(clean(live), json!({"metadata": {"name": "a"}}));
    }
}
