use std::path::Path;

use sparkherd_engine::{
    Batch, BatchSequence, ForwardError, ForwardPass, LoadError, LoadedModel, OpenGpu, Wants,
    load_model_on_device,
};
use sparkherd_footprint::KvDtype;
use sparkherd_kernels::DriverError;
use thiserror::Error;

use super::{MemoryLine, Moments, Usage, Witness, lines};
use crate::models::{CUDA, config_of};

/// Steps are recorded for each number of them up to this.
const SEQUENCES: u32 = 8;
/// A prompt's first, then some of one token: what the driver takes late it takes here.
const STEPS: u32 = 4;
const PROMPT: u32 = 24;

#[derive(Debug, Error)]
pub enum MeasureError {
    #[error(transparent)]
    Driver(#[from] DriverError),
    #[error(transparent)]
    Load(#[from] LoadError),
    #[error(transparent)]
    Forward(#[from] ForwardError),
}

/// A model to load.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    pub name: &'a str,
    pub directory: &'a Path,
}

impl Subject<'_> {
    /// Loads it as an engine does, takes some steps, and gives it back. `before` is from before `open` was opened; `stepped` is
    /// called after the last step.
    pub fn measure(
        &self,
        open: &OpenGpu,
        before: Usage,
        witness: &Witness<'_>,
        stepped: impl FnOnce(),
    ) -> Result<Vec<MemoryLine>, MeasureError> {
        let free_bytes = |open: &OpenGpu| Ok::<_, DriverError>(open.memory_info()?.0);
        let look = || Ok::<_, DriverError>(witness.look(Some(free_bytes(open)?)));
        let before = Usage { device_free_bytes: Some(open.free_bytes_before()), ..before };
        let opened = look()?;
        let config = config_of(self.directory, KvDtype::Bf16, CUDA, SEQUENCES);
        let mut model = load_model_on_device(&config, open.device()?, |limits| limits, &mut |_| {})?;
        let ready = look()?;
        steps(&mut model, config.serving.context)?;
        stepped();
        let moments = Moments { before, opened, ready, after: look()? };
        let is_unified = open.properties().is_integrated;
        Ok(lines(self.name, &model.footprint(), &moments, is_unified))
    }
}

fn steps(model: &mut LoadedModel, context: u32) -> Result<(), ForwardError> {
    let blocks = context / 16;
    let mut position = 0;
    for step in 0..STEPS {
        let token_count = if step == 0 { PROMPT.min(context / 2) } else { 1 };
        let of_one = |sequence: u32| BatchSequence {
            token_count,
            position,
            block_table: (sequence * blocks..(sequence + 1) * blocks).collect(),
            wants: Wants::LastLogits,
        };
        let tokens = (0..SEQUENCES * token_count).map(|token| token % 200).collect();
        model.forward(&Batch { tokens, sequences: (0..SEQUENCES).map(of_one).collect() })?;
        position += token_count;
    }
    Ok(())
}
