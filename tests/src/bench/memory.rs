//! Memory and processor time of one replica with the three endpoint controllers, from its start until
//! everything is written and 15 s of rest are over.

use std::collections::HashMap;
use std::time::Duration;

use anyhow::Result;
use serde_json::Value;

use crate::api::{Change, Watch};
use crate::contestant::{Crew, Side, mebibytes};
use crate::report::{Collector, Goal, Report};
use crate::yard::{ENDPOINTS, SLICES, Yard};

/// The controllers that are compared here and under flips.
pub(crate) const CONTROLLERS: [&str; 3] =
    ["endpoints-controller", "endpointslice-controller", "endpointslice-mirroring-controller"];
/// Services of the crowded namespace.
pub(crate) const SERVICES: usize = 80;
/// Nodes of the crowded namespace.
pub(crate) const NODES: usize = 40;
/// Pods of the crowded namespace in its largest size.
pub(crate) const PODS: usize = 8000;

const REST: Duration = Duration::from_secs(15);

/// Measures at 2,000, 4,000 and 8,000 pods.
pub(crate) async fn run(yard: &mut Yard, report: &mut Report) -> Result<()> {
    let mut figures = Vec::new();
    let mut by_size = HashMap::new();
    for (pods, usual) in [(2000, 3), (4000, 3), (PODS, 5)] {
        yard.fill(pods, SERVICES, NODES).await?;
        let goal = |part| if pods == PODS { Goal::Ratio(part) } else { Goal::None };
        let mut resident = Collector::new(format!("RSS, {pods} pods"), "MiB", goal(0.25));
        let mut peak = Collector::new(format!("highest RSS, {pods} pods"), "MiB", Goal::None);
        let mut cpu = Collector::new(format!("CPU until written and 15 s, {pods} pods"), "s", goal(0.5));
        for round in 0..report.rounds(usual) {
            for side in Side::both(round) {
                yard.clear().await?;
                let crew = Crew::start(&yard.control_plane, &yard.http, side, &CONTROLLERS, 1, &[]).await?;
                written(yard, pods).await?;
                tokio::time::sleep(REST).await;
                let usage = crew.leader().usage()?;
                resident.add(side, mebibytes(usage.resident));
                peak.add(side, mebibytes(usage.peak_resident));
                cpu.add(side, usage.cpu.as_secs_f64());
                by_size.entry((side.title(), pods)).or_insert_with(Vec::new).push(mebibytes(usage.resident));
                crew.stop().await?;
            }
        }
        figures.extend([resident, peak, cpu]);
    }
    let mut growth = Collector::new("growth of RSS per pod, 2,000 to 8,000 pods", "KiB", Goal::Ratio(0.2));
    for side in Side::both(0) {
        let samples = |pods| by_size.get(&(side.title(), pods)).map_or(&[][..], Vec::as_slice);
        for (small, large) in samples(2000).iter().zip(samples(PODS)) {
            growth.add(side, (large - small) * 1024.0 / 6000.0);
        }
    }
    figures.push(growth);
    report.take("memory", figures);
    Ok(())
}

/// Waits until slices and Endpoints name every pod.
pub(crate) async fn written(yard: &Yard, pods: usize) -> Result<()> {
    let slices = count(yard.http.watch(SLICES).await?, pods, |slice| length(&slice["endpoints"]));
    let endpoints = count(yard.http.watch(ENDPOINTS).await?, pods, |endpoints| {
        let subsets = endpoints["subsets"].as_array().map_or(&[][..], Vec::as_slice);
        subsets.iter().map(|subset| length(&subset["addresses"]) + length(&subset["notReadyAddresses"])).sum()
    });
    tokio::try_join!(slices, endpoints)?;
    Ok(())
}

async fn count(mut watch: Watch, pods: usize, of: impl Fn(&Value) -> usize) -> Result<()> {
    let mut numbers = HashMap::new();
    let all = |seen: &crate::api::Seen| {
        let name = seen.object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        if seen.change == Change::Deleted {
            numbers.remove(&name);
        } else {
            numbers.insert(name, of(&seen.object));
        }
        numbers.values().sum::<usize>() == pods
    };
    watch.until("every pod is in its slices and Endpoints", all).await.map(drop)
}

fn length(list: &Value) -> usize {
    list.as_array().map_or(0, Vec::len)
}
