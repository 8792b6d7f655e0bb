/// What a sequence is computed for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Purpose {
    /// Its last token's logits, to go on from there.
    #[default]
    Generate,
    /// As `Generate`, and the logits of every token of its prompt.
    ScoreAndGenerate,
    /// Its last token's hidden state, once.
    EmbedLast,
    /// Every token's hidden state, once.
    EmbedMean,
}
