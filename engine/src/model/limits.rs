/// What the arenas were sized for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StepLimits {
    /// Most tokens of one step.
    pub tokens: usize,
    /// Most sequences of one step.
    pub sequences: usize,
    /// Most rows of logits of one step.
    pub logit_rows: usize,
    /// Tokens one sequence may hold.
    pub context: usize,
    /// Blocks of the KV pool.
    pub blocks: usize,
}
