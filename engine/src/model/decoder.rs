//! The decoder of Llama, Mistral, Qwen2 and Qwen3: normalisation before each part, grouped-query attention with rotary
//! positions, gated feed-forward. The families differ in which weights a layer has, not in the order of operations, so
//! they share this file; the first that orders them otherwise gets its own.

use sparkherd_checkpoint::{ModelConfig, OutputHead};

use super::{Buffers, Step, StepLimits};
use crate::{
    backend::{
        Add, AddRmsNorm, Answer, Backend, BackendError, Embed, GatherRows, HeadNorms, Linear, RmsNorm,
        StepNumbers, Weight,
    },
    batch::{Batch, BatchSequence, Choice, ForwardError, ForwardPass, Rows, StepOutput, Wants},
    layers::{AttentionLayer, GatedFeedForward, Projection, RotaryEmbedding},
    sample::TokenRequests,
    weights::{PlacementError, UnclaimedWeights},
};

#[derive(Clone, Copy, Debug)]
struct Layer {
    /// `[hidden]`
    attention_norm: Weight,
    attention: AttentionLayer,
    /// `[hidden]`
    feed_forward_norm: Weight,
    feed_forward: GatedFeedForward,
}

/// Weights in the order of their operations.
#[derive(Debug)]
struct Pass {
    /// `[vocabulary, hidden]`
    embedding: Weight,
    layers: Vec<Layer>,
    /// `[hidden]`
    norm: Weight,
    /// `[vocabulary, hidden]`; the embedding itself where the checkpoint ties them, `None` where it has no logits.
    head: Option<Weight>,
    epsilon: f32,
}

/// A loaded model on a backend.
#[derive(Debug)]
pub struct Decoder<B> {
    backend: B,
    pass: Pass,
    rope: RotaryEmbedding,
    /// A step's rotations on their way to the backend.
    rotations: Vec<f32>,
    buffers: Buffers,
    limits: StepLimits,
    step: Step,
    /// Of each sequence of the step.
    chosen: Vec<Choice>,
}

impl<B: Backend> Decoder<B> {
    /// Takes every weight of the architecture; none may be left.
    #[expect(clippy::cast_possible_truncation, reason = "epsilon is added to f32 means")]
    pub fn new(
        backend: B,
        config: &ModelConfig,
        mut weights: UnclaimedWeights,
        buffers: Buffers,
        limits: StepLimits,
    ) -> Result<Self, PlacementError> {
        let embedding = weights.take("model.embed_tokens.weight")?;
        let layers = (0..config.layers as usize)
            .map(|index| Layer::take(index, config, &mut weights))
            .collect::<Result<_, _>>()?;
        let norm = weights.take("model.norm.weight")?;
        let head = match config.head {
            OutputHead::Tied => Some(embedding),
            OutputHead::Own => Some(weights.take("lm_head.weight")?),
            OutputHead::Absent => None,
        };
        weights.finish()?;
        let rope = RotaryEmbedding::new(&config.rope, config.head_dim as usize);
        Ok(Self {
            backend,
            pass: Pass { embedding, layers, norm, head, epsilon: config.rms_norm_eps as f32 },
            rotations: Vec::with_capacity(limits.tokens * rope.head_dim()),
            rope,
            buffers,
            limits,
            step: Step::new(limits),
            chosen: Vec::with_capacity(limits.sequences),
        })
    }

    /// Tells the backend what a step's operations are about to use.
    fn begin(&mut self, tokens: &[u32], buffers: &Buffers) -> Result<(), BackendError> {
        let step = &self.step;
        let head_dim = self.rope.head_dim();
        self.rotations.resize(step.positions().len() * head_dim, 0.0);
        for (position, rotation) in step.positions().iter().zip(self.rotations.chunks_exact_mut(head_dim)) {
            self.rope.rotation(*position, rotation);
        }
        self.backend.write(buffers.rotations, &self.rotations)?;
        self.backend.begin_step(StepNumbers {
            tokens,
            slots: step.slots(),
            sequences: step.sequences(),
            block_tables: step.block_tables(),
            logit_rows: step.logit_rows(),
        })
    }

    fn run(&mut self, tokens: &[u32], buffers: &Buffers) -> Result<(), BackendError> {
        self.begin(tokens, buffers)?;
        let rows = tokens.len();
        if self.step.is_decode() && self.backend.replay(rows)? {
            return Ok(());
        }
        let Self { backend, pass, step, .. } = self;
        pass.operations(backend, step, tokens, buffers)
    }

    /// Has the backend record steps with one token of each sequence, for as many sequences as it wants.
    pub fn record_decodes(&mut self) -> Result<(), ForwardError> {
        for rows in 1..=self.backend.recorded_rows_max() {
            let sequence =
                BatchSequence { token_count: 1, position: 0, block_table: vec![0], wants: Wants::LastLogits };
            let batch = Batch { tokens: vec![0; rows], sequences: vec![sequence; rows] };
            self.step.fill(&batch)?;
            let buffers = self.buffers.for_step(rows, rows);
            self.begin(&batch.tokens, &buffers)?;
            let Self { backend, pass, step, .. } = self;
            backend.begin_recording(rows)?;
            let recorded = pass.operations(backend, step, &batch.tokens, &buffers);
            // What was begun is ended, whatever became of it; the first error is the one to tell.
            let ended = backend.end_recording();
            recorded.and(ended)?;
        }
        Ok(())
    }
}

impl Pass {
    fn operations(
        &self,
        backend: &mut impl Backend,
        step: &Step,
        tokens: &[u32],
        buffers: &Buffers,
    ) -> Result<(), BackendError> {
        let Buffers { residual, normed, .. } = *buffers;
        let epsilon = self.epsilon;
        backend.embed(Embed { tokens, table: self.embedding, out: residual })?;
        for (index, layer) in self.layers.iter().enumerate() {
            let weight = layer.attention_norm;
            if index == 0 {
                backend.rms_norm(RmsNorm { x: residual, weight, epsilon, out: normed })?;
            } else {
                backend.add_rms_norm(AddRmsNorm { residual, x: normed, weight, epsilon })?;
            }
            layer.attention.forward(backend, buffers, step)?;
            let weight = layer.feed_forward_norm;
            backend.add_rms_norm(AddRmsNorm { residual, x: normed, weight, epsilon })?;
            layer.feed_forward.forward(backend, buffers)?;
        }
        self.finish(backend, step, buffers)
    }

    /// Final norm and head of the rows that were asked for. Hidden states end in the first rows of the residual stream.
    fn finish(&self, backend: &mut impl Backend, step: &Step, buffers: &Buffers) -> Result<(), BackendError> {
        let Buffers { residual, normed, last_hidden, logits, .. } = *buffers;
        let (weight, epsilon) = (self.norm, self.epsilon);
        let (logit_rows, hidden_rows) = (step.logit_rows(), step.hidden_rows());
        if logit_rows.is_empty() && hidden_rows.is_empty() {
            return Ok(());
        }
        backend.add(Add { x: residual, delta: normed })?;
        if let Some(head) = self.head.filter(|_| !logit_rows.is_empty()) {
            backend.gather_rows(GatherRows { x: residual, rows: logit_rows, out: last_hidden })?;
            let normed = normed.first(logit_rows.len());
            backend.rms_norm(RmsNorm { x: last_hidden, weight, epsilon, out: normed })?;
            backend.linear(Linear { x: normed, weight: head, out: logits })?;
        }
        if !hidden_rows.is_empty() {
            backend.rms_norm(RmsNorm { x: residual, weight, epsilon, out: normed })?;
            let out = residual.first(hidden_rows.len());
            backend.gather_rows(GatherRows { x: normed, rows: hidden_rows, out })?;
        }
        Ok(())
    }
}

impl Layer {
    #[expect(clippy::cast_possible_truncation, reason = "epsilon is added to f32 means")]
    fn take(
        index: usize,
        config: &ModelConfig,
        weights: &mut UnclaimedWeights,
    ) -> Result<Self, PlacementError> {
        let mut take = |name: &str| weights.take(&format!("model.layers.{index}.{name}"));
        let has_bias = config.architecture.has_attention_bias();
        let mut projection = |name: &str| -> Result<Projection, PlacementError> {
            Ok(Projection {
                weight: take(&format!("self_attn.{name}.weight"))?,
                bias: has_bias.then(|| take(&format!("self_attn.{name}.bias"))).transpose()?,
            })
        };
        let (query, key, value) = (projection("q_proj")?, projection("k_proj")?, projection("v_proj")?);
        let head_norms = if config.architecture.has_head_norm() {
            let epsilon = config.rms_norm_eps as f32;
            let (query, key) = (take("self_attn.q_norm.weight")?, take("self_attn.k_norm.weight")?);
            Some(HeadNorms { query, key, epsilon })
        } else {
            None
        };
        Ok(Self {
            attention_norm: take("input_layernorm.weight")?,
            attention: AttentionLayer {
                index,
                query,
                key,
                value,
                head_norms,
                output: take("self_attn.o_proj.weight")?,
            },
            feed_forward_norm: take("post_attention_layernorm.weight")?,
            feed_forward: GatedFeedForward {
                gate: take("mlp.gate_proj.weight")?,
                up: take("mlp.up_proj.weight")?,
                down: take("mlp.down_proj.weight")?,
            },
        })
    }
}

impl<B: Backend> ForwardPass for Decoder<B> {
    fn step(
        &mut self,
        batch: &Batch,
        requests: &mut dyn TokenRequests,
    ) -> Result<StepOutput<'_>, ForwardError> {
        self.step.fill(batch)?;
        let vocab_size = self.pass.embedding.rows;
        if let Some(token) = batch.tokens.iter().find(|token| **token as usize >= vocab_size) {
            let what = format!("token {token} is not below the vocabulary size {vocab_size}");
            return Err(ForwardError::Inconsistent(what));
        }
        if self.pass.head.is_none() && !self.step.logit_rows().is_empty() {
            let what = "logits are wanted of a checkpoint without an output head";
            return Err(ForwardError::Inconsistent(what.to_owned()));
        }
        let buffers = self.buffers.for_step(batch.tokens.len(), self.step.logit_rows().len());
        if !batch.tokens.is_empty() {
            self.run(&batch.tokens, &buffers)?;
        }
        let hidden = buffers.residual.first(self.step.hidden_rows().len());
        self.chosen.clear();
        self.chosen.resize(batch.sequences.len(), None);
        let (rows, chosen) = (self.step.token_rows(), self.chosen.as_mut_slice());
        let answer = Answer { logits: buffers.logits, hidden, rows, requests, chosen };
        let [logits, hidden_states] = self.backend.answer(answer)?;
        Ok(StepOutput {
            logits: Rows { values: logits, width: vocab_size },
            hidden: Rows { values: hidden_states, width: hidden.columns },
            chosen: &self.chosen,
        })
    }

    fn tokens_max(&self) -> usize {
        self.limits.tokens
    }

    fn sequences_max(&self) -> usize {
        self.limits.sequences
    }

    fn logit_rows_max(&self) -> usize {
        self.limits.logit_rows
    }

    fn has_logits(&self) -> bool {
        self.pass.head.is_some()
    }

    fn hidden(&self) -> usize {
        self.pass.embedding.columns
    }
}
