use crate::device::DeviceError;
use crate::format::{Vector, VectorArguments};

/// Which positions a query reads, and what becomes of its products with their keys before the softmax.
#[derive(Clone, Copy, Debug)]
pub struct Scoring {
    pub scale: f32,
    /// A row reads so many positions at most: its own and those just before it. At least 1.
    pub window: Option<u32>,
    /// `[query_heads]`: a logit of each head that takes part in the softmax and has no value.
    pub sinks: Option<Vector>,
    /// Scores become `softcap · tanh(score / softcap)`. Above 0.
    pub softcap: Option<f32>,
}

#[repr(C)]
pub(crate) struct ScoringArguments {
    sinks: VectorArguments,
    window: u32,
    scale: f32,
    softcap: f32,
    _end: u32,
}

impl Scoring {
    pub(crate) fn arguments(
        &self,
        kernel: &'static str,
        query_heads: u32,
    ) -> Result<ScoringArguments, DeviceError> {
        if self.window == Some(0) {
            return Err(DeviceError::Shape { kernel, what: "window", got: 0, wanted: "1 or more" });
        }
        Ok(ScoringArguments {
            sinks: VectorArguments::new(kernel, "sinks", self.sinks, query_heads)?,
            window: self.window.unwrap_or(u32::MAX),
            scale: self.scale,
            softcap: self.softcap.unwrap_or(0.0),
            _end: 0,
        })
    }
}
