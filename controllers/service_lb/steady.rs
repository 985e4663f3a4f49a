//! A load balancer whose Service asks for what cannot be had: it stays as it is, is told of nodes, and is made again as
//! it was if it is lost.

use std::net::IpAddr;
use std::sync::Arc;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use quarterdeck_api::cloud::range::canonical;
use quarterdeck_cloud::model::LoadBalancerSpec;
use quarterdeck_runtime::controller::{Action, Cx, Error};
use tokio::time::Instant;

use super::Balancer;
use super::memory::Known;
use super::record::Record;
use super::status::shown_addresses;
use super::sync::Task;

/// What to do about a load balancer that stays as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rest {
    /// There is none.
    Nothing,
    /// The cloud asked to be left alone until then.
    Wait(Instant),
    /// It is as it was, and knows its nodes.
    Steady,
    /// Tell it of nodes.
    UpdateBackends,
    /// Make it again as it was.
    Ensure,
}

/// What to do about it while these are its nodes; pure.
pub(super) fn rest(known: &Known, record: &Record, wanted: &LoadBalancerSpec, now: Instant) -> Rest {
    if record.made.is_empty() || (record.handle.is_none() && known.made.is_none()) {
        return Rest::Nothing;
    }
    if let Some(hold) = known.hold.as_ref().filter(|hold| hold.until > now)
        && hold.digest.as_ref().is_none_or(|of| *of == record.made)
    {
        return Rest::Wait(hold.until);
    }
    match known.made.as_ref().filter(|made| made.digest == record.made) {
        Some(made) if made.exact && known.drift.is_some() => Rest::Ensure,
        Some(made) if !known.uncertain && made.spec.backends == wanted.backends => Rest::Steady,
        _ => Rest::UpdateBackends,
    }
}

impl Balancer {
    /// Leaves a load balancer as it is, but for its nodes. `None`: there is none.
    ///
    /// Boxed, for it is called by what it calls.
    pub(super) fn leave_as_it_is<'a>(
        &'a self,
        cx: &'a Cx,
        wanted: &'a Task<'a>,
    ) -> BoxFuture<'a, Result<Option<Action>, Error>> {
        self.leave(cx, wanted).boxed()
    }

    async fn leave(&self, cx: &Cx, wanted: &Task<'_>) -> Result<Option<Action>, Error> {
        // What was known before a call that was refused counts no more.
        let known = self.memory.get(wanted.key).unwrap_or_else(|| wanted.known.clone());
        let next = rest(&known, &wanted.record, &wanted.spec, Instant::now());
        let last = known.made.as_ref().filter(|made| made.digest == wanted.record.made);
        let (spec, exact) = match last {
            Some(made) => ((*made.spec).clone(), made.exact),
            // No more is known than what the Service says now; nothing but the nodes is taken of it.
            None => (LoadBalancerSpec { addresses: shown(wanted), ..(*wanted.spec).clone() }, false),
        };
        let spec = Arc::new(LoadBalancerSpec { backends: wanted.spec.backends.clone(), ..spec });
        let digest = wanted.record.made.clone();
        let task = Task { spec, digest, known, exact, settled: false, ..wanted.clone() };
        match next {
            Rest::Nothing => Ok(None),
            Rest::Wait(until) => Ok(Some(Action::RequeueAfter(until.saturating_duration_since(Instant::now())))),
            Rest::Steady => {
                let made = task.known.made.clone().expect("it is known to be as it was");
                self.finish(cx, &task, &made).await.map(|()| Some(Action::Done))
            }
            Rest::UpdateBackends => self.update_backends(cx, &task).await.map(Some),
            Rest::Ensure => self.ensure(cx, &task, None).await.map(Some),
        }
    }
}

/// The addresses that its Service shows.
fn shown(task: &Task<'_>) -> Vec<IpAddr> {
    shown_addresses(task.service).filter_map(|text| text.parse().ok().map(canonical)).collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use k8s_openapi::api::core::v1::Service;
    use quarterdeck_cloud::model::{Backend, ClusterId, Handle};

    use super::*;
    use crate::service_lb::memory::{Hold, Made};
    use crate::service_lb::wish::wish;

    #[test]
    fn what_there_is_stays_and_is_told_of_nodes() {
        let now = Instant::now();
        let spec = wish(&Service::default(), &ClusterId("c".into())).spec;
        let node = Backend { name: "n".into(), provider_id: String::new(), addresses: Vec::new() };
        let more = LoadBalancerSpec { backends: vec![node], ..spec.clone() };
        let record = |made: &str| Record { handle: Some(Handle("lb".into())), made: made.into(), ..Record::default() };
        let known = |change: fn(&mut Known, &mut Made)| {
            let mut made = Made {
                digest: "d".into(),
                spec: Arc::new(spec.clone()),
                exact: true,
                handle: Handle("lb".into()),
                fingerprint: String::new(),
                ingress: Vec::new(),
                at: now,
            };
            let mut known = Known::new(spec.owner.clone(), "p", 1);
            change(&mut known, &mut made);
            known.made = Some(made);
            known
        };
        let fresh = Known::new(spec.owner.clone(), "p", 2);
        let later = now + Duration::from_secs(9);
        let held = |digest: Option<&str>| {
            let mut known = known(|_, _| ());
            known.hold = Some(Hold { until: later, digest: digest.map(Into::into) });
            known
        };
        let cases = [
            ("never made", fresh.clone(), record(""), &more, Rest::Nothing),
            ("made by another leader", fresh, record("d"), &spec, Rest::UpdateBackends),
            ("as it was", known(|_, _| ()), record("d"), &spec, Rest::Steady),
            ("other nodes", known(|_, _| ()), record("d"), &more, Rest::UpdateBackends),
            ("unclear", known(|known, _| known.uncertain = true), record("d"), &spec, Rest::UpdateBackends),
            ("lost", known(|known, _| known.drift = Some("gone".into())), record("d"), &spec, Rest::Ensure),
            (
                "lost, and nobody knows how it was",
                known(|known, made| {
                    known.drift = Some("gone".into());
                    made.exact = false;
                }),
                record("d"),
                &more,
                Rest::UpdateBackends,
            ),
            ("held", held(None), record("d"), &more, Rest::Wait(later)),
            ("held as it was", held(Some("d")), record("d"), &more, Rest::Wait(later)),
            ("held as it should be", held(Some("e")), record("d"), &more, Rest::UpdateBackends),
        ];
        for (what, known, record, wanted, expected) in cases {
            assert_eq!(rest(&known, &record, wanted, now), expected, "{what}");
        }
    }
}
