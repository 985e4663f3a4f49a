//! Whether what a channel offers takes the place of what is installed.

use std::cmp::Ordering;

use super::installed::Installed;
use crate::version::Version;

/// What a channel offers of an addon: what would be noted once it is installed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offer {
    /// The note.
    pub note: Installed,
    /// Whether the index itself names the manifest's hash. If not, the note's hash was computed
    /// from the manifest, and a note of before, without any hash, does not differ from it.
    pub hash_is_named: bool,
}

/// By which rules two states of an addon are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// Version, then id, then hash; never to an older version (kOps until 1.22, and its
    /// documentation).
    Versions,
    /// Id, then hash, then generation (kOps since 1.22).
    Ids,
}

impl Form {
    /// Versions are compared where both sides have one.
    #[must_use]
    pub fn of(installed: &Installed, offered: &Installed) -> Self {
        if installed.version.is_some() && offered.version.is_some() { Self::Versions } else { Self::Ids }
    }
}

/// What to do about an addon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Nothing is installed: install.
    Install,
    /// Something else is installed: apply the offer over it.
    Update,
    /// Leave what is installed.
    Keep(Keep),
}

/// Why what is installed stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// It is what is offered.
    Same,
    /// It is what is offered, as far as its note tells; the note has no hash yet and should get
    /// the offer's, without anything being applied.
    SameWithoutHash,
    /// It is newer: addons are never downgraded, whatever id and hash say.
    Newer,
    /// The version that is offered cannot be read.
    OfferUnreadable,
    /// Nothing that is offered has a version.
    OfferWithoutVersion,
    /// A program that can do more than this one installed it.
    NewerGeneration,
}

/// Compares an offer to what is installed; `None` if nothing is.
#[must_use]
pub fn decide(installed: Option<&Installed>, offer: &Offer) -> Decision {
    match installed {
        None => Decision::Install,
        Some(installed) => decide_as(Form::of(installed, &offer.note), installed, offer),
    }
}

/// The same by rules of one's choice.
#[must_use]
pub fn decide_as(form: Form, installed: &Installed, offer: &Offer) -> Decision {
    match form {
        Form::Versions => by_version(installed, offer),
        Form::Ids => by_id(installed, offer),
    }
}

fn by_version(installed: &Installed, offer: &Offer) -> Decision {
    let Some(offered) = &offer.note.version else { return Decision::Keep(Keep::OfferWithoutVersion) };
    let Some(before) = &installed.version else { return Decision::Update };
    let Ok(offered) = Version::parse_tolerant(offered) else { return Decision::Keep(Keep::OfferUnreadable) };
    let Ok(before) = Version::parse_tolerant(before) else { return Decision::Update };
    match offered.precedence(&before) {
        Ordering::Less => Decision::Keep(Keep::Newer),
        Ordering::Greater => Decision::Update,
        Ordering::Equal => by_content(installed, offer),
    }
}

fn by_id(installed: &Installed, offer: &Offer) -> Decision {
    let content = by_content(installed, offer);
    match installed.system_generation.cmp(&offer.note.system_generation) {
        _ if content == Decision::Update => content,
        Ordering::Less => Decision::Update,
        Ordering::Greater => Decision::Keep(Keep::NewerGeneration),
        Ordering::Equal => content,
    }
}

fn by_content(installed: &Installed, offer: &Offer) -> Decision {
    if installed.id != offer.note.id {
        return Decision::Update;
    }
    if installed.manifest_hash == offer.note.manifest_hash {
        return Decision::Keep(Keep::Same);
    }
    if installed.manifest_hash.is_empty() && !offer.hash_is_named {
        return Decision::Keep(Keep::SameWithoutHash);
    }
    Decision::Update
}

#[cfg(test)]
mod tests {
    use super::*;

    const HASH1: &str = "3544de6578b2b582c0323b15b7b05a28c60b9430";
    const HASH2: &str = "ea9e79bf29adda450446487d65a8fc6b3fdf8c2b";

    fn note(version: &str, id: &str, hash: &str, system_generation: i64) -> Installed {
        Installed {
            version: Some(version.to_owned()).filter(|version| !version.is_empty()),
            channel: None,
            id: id.into(),
            manifest_hash: hash.into(),
            system_generation,
        }
    }

    fn offer(note: Installed) -> Offer {
        Offer { note, hash_is_named: true }
    }

    const KEEP: Decision = Decision::Keep(Keep::Same);
    const NEWER: Decision = Decision::Keep(Keep::Newer);

    #[test]
    fn nothing_installed_is_installed() {
        assert_eq!(decide(None, &offer(note("", "", "", 1))), Decision::Install);
        assert_eq!(decide(None, &offer(note("1.0.0", "", "", 1))), Decision::Install);
    }

    /// Every row of the rules that compare versions, first match first.
    #[test]
    fn by_versions() {
        for (before, after, decision) in [
            (note("1.1.0", "a", HASH1, 0), note("1.0.0", "b", HASH2, 0), NEWER),
            (note("1.1.0", "a", HASH1, 0), note("1.2.0", "a", HASH1, 0), Decision::Update),
            (note("1.1.0", "", "", 0), note("latest", "b", HASH2, 0), Decision::Keep(Keep::OfferUnreadable)),
            (note("latest", "", "", 0), note("1.1.0", "", "", 0), Decision::Update),
            (note("latest", "", "", 0), note("newest", "", "", 0), Decision::Keep(Keep::OfferUnreadable)),
            (note("1.1.0", "", "", 0), note("", "b", HASH1, 0), Decision::Keep(Keep::OfferWithoutVersion)),
            (note("", "", "", 0), note("", "b", HASH1, 0), Decision::Keep(Keep::OfferWithoutVersion)),
            (note("", "a", HASH1, 0), note("1.1.0", "a", HASH1, 0), Decision::Update),
            (note("1.1.0", "a", HASH1, 0), note("1.1.0", "b", HASH1, 0), Decision::Update),
            (note("1.1.0", "a", HASH1, 0), note("1.1.0", "a", HASH2, 0), Decision::Update),
            (note("1.1.0", "a", HASH1, 5), note("1.1.0", "a", HASH1, 1), KEEP),
            (note("1.1.0", "a", HASH1, 0), note("1.1.0", "a", HASH1, 1), KEEP),
            (note("v1.1", "a", HASH1, 0), note("1.1.0", "a", HASH1, 0), KEEP),
        ] {
            assert_eq!(decide_as(Form::Versions, &before, &offer(after.clone())), decision, "{before:?} {after:?}");
        }
    }

    /// Every row of the rules that do not.
    #[test]
    fn by_ids() {
        for (before, after, decision) in [
            (note("2.0.0", "a", HASH1, 1), note("1.0.0", "a", HASH1, 1), KEEP),
            (note("", "a", HASH1, 5), note("", "b", HASH1, 1), Decision::Update),
            (note("", "a", HASH1, 5), note("", "a", HASH2, 1), Decision::Update),
            (note("", "a", HASH1, 2), note("", "a", HASH1, 1), Decision::Keep(Keep::NewerGeneration)),
            (note("", "a", HASH1, 0), note("", "a", HASH1, 1), Decision::Update),
            (note("", "a", HASH1, 1), note("", "a", HASH1, 1), KEEP),
        ] {
            assert_eq!(decide_as(Form::Ids, &before, &offer(after.clone())), decision, "{before:?} {after:?}");
        }
    }

    #[test]
    fn versions_count_where_both_sides_have_one() {
        let (with, without) = (note("2.0.0", "a", HASH1, 1), note("", "a", HASH1, 1));
        assert_eq!(decide(Some(&with), &offer(note("1.0.0", "b", HASH2, 1))), NEWER);
        // kOps dropped versions in 1.22: its upgrades must not get stuck on an old note.
        assert_eq!(decide(Some(&with), &offer(note("", "a", HASH2, 1))), Decision::Update);
        assert_eq!(decide(Some(&with), &offer(without.clone())), KEEP);
        assert_eq!(decide(Some(&without), &offer(with)), KEEP);
    }

    /// The channel is not compared: a copy of an index elsewhere changes nothing.
    #[test]
    fn another_channel_is_no_difference() {
        let before = Installed { channel: Some("s3://a".into()), ..note("", "a", HASH1, 1) };
        let after = Installed { channel: Some("https://b".into()), ..before.clone() };
        assert_eq!(decide(Some(&before), &offer(after)), KEEP);
    }

    #[test]
    fn a_computed_hash_is_no_news_to_a_note_without_one() {
        for version in ["", "1.0.0"] {
            let after = note(version, "a", HASH1, 1);
            let computed = Offer { note: after, hash_is_named: false };
            let without = note(version, "a", "", 1);
            assert_eq!(decide(Some(&without), &computed), Decision::Keep(Keep::SameWithoutHash));
            assert_eq!(decide(Some(&note(version, "a", HASH2, 1)), &computed), Decision::Update);
            assert_eq!(decide(Some(&without), &Offer { hash_is_named: true, ..computed }), Decision::Update);
        }
    }

    /// kops:channels/pkg/channels/addons_test.go, Test_Replacement (268927e).
    #[test]
    fn replacement_as_kops_tests_it() {
        for (before, after, replaces) in [
            (note("", "a", HASH1, 0), note("", "a", HASH1, 0), false),
            (note("", "a", "", 0), note("", "a", HASH1, 0), true),
            (note("", "a", HASH1, 0), note("", "a", HASH2, 0), true),
            (note("", "a", HASH1, 0), note("", "a", HASH1, 1), true),
            (note("", "a", HASH1, 1), note("", "a", HASH1, 0), false),
            (note("", "a", HASH1, 1), note("", "a", HASH1, 1), false),
        ] {
            let decision = decide(Some(&before), &offer(after.clone()));
            assert_eq!(decision == Decision::Update, replaces, "{before:?} {after:?}");
        }
    }

    /// The same test before versions were dropped (2f3bad6^).
    #[test]
    fn replacement_as_kops_tested_it() {
        for (before, after, replaces) in [
            (("1.0.0", "", ""), ("1.0.0", "", ""), false),
            (("1.0.0", "", ""), ("1.0.1", "", ""), true),
            (("1.0.1", "", ""), ("1.0.0", "", ""), false),
            (("1.1.0", "", ""), ("1.1.1", "", ""), true),
            (("1.1.1", "", ""), ("1.1.0", "", ""), false),
            (("1.0.0", "a", ""), ("1.0.0", "a", ""), false),
            (("1.0.0", "a", ""), ("1.0.0", "b", ""), true),
            (("1.0.0", "b", ""), ("1.0.0", "a", ""), true),
            (("1.0.0", "a", ""), ("1.0.1", "a", ""), true),
            (("1.0.0", "a", ""), ("1.0.1", "b", ""), true),
            (("1.0.1", "a", ""), ("1.0.0", "b", ""), false),
            (("1.0.0", "a", HASH1), ("1.0.0", "a", HASH1), false),
            (("1.0.0", "a", ""), ("1.0.0", "a", HASH1), true),
            (("1.0.0", "a", HASH1), ("1.0.0", "a", HASH2), true),
        ] {
            let note = |(version, id, hash): (&str, &str, &str)| self::note(version, id, hash, 0);
            let decision = decide(Some(&note(before)), &offer(note(after)));
            assert_eq!(decision == Decision::Update, replaces, "{before:?} {after:?}");
        }
    }
}
