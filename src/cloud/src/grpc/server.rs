//! The services of the protocol, answered by any provider.

use std::future::Future;
use std::time::Duration;

use prost::Message;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tonic::metadata::MetadataMap;
use tonic::{Request, Response, Status};

use super::decode::{self, Malformed};
use super::pb::identity_server::Identity;
use super::pb::instances_server::Instances as InstancesService;
use super::pb::load_balancers_server::LoadBalancers as LoadBalancersService;
use super::pb::routes_server::Routes as RoutesService;
use super::status::to_status;
use super::{MESSAGE_LIMIT, pb};
use crate::error::CloudError;
use crate::model::ClusterId;
use crate::provider::{CallClass, CallCtx, Instances, LoadBalancers, Routes, SharedProvider};

type Answer<T> = Result<Response<T>, Status>;

/// A provider, as the services see it.
pub(super) struct Offered(pub(super) SharedProvider);

fn invalid(error: &Malformed) -> Status {
    to_status(&CloudError::Invalid(error.to_string()))
}

/// What the header `grpc-timeout` says: digits and a unit.
fn timeout(headers: &MetadataMap) -> Option<Duration> {
    let text = headers.get("grpc-timeout")?.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let number: u64 = digits.parse().ok()?;
    match unit {
        "H" => Some(Duration::from_secs(number.saturating_mul(3600))),
        "M" => Some(Duration::from_secs(number.saturating_mul(60))),
        "S" => Some(Duration::from_secs(number)),
        "m" => Some(Duration::from_millis(number)),
        "u" => Some(Duration::from_micros(number)),
        "n" => Some(Duration::from_nanos(number)),
        _ => None,
    }
}

/// The call, as the provider is told of it.
fn context(headers: &MetadataMap, meta: Option<pb::CallMeta>, class: CallClass) -> Result<CallCtx, Status> {
    let refuse = |field: &str, reason: &str| to_status(&CloudError::Invalid(format!("meta.{field}: {reason}")));
    let meta = meta.ok_or_else(|| to_status(&CloudError::Invalid("meta: is missing".to_owned())))?;
    if meta.cluster_id.is_empty() {
        return Err(refuse("cluster_id", "is empty"));
    }
    Ok(CallCtx {
        deadline: Instant::now() + timeout(headers).unwrap_or_else(|| class.default_deadline()),
        cancel: CancellationToken::new(),
        lease_epoch: meta.lease_epoch,
        op_id: meta.op_id.parse().map_err(|_| refuse("op_id", "is no UUID"))?,
        cluster: ClusterId(meta.cluster_id.into()),
    })
}

fn sized<T: Message>(answer: T) -> Answer<T> {
    let bytes = answer.encoded_len();
    if bytes > MESSAGE_LIMIT {
        let message = format!("the answer is {bytes} bytes long, and a caller takes {MESSAGE_LIMIT}");
        return Err(to_status(&CloudError::Other(message)));
    }
    Ok(Response::new(answer))
}

impl Offered {
    /// Has the provider do a call, in a task of its own: a panic costs this call alone, and a caller that leaves
    /// cancels the call rather than cutting it off in the middle.
    async fn run<T, M, F>(&self, call: CallCtx, make: impl FnOnce(SharedProvider, CallCtx) -> F) -> Answer<M>
    where
        F: Future<Output = crate::error::Result<T>> + Send + 'static,
        T: Send + 'static,
        M: Message + From<T>,
    {
        let leaving = call.cancel.clone().drop_guard();
        let done = tokio::spawn(make(SharedProvider::clone(&self.0), call)).await;
        leaving.disarm();
        match done {
            Ok(Ok(answer)) => sized(answer.into()),
            Ok(Err(error)) => Err(to_status(&error)),
            Err(_) => Err(to_status(&CloudError::Other("the provider panicked".to_owned()))),
        }
    }
}

fn instances(provider: &SharedProvider) -> crate::error::Result<&dyn Instances> {
    provider.instances().ok_or_else(|| CloudError::NotImplemented("instances".to_owned()))
}

fn balancers(provider: &SharedProvider) -> crate::error::Result<&dyn LoadBalancers> {
    provider.load_balancers().ok_or_else(|| CloudError::NotImplemented("load balancers".to_owned()))
}

fn routes(provider: &SharedProvider) -> crate::error::Result<&dyn Routes> {
    provider.routes().ok_or_else(|| CloudError::NotImplemented("routes".to_owned()))
}

/// Splits a request into the call's context and what is asked.
macro_rules! take {
    ($request:ident, $class:ident) => {{
        let (headers, _, question) = $request.into_parts();
        (context(&headers, question.meta.clone(), CallClass::$class)?, question)
    }};
}

#[tonic::async_trait]
impl Identity for Offered {
    async fn get_info(&self, request: Request<pb::GetInfoRequest>) -> Answer<pb::GetInfoResponse> {
        let (call, _) = take!(request, Read);
        self.run(call, |provider, call| async move {
            let info = provider.info(&call).await?;
            Ok(pb::GetInfoResponse::from(&info))
        })
        .await
    }

    async fn probe(&self, request: Request<pb::ProbeRequest>) -> Answer<pb::ProbeResponse> {
        let (call, _) = take!(request, Read);
        self.run(call, |provider, call| async move {
            provider.probe(&call).await?;
            Ok(pb::ProbeResponse {})
        })
        .await
    }
}

#[tonic::async_trait]
impl InstancesService for Offered {
    async fn batch_get(&self, request: Request<pb::BatchGetRequest>) -> Answer<pb::BatchGetResponse> {
        let (call, question) = take!(request, Batch);
        let nodes: Vec<_> = question.nodes.into_iter().map(decode::node_ref).collect();
        self.run(call, |provider, call| async move {
            let answers = instances(&provider)?.get_many(&call, &nodes).await?;
            Ok(pb::BatchGetResponse::from(&answers))
        })
        .await
    }
}

#[tonic::async_trait]
impl LoadBalancersService for Offered {
    async fn get(&self, request: Request<pb::GetLoadBalancersRequest>) -> Answer<pb::GetLoadBalancersResponse> {
        let (call, question) = take!(request, Read);
        let owner = decode::owner(question.owner).map_err(|error| invalid(&error))?;
        self.run(call, |provider, call| async move {
            let all = balancers(&provider)?.get(&call, &owner).await?;
            Ok(pb::GetLoadBalancersResponse { load_balancers: all.iter().map(Into::into).collect() })
        })
        .await
    }

    async fn ensure(&self, request: Request<pb::EnsureLoadBalancerRequest>) -> Answer<pb::EnsureLoadBalancerResponse> {
        let (call, question) = take!(request, LoadBalancer);
        let spec = decode::spec(question.spec).map_err(|error| invalid(&error))?;
        let known = decode::handle(question.known_handle);
        self.run(call, |provider, call| async move {
            let outcome = balancers(&provider)?.ensure(&call, &spec, known.as_ref()).await?;
            Ok(pb::EnsureLoadBalancerResponse { outcome: Some((&outcome).into()) })
        })
        .await
    }

    async fn update_backends(&self, request: Request<pb::UpdateBackendsRequest>) -> Answer<pb::UpdateBackendsResponse> {
        let (call, question) = take!(request, LoadBalancer);
        let spec = decode::spec(question.spec).map_err(|error| invalid(&error))?;
        let known = decode::handle(question.known_handle)
            .ok_or_else(|| to_status(&CloudError::Invalid("known_handle: is empty".to_owned())))?;
        self.run(call, |provider, call| async move {
            let outcome = balancers(&provider)?.update_backends(&call, &spec, &known).await?;
            Ok(pb::UpdateBackendsResponse { outcome: Some((&outcome).into()) })
        })
        .await
    }

    async fn ensure_deleted(
        &self,
        request: Request<pb::EnsureLoadBalancerDeletedRequest>,
    ) -> Answer<pb::EnsureLoadBalancerDeletedResponse> {
        let (call, question) = take!(request, LoadBalancer);
        let owner = decode::owner(question.owner).map_err(|error| invalid(&error))?;
        let known = decode::handle(question.known_handle);
        self.run(call, |provider, call| async move {
            balancers(&provider)?.ensure_deleted(&call, &owner, known.as_ref()).await
        })
        .await
    }

    async fn list_owned(&self, request: Request<pb::ListOwnedRequest>) -> Answer<pb::ListOwnedResponse> {
        let (call, question) = take!(request, Read);
        let page = decode::next_page(question.page_token);
        self.run(call, |provider, call| async move {
            let page = balancers(&provider)?.list_owned(&call, page.as_deref()).await?;
            Ok(pb::ListOwnedResponse {
                load_balancers: page.items.iter().map(Into::into).collect(),
                next_page_token: page.next.unwrap_or_default(),
            })
        })
        .await
    }
}

#[tonic::async_trait]
impl RoutesService for Offered {
    async fn list(&self, request: Request<pb::ListRoutesRequest>) -> Answer<pb::ListRoutesResponse> {
        let (call, question) = take!(request, Read);
        let page = decode::next_page(question.page_token);
        self.run(call, |provider, call| async move {
            let page = routes(&provider)?.list(&call, page.as_deref()).await?;
            Ok(pb::ListRoutesResponse {
                routes: page.items.iter().map(Into::into).collect(),
                next_page_token: page.next.unwrap_or_default(),
            })
        })
        .await
    }

    async fn create(&self, request: Request<pb::CreateRouteRequest>) -> Answer<pb::CreateRouteResponse> {
        let (call, question) = take!(request, Route);
        let route = decode::route("route", question.route).map_err(|error| invalid(&error))?;
        self.run(call, |provider, call| async move {
            routes(&provider)?.create(&call, &route).await?;
            Ok(pb::CreateRouteResponse {})
        })
        .await
    }

    async fn replace(&self, request: Request<pb::ReplaceRouteRequest>) -> Answer<pb::ReplaceRouteResponse> {
        let (call, question) = take!(request, Route);
        let old = decode::route("old", question.old).map_err(|error| invalid(&error))?;
        let new = decode::route("new", question.new).map_err(|error| invalid(&error))?;
        self.run(call, |provider, call| async move {
            routes(&provider)?.replace(&call, &old, &new).await?;
            Ok(pb::ReplaceRouteResponse {})
        })
        .await
    }

    async fn delete(&self, request: Request<pb::DeleteRouteRequest>) -> Answer<pb::DeleteRouteResponse> {
        let (call, question) = take!(request, Route);
        let route = decode::route("route", question.route).map_err(|error| invalid(&error))?;
        self.run(call, |provider, call| async move {
            routes(&provider)?.delete(&call, &route).await?;
            Ok(pb::DeleteRouteResponse {})
        })
        .await
    }
}
