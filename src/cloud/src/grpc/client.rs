//! A provider whose calls go to a plug-in.

use std::future::Future;

use async_trait::async_trait;
use prost::Message;
use tokio::time::Instant;
use tonic::transport::Channel;
use tonic::{Code, Request, Response, Status};

use super::channel::{Connection, TlsFiles};
use super::decode::{self, nonsense};
use super::pb::identity_client::IdentityClient;
use super::pb::instances_client::InstancesClient;
use super::pb::load_balancers_client::LoadBalancersClient;
use super::pb::routes_client::RoutesClient;
use super::status::{Called, from_status};
use super::uri::PluginUri;
use super::{MESSAGE_LIMIT, encode, pb};
use crate::error::{CloudError, Result};
use crate::model::{
    Answers, Deletion, Handle, LbOutcome, LoadBalancerSpec, NodeRef, OwnedLoadBalancer, Owner, Page, Route,
};
use crate::provider::{CallCtx, Instances, LoadBalancers, Provider, ProviderInfo, Routes};

/// The service that every plug-in has.
const IDENTITY: &str = "quarterdeck.cloudprovider.v1.Identity";
pub(super) const BATCH_GET: &str = "instances.get_many";

/// Two ends count time apart: a call that the other side cancelled this near its deadline has run out of time.
const NEAR: std::time::Duration = std::time::Duration::from_millis(100);

/// A provider behind the plug-in protocol. Making one does no I/O: it connects when it is first called, and again
/// whenever the connection broke. A plug-in that is not there, or goes away in a call, is
/// [`CloudError::Unavailable`], which never means that anything is gone.
pub struct Plugin {
    connection: Connection,
}

/// A method of the protocol.
#[derive(Clone, Copy)]
struct Method {
    /// As in metrics.
    name: &'static str,
    /// Whether it may change something.
    changes: bool,
}

const fn read(name: &'static str) -> Method {
    Method { name, changes: false }
}

const fn change(name: &'static str) -> Method {
    Method { name, changes: true }
}

/// A client of a service, with our limits.
macro_rules! client {
    ($client:ident, $channel:expr) => {
        $client::new($channel).max_decoding_message_size(MESSAGE_LIMIT).max_encoding_message_size(MESSAGE_LIMIT)
    };
}

impl Plugin {
    /// The plug-in at `uri`; off a unix socket `tls` is needed.
    #[must_use]
    pub fn new(uri: PluginUri, tls: Option<TlsFiles>) -> Self {
        Self { connection: Connection::new(uri, tls) }
    }

    /// What it means that there is no `Identity`, which every plug-in has: another program, or another version.
    fn stranger(&self, error: CloudError) -> CloudError {
        match error {
            CloudError::NotImplemented(message) => CloudError::Unavailable(format!(
                "{}: it does not serve {}: a plug-in of another version, or none ({message})",
                self.connection.uri(),
                IDENTITY,
            )),
            error => error,
        }
    }

    /// Makes one call, within its deadline.
    async fn call<Q, A, F>(
        &self,
        method: Method,
        call: &CallCtx,
        question: Q,
        send: impl FnOnce(Channel, Request<Q>) -> F,
    ) -> Result<A>
    where
        Q: Message,
        F: Future<Output = std::result::Result<Response<A>, Status>>,
    {
        let started = Instant::now();
        let bytes = question.encoded_len();
        if bytes > MESSAGE_LIMIT {
            let message = format!("the request is {bytes} bytes long, and a plug-in takes {MESSAGE_LIMIT}");
            return Err(CloudError::Invalid(message));
        }
        let called = || Called {
            method: method.name,
            changes: method.changes,
            took: started.elapsed(),
            at: Some(self.connection.uri()),
        };
        let late = |maybe_applied| CloudError::Timeout { method: method.name, after: started.elapsed(), maybe_applied };
        let left = call.deadline.saturating_duration_since(started);
        if left.is_zero() {
            return Err(late(false));
        }
        let sending = async {
            let channel = self.connection.channel().await?;
            let mut request = Request::new(question);
            request.set_timeout(call.deadline.saturating_duration_since(Instant::now()));
            let answer = send(channel, request).await.map(Response::into_inner);
            let near = call.deadline.saturating_duration_since(Instant::now()) < NEAR;
            match &answer {
                // Our own end may have counted a little faster.
                Err(status) if near && status.code() == Code::Cancelled => {
                    self.connection.doubt(started);
                    return Err(late(method.changes));
                }
                // What our own end says of the connection has a source.
                Err(status) if std::error::Error::source(status).is_some() => {}
                _ => self.connection.answered(),
            }
            answer.map_err(|status| from_status(&status, &called()))
        };
        let answer = tokio::select! {
            answer = tokio::time::timeout_at(call.deadline, sending) => answer.ok(),
            // Dropping the request tells the plug-in.
            () = call.cancel.cancelled() => None,
        };
        if let Some(answer) = answer {
            return answer;
        }
        if call.deadline.saturating_duration_since(Instant::now()) >= NEAR {
            return Err(CloudError::Unavailable("the caller left".to_owned()));
        }
        self.connection.doubt(started);
        Err(late(method.changes))
    }
}

#[async_trait]
impl Provider for Plugin {
    async fn info(&self, call: &CallCtx) -> Result<ProviderInfo> {
        let question = pb::GetInfoRequest { meta: encode::meta(call, "") };
        let answer = self.call(read("identity.info"), call, question, |channel, request| async move {
            client!(IdentityClient, channel).get_info(request).await
        });
        let answer = answer.await.map_err(|error| self.stranger(error))?;
        decode::info(answer).map_err(|error| nonsense(&error))
    }

    async fn probe(&self, call: &CallCtx) -> Result<()> {
        let question = pb::ProbeRequest { meta: encode::meta(call, "") };
        let answer = self.call(read("identity.probe"), call, question, |channel, request| async move {
            client!(IdentityClient, channel).probe(request).await
        });
        answer.await.map(|_| ()).map_err(|error| self.stranger(error))
    }

    fn incarnation(&self) -> u64 {
        self.connection.made()
    }

    // Which of these the plug-in has is known only by asking it: what it lacks answers NotImplemented.

    fn instances(&self) -> Option<&dyn Instances> {
        Some(self)
    }

    fn load_balancers(&self) -> Option<&dyn LoadBalancers> {
        Some(self)
    }

    fn routes(&self) -> Option<&dyn Routes> {
        Some(self)
    }
}

#[async_trait]
impl Instances for Plugin {
    async fn get_many(&self, call: &CallCtx, nodes: &[NodeRef]) -> Result<Answers> {
        let nodes = nodes.iter().map(Into::into).collect();
        let question = pb::BatchGetRequest { meta: encode::meta(call, ""), nodes };
        let answer = self.call(read(BATCH_GET), call, question, |channel, request| async move {
            client!(InstancesClient, channel).batch_get(request).await
        });
        answer.await.map(decode::answers)
    }
}

/// Leaves out what belongs to other clusters: a plug-in that lists such things must not bring anybody to touch them.
fn own(call: &CallCtx, all: Vec<OwnedLoadBalancer>) -> Vec<OwnedLoadBalancer> {
    let (own, others): (Vec<_>, Vec<_>) = all.into_iter().partition(|one| one.owner.cluster == call.cluster);
    if let Some(first) = others.first() {
        tracing::warn!(
            count = others.len(),
            handle = first.handle.0,
            cluster = %first.owner.cluster,
            "the plug-in told of load balancers of other clusters; they are left alone"
        );
    }
    own
}

#[async_trait]
impl LoadBalancers for Plugin {
    async fn get(&self, call: &CallCtx, owner: &Owner) -> Result<Vec<OwnedLoadBalancer>> {
        let question = pb::GetLoadBalancersRequest { meta: encode::meta(call, &owner.uid), owner: Some(owner.into()) };
        let answer = self.call(read("loadbalancers.get"), call, question, |channel, request| async move {
            client!(LoadBalancersClient, channel).get(request).await
        });
        let all = decode::owned(answer.await?.load_balancers).map_err(|error| nonsense(&error))?;
        Ok(own(call, all))
    }

    async fn ensure(&self, call: &CallCtx, spec: &LoadBalancerSpec, known: Option<&Handle>) -> Result<LbOutcome> {
        let question = pb::EnsureLoadBalancerRequest {
            meta: encode::meta(call, &spec.owner.uid),
            spec: Some(spec.into()),
            known_handle: encode::handle(known),
        };
        let answer = self.call(change("loadbalancers.ensure"), call, question, |channel, request| async move {
            client!(LoadBalancersClient, channel).ensure(request).await
        });
        decode::outcome(answer.await?.outcome).map_err(|error| nonsense(&error))
    }

    async fn update_backends(&self, call: &CallCtx, spec: &LoadBalancerSpec, known: &Handle) -> Result<LbOutcome> {
        let question = pb::UpdateBackendsRequest {
            meta: encode::meta(call, &spec.owner.uid),
            spec: Some(spec.into()),
            known_handle: encode::handle(Some(known)),
        };
        let answer =
            self.call(change("loadbalancers.update_backends"), call, question, |channel, request| async move {
                client!(LoadBalancersClient, channel).update_backends(request).await
            });
        decode::outcome(answer.await?.outcome).map_err(|error| nonsense(&error))
    }

    async fn ensure_deleted(&self, call: &CallCtx, owner: &Owner, known: Option<&Handle>) -> Result<Deletion> {
        let question = pb::EnsureLoadBalancerDeletedRequest {
            meta: encode::meta(call, &owner.uid),
            owner: Some(owner.into()),
            known_handle: encode::handle(known),
        };
        let answer = self.call(change("loadbalancers.ensure_deleted"), call, question, |channel, request| async move {
            client!(LoadBalancersClient, channel).ensure_deleted(request).await
        });
        decode::deletion(answer.await?).map_err(|error| nonsense(&error))
    }

    async fn list_owned(&self, call: &CallCtx, page: Option<&str>) -> Result<Page<OwnedLoadBalancer>> {
        let page_token = page.unwrap_or_default().to_owned();
        let question = pb::ListOwnedRequest { meta: encode::meta(call, ""), page_token };
        let answer = self.call(read("loadbalancers.list_owned"), call, question, |channel, request| async move {
            client!(LoadBalancersClient, channel).list_owned(request).await
        });
        let answer = answer.await?;
        let all = decode::owned(answer.load_balancers).map_err(|error| nonsense(&error))?;
        Ok(Page { items: own(call, all), next: decode::next_page(answer.next_page_token) })
    }
}

#[async_trait]
impl Routes for Plugin {
    async fn list(&self, call: &CallCtx, page: Option<&str>) -> Result<Page<Route>> {
        let page_token = page.unwrap_or_default().to_owned();
        let question = pb::ListRoutesRequest { meta: encode::meta(call, ""), page_token };
        let answer = self.call(read("routes.list"), call, question, |channel, request| async move {
            client!(RoutesClient, channel).list(request).await
        });
        let answer = answer.await?;
        let items = decode::routes(answer.routes).map_err(|error| nonsense(&error))?;
        Ok(Page { items, next: decode::next_page(answer.next_page_token) })
    }

    async fn create(&self, call: &CallCtx, route: &Route) -> Result<()> {
        let question = pb::CreateRouteRequest { meta: encode::meta(call, ""), route: Some(route.into()) };
        let answer = self.call(change("routes.create"), call, question, |channel, request| async move {
            client!(RoutesClient, channel).create(request).await
        });
        answer.await.map(|_| ())
    }

    async fn replace(&self, call: &CallCtx, old: &Route, new: &Route) -> Result<()> {
        let question =
            pb::ReplaceRouteRequest { meta: encode::meta(call, ""), old: Some(old.into()), new: Some(new.into()) };
        let answer = self.call(change("routes.replace"), call, question, |channel, request| async move {
            client!(RoutesClient, channel).replace(request).await
        });
        match answer.await {
            // Its cloud cannot: with a gap, then.
            Err(CloudError::NotImplemented(_)) => match self.delete(call, old).await {
                Ok(()) | Err(CloudError::NotFound(_)) => self.create(call, new).await,
                Err(error) => Err(error),
            },
            answered => answered.map(|_| ()),
        }
    }

    async fn delete(&self, call: &CallCtx, route: &Route) -> Result<()> {
        let question = pb::DeleteRouteRequest { meta: encode::meta(call, ""), route: Some(route.into()) };
        let answer = self.call(change("routes.delete"), call, question, |channel, request| async move {
            client!(RoutesClient, channel).delete(request).await
        });
        answer.await.map(|_| ())
    }
}
