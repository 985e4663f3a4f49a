//! The nearest right name, for a wrong one.

/// The candidate that a typing mistake most likely meant, if any is near enough.
#[must_use]
pub fn nearest<'a>(wrong: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // Long inputs are no typing mistakes, and the distance costs their product.
    if wrong.is_empty() || wrong.len() > 120 {
        return None;
    }
    let limit = (wrong.chars().count() / 4).clamp(1, 6);
    let wrong = wrong.to_lowercase();
    candidates
        .into_iter()
        .map(|candidate| (distance(&wrong, &candidate.to_lowercase()), candidate))
        .filter(|(distance, _)| *distance <= limit)
        .min_by_key(|(distance, candidate)| (*distance, candidate.len()))
        .map(|(_, candidate)| candidate)
}

/// How many letters must be inserted, removed, changed or swapped with their neighbour.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut before_last: Vec<usize> = vec![0; b.len() + 1];
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut row = vec![i; b.len() + 1];
        for j in 1..=b.len() {
            let changed = last[j - 1] + usize::from(a[i - 1] != b[j - 1]);
            row[j] = changed.min(last[j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                row[j] = row[j].min(before_last[j - 2] + 1);
            }
        }
        before_last = std::mem::replace(&mut last, row);
    }
    last[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_typing_mistakes_only() {
        let names = ["endpoints-controller", "endpointslice-controller", "endpoint", "job", "leader-elect"];
        let cases = [
            ("endpoint-controller", Some("endpoints-controller")),
            ("endpointslice-contrlloer", Some("endpointslice-controller")),
            ("Endpoint", Some("endpoint")),
            ("leader-elet", Some("leader-elect")),
            ("jbo", Some("job")),
            ("something-else-entirely", None),
            ("", None),
            ("x", None),
        ];
        for (wrong, right) in cases {
            assert_eq!(nearest(wrong, names), right, "{wrong}");
        }
    }
}
