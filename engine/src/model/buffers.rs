use sparkherd_footprint::{Buffer, Workspace};

use crate::backend::Activation;

/// The workspace as matrices. Those with a row per token are cut to a step's tokens by [`Buffers::for_step`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Buffers {
    /// `[tokens, hidden]`: the residual stream.
    pub residual: Activation,
    /// `[tokens, hidden]`: what a layer reads, and what it adds to the residual.
    pub normed: Activation,
    /// `[tokens, query_heads · head_dim]`
    pub query: Activation,
    /// `[tokens, kv_heads · head_dim]`
    pub key: Activation,
    /// `[tokens, kv_heads · head_dim]`
    pub value: Activation,
    /// `[tokens, query_heads · head_dim]`
    pub attention: Activation,
    /// `[tokens, intermediate]`
    pub gate: Activation,
    /// `[tokens, intermediate]`
    pub up: Activation,
    /// `[tokens, head_dim]`: cosines, then sines, of each token's position.
    pub rotations: Activation,
    /// `[logit rows, hidden]`: the rows whose logits are wanted.
    pub last_hidden: Activation,
    /// `[logit rows, vocabulary]`
    pub logits: Activation,
}

impl Buffers {
    /// The buffers in the order the footprint lays them out. The arena is [`Workspace::bytes`] long.
    #[expect(clippy::cast_possible_truncation, reason = "their arena is mapped, so every size is an address")]
    pub fn new(workspace: &Workspace) -> Self {
        let mut offset = 0;
        let mut place = |buffer: Buffer, rows: u32| {
            let rows = rows as usize;
            let activation = Activation { offset, rows, columns: buffer.elements as usize / rows.max(1) };
            offset += buffer.bytes().map_or(0, |bytes| bytes as usize) / size_of::<f32>();
            activation
        };
        // Field by field in the order of `Workspace::buffers`.
        Self {
            residual: place(workspace.residual, workspace.tokens),
            normed: place(workspace.normed, workspace.tokens),
            query: place(workspace.query, workspace.tokens),
            key: place(workspace.key, workspace.tokens),
            value: place(workspace.value, workspace.tokens),
            attention: place(workspace.attention, workspace.tokens),
            gate: place(workspace.gate, workspace.tokens),
            up: place(workspace.up, workspace.tokens),
            rotations: place(workspace.rope, workspace.tokens),
            last_hidden: place(workspace.last_hidden, workspace.logit_rows),
            logits: place(workspace.logits, workspace.logit_rows),
        }
    }

    /// Rows of a step with so many tokens, of which some give logits.
    #[must_use]
    pub fn for_step(&self, tokens: usize, logit_rows: usize) -> Self {
        Self {
            residual: self.residual.first(tokens),
            normed: self.normed.first(tokens),
            query: self.query.first(tokens),
            key: self.key.first(tokens),
            value: self.value.first(tokens),
            attention: self.attention.first(tokens),
            gate: self.gate.first(tokens),
            up: self.up.first(tokens),
            rotations: self.rotations.first(tokens),
            last_hidden: self.last_hidden.first(logit_rows),
            logits: self.logits.first(logit_rows),
        }
    }
}
