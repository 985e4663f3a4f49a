//! `metal`: machines without a vendor. Instances come from an inventory file; load balancers and routes are objects in
//! the cluster, which agents on gateways and nodes put into their kernels.

pub mod inventory;
