//! A provider in Rust: machines from a file of lines `NAME ADDRESS`, offered as a plug-in.
//!
//! ```text
//! cargo run -p quarterdeck_cloud --example provider -- machines.txt /run/quarterdeck/rack.sock
//! quarterdeck --cloud-provider=rack=grpc:unix:///run/quarterdeck/rack.sock
//! ```
//! The same provider in a manager of one's own, without a plug-in, is [`kind`].

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use quarterdeck_cloud::facility::ProviderKind;
use quarterdeck_cloud::model::{AddressKind, Answers, Instance, Lookup, NodeAddress, NodeRef, Proof};
use quarterdeck_cloud::provider::{ProviderInfo, SharedProvider};
use quarterdeck_cloud::{CallCtx, CloudError, Instances, Provider};
use tokio::net::UnixListener;
use tokio_util::sync::CancellationToken;

const SCHEME: &str = "rack";

/// Machines that somebody wrote down.
struct Rack {
    file: PathBuf,
}

impl Rack {
    /// Name and address of each machine. A file that cannot be read, or a line that makes no sense, is an error and
    /// never an empty list: nobody's machine is gone for it.
    async fn machines(&self) -> Result<HashMap<String, String>, CloudError> {
        let named = |problem: &str| CloudError::Unavailable(format!("{}: {problem}", self.file.display()));
        let text = tokio::fs::read_to_string(&self.file).await.map_err(|error| named(&error.to_string()))?;
        let line = |(number, line): (usize, &str)| match line.split_once(' ') {
            Some((name, address)) => Ok((name.to_owned(), address.trim().to_owned())),
            None => Err(named(&format!("line {}: it has to be NAME ADDRESS", number + 1))),
        };
        text.lines().enumerate().filter(|(_, text)| !text.trim().is_empty()).map(line).collect()
    }
}

#[async_trait]
impl Provider for Rack {
    async fn info(&self, _: &CallCtx) -> Result<ProviderInfo, CloudError> {
        Ok(ProviderInfo {
            name: "rack".to_owned(),
            schemes: vec![SCHEME.to_owned()],
            max_batch: 1000,
            instances: true,
            load_balancers: false,
            routes: false,
            needs_addresses: false,
        })
    }

    async fn probe(&self, _: &CallCtx) -> Result<(), CloudError> {
        self.machines().await.map(|_| ())
    }

    fn instances(&self) -> Option<&dyn Instances> {
        Some(self)
    }
}

#[async_trait]
impl Instances for Rack {
    async fn get_many(&self, _: &CallCtx, nodes: &[NodeRef]) -> Result<Answers, CloudError> {
        let machines = self.machines().await?;
        let look = |node: &NodeRef| {
            let name = match node.provider_id.as_deref().map(|id| id.split_once("://")) {
                None => &*node.name,
                Some(Some((SCHEME, name))) => name,
                // Somebody else's: nothing is known of it, least of all that it is gone.
                Some(_) => return Lookup::NotMine,
            };
            let Some(address) = machines.get(name) else {
                let evidence = format!("{} has no line for {name}", self.file.display());
                return Lookup::Absent(Proof { evidence });
            };
            Lookup::Found(Box::new(Instance {
                provider_id: format!("{SCHEME}://{name}"),
                instance_type: String::new(),
                addresses: vec![NodeAddress { kind: AddressKind::InternalIp, address: address.clone() }],
                zone: String::new(),
                region: String::new(),
                labels: BTreeMap::new(),
                shutdown: false,
            }))
        };
        let nodes = nodes.iter().map(|node| (node.clone(), Ok(look(node)))).collect();
        Ok(Answers { account: self.file.display().to_string(), nodes })
    }
}

/// For a manager of one's own: `Manager::builder(…).given(ProviderKinds(vec![kind()]))` knows `--cloud-provider=rack=FILE`.
#[must_use]
pub fn kind() -> ProviderKind {
    ProviderKind {
        name: "rack",
        make: |making| Ok(Arc::new(Rack { file: making.uri.unwrap_or("/etc/machines").into() })),
        load_balancer_grants: Vec::new,
        route_grants: Vec::new,
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(file), Some(socket)) = (arguments.next(), arguments.next()) else {
        return Err("usage: provider FILE SOCKET".into());
    };
    let rack: SharedProvider = Arc::new(Rack { file: file.into() });
    // Whoever may connect may do everything: the folder's rights decide.
    let listener = UnixListener::bind(socket)?;
    quarterdeck_cloud::grpc::serve(rack, listener, CancellationToken::new()).await?;
    Ok(())
}
