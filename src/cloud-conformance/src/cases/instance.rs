//! Machines.

use quarterdeck_cloud::model::{Lookup, NodeRef};

use crate::known::Machine;
use crate::suite::{Outcome, Stop, Suite, check};

fn lacks(what: &str) -> Stop {
    Stop::NotApplicable(format!("the fixture has no {what}"))
}

pub async fn i1_metadata_by_id(suite: &Suite) -> Outcome {
    let machine = suite.running(0)?;
    // The id counts, not the name.
    let instance = suite.found(&Machine { name: "of-another-name".to_owned(), ..machine.clone() }).await?;
    check!(instance.provider_id == machine.provider_id, "it calls itself {}", instance.provider_id);
    check!(!instance.addresses.is_empty(), "{} has no address", machine.name);
    check!(!instance.shutdown, "{} runs, and is said to be shut down", machine.name);
    Ok(())
}

pub async fn i2_metadata_by_name(suite: &Suite) -> Outcome {
    let machine = suite.running(0)?;
    let by_name = suite.look_up(&machine.name, None).await?;
    let by_id = suite.found(machine).await?;
    check!(by_name == Lookup::Found(Box::new(by_id.clone())), "by name {by_name:?}, by id {by_id:?}");
    Ok(())
}

pub async fn i3_id_stable(suite: &Suite) -> Outcome {
    let machine = suite.running(0)?;
    let info = suite.provider.info(&suite.read()).await?;
    let ask = async || -> Outcome {
        for _ in 0..3 {
            let told = suite.found(machine).await?.provider_id;
            check!(told == machine.provider_id, "{told} instead of {}", machine.provider_id);
            let scheme = told.split_once("://").map_or("", |(scheme, _)| scheme);
            check!(info.schemes.iter().any(|own| own == scheme), "{told} has none of the schemes {:?}", info.schemes);
        }
        Ok(())
    };
    ask().await?;
    if suite.steering.stop().await.is_ok() {
        suite.steering.start().await?;
        suite.until_available().await?;
        ask().await?;
    }
    Ok(())
}

pub async fn i4_stopped(suite: &Suite) -> Outcome {
    let machine = suite.known.stopped.as_ref().ok_or_else(|| lacks("stopped machine"))?;
    check!(suite.found(machine).await?.shutdown, "{} is said to run", machine.provider_id);
    Ok(())
}

pub async fn i5_terminated(suite: &Suite) -> Outcome {
    let machine = suite.known.terminated.as_ref().ok_or_else(|| lacks("terminated machine"))?;
    match suite.look_up(&machine.name, Some(&machine.provider_id)).await? {
        Lookup::Absent(proof) => {
            check!(!proof.evidence.is_empty(), "{} is absent, without evidence", machine.provider_id);
            Ok(())
        }
        other => Err(Stop::Failed(format!("{}: {other:?} instead of absent", machine.provider_id))),
    }
}

pub async fn i6_foreign(suite: &Suite) -> Outcome {
    suite.instances()?;
    if suite.known.foreign.is_empty() {
        return Err(lacks("foreign providerID"));
    }
    let made_up = ["no-scheme-of-anybody://x/y".to_owned(), "no-scheme".to_owned()];
    for id in suite.known.foreign.iter().chain(&made_up) {
        let told = suite.look_up("conformance-foreign", Some(id)).await?;
        check!(told == Lookup::NotMine, "{id}: {told:?} instead of not mine");
    }
    Ok(())
}

pub async fn i7_batch(suite: &Suite) -> Outcome {
    let known = &suite.known;
    let machines: Vec<&Machine> = known.running.iter().chain(&known.stopped).chain(&known.terminated).collect();
    if machines.len() < 2 {
        return Err(lacks("second machine"));
    }
    let most = suite.provider.info(&suite.read()).await?.max_batch;
    let node = |machine: &&Machine| NodeRef {
        name: machine.name.as_str().into(),
        provider_id: Some(machine.provider_id.as_str().into()),
    };
    let nodes: Vec<NodeRef> = machines.iter().take(most).map(node).collect();
    let batch = suite.instances()?.get_many(&suite.read(), &nodes).await?;
    check!(batch.nodes.len() == nodes.len(), "{} answers to {} questions", batch.nodes.len(), nodes.len());
    for node in &nodes {
        let single = suite.look_up(&node.name, node.provider_id.as_deref()).await?;
        let told = batch.nodes.get(node);
        check!(told == Some(&Ok(single.clone())), "{}: {told:?} in the batch, {single:?} alone", node.name);
    }
    Ok(())
}

pub async fn i8_bad_id(suite: &Suite) -> Outcome {
    let machine = suite.running(0)?;
    let good = NodeRef { name: machine.name.as_str().into(), provider_id: Some(machine.provider_id.as_str().into()) };
    let mut nodes = vec![good.clone()];
    let bad = suite.known.foreign.iter().map(String::as_str).chain(["no-scheme", "%%%://\u{1F6A2}"]);
    nodes.extend(
        bad.enumerate().map(|(index, id)| NodeRef {
            name: format!("conformance-bad-{index}").into(),
            provider_id: Some(id.into()),
        }),
    );
    let answers = suite.instances()?.get_many(&suite.read(), &nodes).await?;
    let told = answers.nodes.get(&good);
    check!(matches!(told, Some(Ok(Lookup::Found(_)))), "{} beside bad ids: {told:?}", machine.name);
    for node in &nodes[1..] {
        let told = answers.nodes.get(node);
        check!(!matches!(told, Some(Ok(Lookup::Absent(_)))), "{:?} is said to be absent", node.provider_id);
    }
    Ok(())
}

pub async fn i9_dual_stack(suite: &Suite) -> Outcome {
    let wanted = suite.known.dual_stack.as_ref().ok_or_else(|| lacks("machine with addresses of both families"))?;
    let told = suite.found(&wanted.machine).await?.addresses;
    let kinds: Vec<_> = wanted.addresses.iter().map(|address| address.kind).collect();
    let mut ours = told.clone();
    ours.retain(|address| kinds.contains(&address.kind));
    check!(ours == wanted.addresses, "{told:?} instead of {:?}", wanted.addresses);
    Ok(())
}

pub async fn i10_labels(suite: &Suite) -> Outcome {
    let wanted = suite.known.labelled.as_ref().ok_or_else(|| lacks("machine with labels"))?;
    let told = suite.found(&wanted.machine).await?.labels;
    for (key, value) in &wanted.labels {
        check!(told.get(key) == Some(value), "label {key} is {:?} instead of {value:?}", told.get(key));
    }
    let reserved = |key: &&String| {
        let domain = key.split_once('/').map_or("", |(domain, _)| domain);
        ["kubernetes.io", "k8s.io"].iter().any(|own| domain == *own || domain.ends_with(&format!(".{own}")))
    };
    let refused = told.keys().find(reserved);
    check!(refused.is_none(), "label {} is Kubernetes' own", refused.map_or("", String::as_str));
    Ok(())
}
