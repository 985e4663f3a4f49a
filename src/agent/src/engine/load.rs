//! Our table of nftables.

use std::error::Error;

use super::Engine;
use crate::nft::{self, NftError, Observed, Ruleset};
use crate::plan::Plan;

impl Engine {
    /// Brings our table to where the plan has it, all at once. `before`: what the plan before had in it; `None` if that is
    /// this one.
    pub(super) async fn load(&mut self, plan: &Plan, before: Option<&Ruleset>) -> Result<(), NftError> {
        let generation = nft::generation().ok();
        let believed = self.loaded.take().filter(|known| generation == Some(*known));
        if let Some(known) = believed {
            let before = before.unwrap_or(&plan.ruleset);
            if *before == plan.ruleset {
                self.loaded = Some(known);
                return Ok(());
            }
            let began = std::time::Instant::now();
            if let Some(changes) = nft::elements_between(before, &plan.ruleset)
                && self.send(&plan.ruleset, &changes, known)
            {
                self.tools.metrics.loads.observe(began.elapsed().as_secs_f64());
                return Ok(());
            }
        }
        let there = match (believed, before) {
            // Without anything in it there is no table.
            (Some(_), Some(before)) => (*before != Ruleset::default()).then(|| Observed::from(before)),
            _ => self.tools.nft.observe().await?,
        };
        let began = std::time::Instant::now();
        let transaction = match &there {
            _ if plan.ruleset == Ruleset::default() && there.is_none() => String::new(),
            _ if plan.ruleset == Ruleset::default() => nft::removal(),
            Some(there) => nft::update(there, &plan.ruleset),
            None => nft::full(&plan.ruleset),
        };
        // Read before the next look at the table: a change in between is seen as one.
        if transaction.is_empty() {
            self.loaded = generation;
            return Ok(());
        }
        if believed.is_none() && there.is_some() {
            self.tools.metrics.repairs.with_label_values(&["nftables"]).inc();
        }
        let outcome = self.tools.nft.load(&transaction).await;
        if let Err(error) = outcome {
            // Somebody may have changed it in between, in a way that a difference cannot mend.
            tracing::warn!(error = &error as &dyn Error, "a change was refused: our table is loaded anew");
            let whole = if plan.ruleset == Ruleset::default() { nft::removal() } else { nft::full(&plan.ruleset) };
            self.tools.nft.load(&whole).await?;
        }
        self.tools.metrics.loads.observe(began.elapsed().as_secs_f64());
        let after = nft::generation().ok();
        // One step from what we knew: it was ours.
        self.loaded = after.filter(|after| generation.is_some_and(|before| before.wrapping_add(1) == *after));
        Ok(())
    }

    /// Has the kernel change elements alone, if nobody has changed any table since. Says whether it did.
    pub(super) fn send(&mut self, ruleset: &Ruleset, changes: &nft::ElementChanges, generation: u32) -> bool {
        let Some(batch) = nft::batch(ruleset, changes, generation) else { return false };
        match nft::send(&batch) {
            Ok(()) => {
                // Zero is left out.
                self.loaded = Some(generation.wrapping_add(1).max(1));
                true
            }
            Err(error) => {
                tracing::debug!(error = &error as &dyn Error, "a change of elements was refused: nft makes it");
                false
            }
        }
    }
}
