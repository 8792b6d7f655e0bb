//! Steps that a test lets happen one by one: what comes before what is then no question of speed.

use std::sync::mpsc::{Receiver, Sender, channel};

use sparkherd_engine::{Batch, ForwardError, ForwardPass, LoadedModel, StepOutput, TokenRequests};

/// A model whose every step waits to be let through.
pub(crate) struct Gated {
    model: LoadedModel,
    /// `None` once the gate stands open.
    permits: Option<Receiver<()>>,
}

/// Lets steps through; dropping it lets all of them through.
pub(crate) struct Gate(Sender<()>);

impl Gate {
    pub(crate) fn before(model: LoadedModel) -> (Self, Gated) {
        let (sender, permits) = channel();
        (Self(sender), Gated { model, permits: Some(permits) })
    }

    pub(crate) fn let_through(&self, steps: usize) {
        (0..steps).for_each(|_| self.0.send(()).unwrap());
    }
}

impl ForwardPass for Gated {
    fn step(
        &mut self,
        batch: &Batch,
        requests: &mut dyn TokenRequests,
    ) -> Result<StepOutput<'_>, ForwardError> {
        if self.permits.as_ref().is_some_and(|permits| permits.recv().is_err()) {
            self.permits = None;
        }
        self.model.step(batch, requests)
    }

    fn tokens_max(&self) -> usize {
        self.model.tokens_max()
    }

    fn sequences_max(&self) -> usize {
        self.model.sequences_max()
    }

    fn logit_rows_max(&self) -> usize {
        self.model.logit_rows_max()
    }

    fn has_logits(&self) -> bool {
        self.model.has_logits()
    }

    fn hidden(&self) -> usize {
        self.model.hidden()
    }
}
