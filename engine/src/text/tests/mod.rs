mod chat;
mod detokenizer;
mod load;
mod stop;
mod transformers;
mod vocabulary;
