//! How revisions stand in a parent.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use quarterdeck_api::addon::Revision;
use serde_json::{Value, json};

use super::{Asked, Kept, Revisions, RollBack, Verdict};

/// Longest reason that people are told, characters.
const LONGEST: usize = 1000;

impl Revisions {
    /// As they are kept in a parent; null if there is nothing to say.
    #[must_use]
    pub fn to_value(&self) -> Value {
        if *self == Self::default() {
            return Value::Null;
        }
        let mut value = json!({"kept": self.kept.iter().map(kept_to_value).collect::<Vec<_>>()});
        if let Some(back) = &self.back {
            let RollBack { from, to, by_person, reason } = back;
            value["back"] = json!({"from": from, "to": to, "byPerson": by_person, "reason": reason});
        }
        if let Some(Asked { to, from }) = &self.asked {
            value["asked"] = json!({"to": to, "from": from});
        }
        value
    }

    /// Reads what [`Self::to_value`] wrote; what is not understood is left out.
    #[must_use]
    pub fn from_value(value: &Value) -> Self {
        let kept = value["kept"].as_array().into_iter().flatten();
        let pair = |value: &Value| Some((text(value, "from")?, text(value, "to")?));
        let back = pair(&value["back"]).map(|(from, to)| RollBack {
            from,
            to,
            by_person: value["back"]["byPerson"] == true,
            reason: text(&value["back"], "reason").unwrap_or_default(),
        });
        let asked = pair(&value["asked"]).map(|(from, to)| Asked { to, from });
        Self { kept: kept.filter_map(kept_from_value).collect(), back, asked }
    }
}

/// What people are told of revisions, in an Addon's status.
#[must_use]
pub fn public(revisions: &Revisions) -> Vec<Revision> {
    let told = revisions.kept.iter().map(|kept| Revision {
        hash: kept.hash.clone(),
        version: kept.version.clone(),
        time: Timestamp::from_millisecond(kept.time).ok().map(Time),
        state: revisions.state_of(kept).to_owned(),
        reason: kept.reason.chars().take(LONGEST).collect(),
    });
    told.collect()
}

fn text(value: &Value, field: &str) -> Option<String> {
    value[field].as_str().map(str::to_owned)
}

fn kept_to_value(kept: &Kept) -> Value {
    let mut value = json!({"hash": kept.hash, "time": kept.time, "verdict": kept.verdict.as_str()});
    for (field, text) in
        [("version", &kept.version), ("reason", &kept.reason), ("digest", &kept.digest), ("crds", &kept.crds)]
    {
        if !text.is_empty() {
            value[field] = text.as_str().into();
        }
    }
    for (field, count) in [("maps", kept.maps), ("secrets", kept.secrets)] {
        if count > 0 {
            value[field] = count.into();
        }
    }
    value
}

fn kept_from_value(value: &Value) -> Option<Kept> {
    let text = |field| text(value, field).unwrap_or_default();
    let count = |field: &str| value[field].as_u64().and_then(|count| usize::try_from(count).ok()).unwrap_or_default();
    Some(Kept {
        hash: Some(text("hash")).filter(|hash| !hash.is_empty())?,
        version: text("version"),
        time: value["time"].as_i64().unwrap_or_default(),
        verdict: Verdict::ALL.into_iter().find(|verdict| verdict.as_str() == text("verdict"))?,
        reason: text("reason"),
        digest: text("digest"),
        maps: count("maps"),
        secrets: count("secrets"),
        crds: text("crds"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        let kept = |hash: &str, verdict| Kept { hash: hash.into(), verdict, time: 7, ..Kept::default() };
        let full = Kept {
            version: "1".into(),
            reason: "r".into(),
            digest: "d".into(),
            maps: 2,
            secrets: 1,
            crds: "c".into(),
            ..kept("a", Verdict::Bad)
        };
        let revisions = Revisions {
            kept: vec![full, kept("b", Verdict::Good), kept("c", Verdict::Late), kept("d", Verdict::New)],
            back: Some(RollBack { from: "a".into(), to: "b".into(), by_person: true, reason: "why".into() }),
            asked: Some(Asked { to: "b".into(), from: "a".into() }),
        };
        assert_eq!(Revisions::from_value(&revisions.to_value()), revisions);
        assert_eq!(Revisions::default().to_value(), Value::Null);
        assert_eq!(Revisions::from_value(&Value::Null), Revisions::default());
        let strange =
            json!({"kept": [{"hash": ""}, 7, {"hash": "x", "verdict": "?"}], "back": {"from": "a"}, "asked": []});
        assert_eq!(Revisions::from_value(&strange), Revisions::default());
    }
}
