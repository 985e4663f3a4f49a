//! Clouds that can be shown.

use anyhow::Result;

use super::{MetalDemo, SimDemo};

/// A cloud that is shown.
pub enum CloudDemo {
    /// Machines of an inventory.
    Metal(MetalDemo),
    /// A made-up cloud.
    Sim(SimDemo),
}

impl CloudDemo {
    /// Flags of replicas, and of their installation.
    #[must_use]
    pub fn flags(&self) -> Vec<String> {
        match self {
            Self::Metal(demo) => demo.flags(),
            Self::Sim(demo) => demo.flags(),
        }
    }

    /// Makes the objects that the cloud is about.
    ///
    /// # Errors
    /// When the server refuses.
    pub async fn furnish(&self, client: &kube::Client) -> Result<()> {
        match self {
            Self::Metal(demo) => demo.furnish(client).await,
            Self::Sim(demo) => demo.furnish(client).await,
        }
    }

    /// What to try.
    pub fn describe(&self) {
        match self {
            Self::Metal(demo) => demo.describe(),
            Self::Sim(demo) => demo.describe(),
        }
    }
}
