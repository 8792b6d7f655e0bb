mod chat;
mod detokenizer;
mod load;
mod stop;
mod transformers;
pub(super) mod vocabulary;
