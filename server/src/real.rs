//! The real engine behind the seam.

use std::thread::JoinHandle;

use sparkherd_engine::{
    ChatPrompt, EngineHandle, EngineStats, Generation, GenerationRequest, ModelInfo, SubmitError,
    TemplateError, TextError,
};

use crate::engine::{ChatEngine, ChatMessage, PromptError};

/// A started engine and the thread it runs on.
#[derive(Debug)]
pub(crate) struct RealEngine {
    pub(crate) handle: EngineHandle,
    pub(crate) worker: JoinHandle<()>,
}

impl ChatEngine for RealEngine {
    fn info(&self) -> ModelInfo {
        self.handle.info().clone()
    }

    fn stats(&self) -> EngineStats {
        self.handle.stats()
    }

    fn encode_chat(&self, messages: &[ChatMessage]) -> Result<Vec<u32>, PromptError> {
        let messages: Result<Vec<_>, _> = messages.iter().map(serde_json::to_value).collect();
        let messages = messages.map_err(|error| PromptError::Template(error.to_string()))?;
        let prompt = ChatPrompt { messages, add_generation_prompt: true };
        Ok(self.handle.text().encode_chat(&prompt)?)
    }

    fn encode_text(&self, text: &str) -> Result<Vec<u32>, PromptError> {
        Ok(self.handle.text().encode(text, true)?)
    }

    fn submit(&self, request: GenerationRequest) -> Result<Generation, SubmitError> {
        self.handle.submit(request)
    }

    fn drain(&self) {
        self.handle.drain();
    }

    /// A worker that has ended without a reason of its own has panicked: while this handle lives it has none to end.
    fn failed(&self) -> Option<String> {
        let ended = || self.worker.is_finished().then(|| "worker thread has ended".to_owned());
        self.handle.failed().or_else(ended)
    }
}

impl From<TextError> for PromptError {
    fn from(error: TextError) -> Self {
        match error {
            TextError::Template(TemplateError::Missing) => Self::NoChatTemplate,
            TextError::Template(error) => Self::Template(error.to_string()),
            error => Self::Tokenizer(error.to_string()),
        }
    }
}
