//! Which cloud has a node's instance.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use quarterdeck_cloud::guard::Seen;
use quarterdeck_cloud::model::{Instance, Lookup, NodeRef};
use quarterdeck_cloud::{Cloud, CloudError, Guarded};

/// How long the answer of one cloud to a question by name waits for those of others, which may know the name, too.
const OTHERS: Duration = Duration::from_secs(5);

/// Where a node's instance is.
#[derive(Clone, Debug)]
pub(super) enum Found {
    /// In one cloud.
    Here(Box<Instance>),
    /// In several: nobody can tell which is the node's.
    Ambiguous(Vec<String>),
    /// Nobody who could say has it, or not yet.
    Nowhere(String),
    /// None of the clouds has to do with it.
    NotOurs,
    /// At least one cloud that might have it could not say.
    Unknown(CloudError),
}

/// What one cloud says.
type Word = (usize, Result<Seen, CloudError>);

/// Asks the cloud whose providerID the node has, or all of them by its name if it has none yet. Nothing is taken from
/// a cache: a new instance may just have appeared.
pub(super) async fn find(cloud: &Cloud, node: &NodeRef) -> Found {
    match &node.provider_id {
        Some(id) => match cloud.of_provider_id(id).await {
            Ok(Some(provider)) => conclude(&[(0, ask(provider, node).await)], |_| provider.name().to_owned()),
            Ok(None) => Found::NotOurs,
            Err(error) => Found::Unknown(error),
        },
        None => {
            let words = ask_all(cloud.providers(), node).await;
            conclude(&words, |index| cloud.providers()[index].name().to_owned())
        }
    }
}

async fn ask(provider: &Guarded, node: &NodeRef) -> Result<Seen, CloudError> {
    let seen = provider.look_up(std::slice::from_ref(node), Duration::ZERO).await?;
    seen.into_iter().next().ok_or_else(|| CloudError::Other("the provider did not answer for this node".to_owned()))
}

/// The words of all clouds that have instances; those that answer much later than the first are left out.
async fn ask_all(providers: &[Arc<Guarded>], node: &NodeRef) -> Vec<Word> {
    let one = |(index, provider): (usize, &Arc<Guarded>)| {
        let provider = Arc::clone(provider);
        async move {
            match provider.info().await {
                Ok(info) if !info.instances => None,
                Ok(_) => Some((index, ask(&provider, node).await)),
                Err(error) => Some((index, Err(error))),
            }
        }
    };
    let mut asked: FuturesUnordered<_> = providers.iter().enumerate().map(one).collect();
    let mut words = Vec::new();
    let patience = tokio::time::sleep(Duration::MAX);
    tokio::pin!(patience);
    loop {
        tokio::select! {
            word = asked.next() => match word {
                Some(word) => {
                    if let Some((_, Ok(seen))) = &word
                        && seen.lookup.is_ok()
                        && words.is_empty()
                    {
                        patience.as_mut().reset(tokio::time::Instant::now() + OTHERS);
                    }
                    words.extend(word);
                }
                None => break,
            },
            () = &mut patience => break,
        }
    }
    words.sort_by_key(|(index, _)| *index);
    words
}

/// What follows from the words.
fn conclude(words: &[Word], name: impl Fn(usize) -> String) -> Found {
    let mut found = Vec::new();
    let (mut trouble, mut absent) = (None, None);
    for (index, word) in words {
        match word {
            Err(error) => trouble = Some(error.clone()),
            Ok(Seen { lookup: Err(error), .. }) => trouble = Some(error.clone()),
            Ok(Seen { lookup: Ok(Lookup::Found(instance)), .. }) => found.push((*index, instance)),
            Ok(Seen { lookup: Ok(Lookup::Absent(proof)), .. }) => absent = Some(proof.evidence.clone()),
            Ok(Seen { lookup: Ok(Lookup::NotMine), .. }) => {}
        }
    }
    match (&found[..], trouble, absent) {
        ([(_, instance)], _, _) => Found::Here((*instance).clone()),
        ([_, _, ..], _, _) => Found::Ambiguous(found.iter().map(|(index, _)| name(*index)).collect()),
        ([], Some(error), None) => Found::Unknown(error),
        ([], Some(error), Some(evidence)) => {
            Found::Nowhere(format!("{evidence}; another cloud could not say: {error}"))
        }
        ([], None, Some(evidence)) => Found::Nowhere(evidence),
        ([], None, None) => Found::NotOurs,
    }
}

#[cfg(test)]
mod tests {
    use quarterdeck_cloud::model::Proof;
    use tokio::time::Instant;

    use super::*;

    fn word(index: usize, lookup: Result<Lookup, CloudError>) -> Word {
        (index, Ok(Seen { lookup, account: format!("account-{index}").into(), at: Instant::now(), snapshot: 1 }))
    }

    fn instance() -> Lookup {
        Lookup::Found(Box::new(Instance {
            provider_id: "a://1".to_owned(),
            instance_type: String::new(),
            addresses: Vec::new(),
            zone: String::new(),
            region: String::new(),
            labels: Default::default(),
            shutdown: false,
        }))
    }

    fn absent() -> Lookup {
        Lookup::Absent(Proof { evidence: "404".to_owned() })
    }

    #[test]
    fn one_cloud_that_finds_it_is_enough_and_two_are_too_many() {
        let down = || Err(CloudError::Unavailable("down".to_owned()));
        let name = |index: usize| format!("cloud-{index}");
        let words = [word(0, Ok(absent())), word(1, Ok(instance()))];
        assert!(matches!(conclude(&words, name), Found::Here(found) if found.provider_id == "a://1"));
        let words = [(0, down()), word(1, Ok(instance()))];
        assert!(matches!(conclude(&words, name), Found::Here(_)), "a cloud that is down holds up nobody else's");
        let words = [word(0, Ok(instance())), word(1, Ok(instance()))];
        assert!(matches!(conclude(&words, name), Found::Ambiguous(names) if names == ["cloud-0", "cloud-1"]));
        let words = [(0, down()), word(1, Ok(absent()))];
        assert!(matches!(conclude(&words, name), Found::Nowhere(evidence) if evidence.contains("down")));
        assert!(matches!(conclude(&[(0, down())], name), Found::Unknown(_)));
        let words = [word(0, Err(CloudError::Denied("no".to_owned())))];
        assert!(matches!(conclude(&words, name), Found::Unknown(CloudError::Denied(_))));
        let words = [word(0, Ok(Lookup::NotMine)), word(1, Ok(absent()))];
        assert!(matches!(conclude(&words, name), Found::Nowhere(evidence) if evidence == "404"));
        assert!(matches!(conclude(&[word(0, Ok(Lookup::NotMine))], name), Found::NotOurs));
    }
}
