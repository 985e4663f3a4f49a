//! More endpoints than an Endpoints object, or a slice, holds.

use anyhow::{Result, ensure};
use futures::{StreamExt as _, TryStreamExt as _};
use quarterdeck_it::eventually;
use serde_json::{Value, json};

use super::bay::{Bay, PATIENCE, array, shown};

const PODS: usize = 1040;
const OVER_CAPACITY: &str = "endpoints.kubernetes.io/over-capacity";
/// Requests at a time.
const AT_ONCE: usize = 16;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn endpoints_are_cut_and_slices_are_many() -> Result<()> {
    let bay = Bay::open().await?;
    bay.node("node", "zone-a").await?;
    let pods = futures::stream::iter(0..PODS).map(|number| {
        let bay = &bay;
        async move {
            let ip = format!("10.{}.{}.1", 20 + number / 250, number % 250);
            bay.pod(&format!("pod-{number}"), json!({ "app": "web" }), "node", &ip).await
        }
    });
    pods.buffer_unordered(AT_ONCE).try_collect::<Vec<()>>().await?;
    // The service comes last: nothing is packed piece by piece.
    bay.service("web", json!({ "app": "web" }), Value::Null).await?;
    eventually("all are in full slices", PATIENCE, async || {
        let slices = bay.slices("web").await?;
        let mut sizes: Vec<usize> = slices.iter().map(|slice| array(&slice["endpoints"]).len()).collect();
        sizes.sort_unstable();
        ensure!(sizes.iter().sum::<usize>() == PODS, "{sizes:?}");
        let mut addresses = shown(&slices);
        addresses.dedup();
        ensure!(addresses.len() == PODS, "{} addresses", addresses.len());
        ensure!(sizes[0] == 40 && sizes[1..].iter().all(|size| *size == 100), "{sizes:?}");
        Ok(())
    })
    .await?;
    endpoints_hold(&bay, 1000, Some("truncated")).await?;

    let some = futures::stream::iter(0..50).map(|number| {
        let bay = &bay;
        async move { bay.delete(&format!("pods/pod-{number}")).await }
    });
    some.buffer_unordered(AT_ONCE).try_collect::<Vec<()>>().await?;
    endpoints_hold(&bay, PODS - 50, None).await?;
    eventually("the slices hold the others", PATIENCE, async || {
        let slices = bay.slices("web").await?;
        ensure!(shown(&slices).len() == PODS - 50, "{}", shown(&slices).len());
        ensure!(slices.iter().all(|slice| array(&slice["endpoints"]).len() <= 100), "too many in one");
        Ok(())
    })
    .await
}

async fn endpoints_hold(bay: &Bay, count: usize, mark: Option<&str>) -> Result<()> {
    eventually(&format!("the Endpoints hold {count} addresses, marked {mark:?}"), PATIENCE, async || {
        let endpoints = bay.endpoints("web").await?;
        let held: usize = array(&endpoints["subsets"]).iter().map(|subset| array(&subset["addresses"]).len()).sum();
        let marked = endpoints["metadata"]["annotations"][OVER_CAPACITY].as_str();
        ensure!(held == count && marked == mark, "{held}, marked {marked:?}");
        Ok(())
    })
    .await
}
