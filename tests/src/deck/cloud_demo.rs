//! Clouds that can be shown.

use std::path::Path;

use anyhow::Result;

use super::{MetalDemo, SimDemo};
use crate::ControlPlane;

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

    /// Makes what the cloud is about: objects, and machines where that is possible.
    ///
    /// # Errors
    /// When the server or the kernel refuses.
    pub async fn furnish(&mut self, folder: &Path, control_plane: &ControlPlane) -> Result<()> {
        match self {
            Self::Metal(demo) => {
                demo.furnish(control_plane).await?;
                demo.build(folder, control_plane).await
            }
            Self::Sim(demo) => demo.furnish(&control_plane.admin().await?).await,
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
