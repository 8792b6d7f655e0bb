//! The real engine behind the seam.

use sparkherd_engine::{
    ChatPrompt, EngineHandle, EngineStats, Generation, GenerationRequest, ModelInfo, SubmitError, TemplateError, TextError,
};

use crate::engine::{ChatEngine, ChatMessage, PromptError};

impl ChatEngine for EngineHandle {
    fn info(&self) -> ModelInfo {
        Self::info(self).clone()
    }

    fn stats(&self) -> EngineStats {
        Self::stats(self)
    }

    fn encode_chat(&self, messages: &[ChatMessage]) -> Result<Vec<u32>, PromptError> {
        let messages: Result<Vec<_>, _> = messages.iter().map(serde_json::to_value).collect();
        let messages = messages.map_err(|error| PromptError::Template(error.to_string()))?;
        let prompt = ChatPrompt { messages, add_generation_prompt: true };
        Ok(self.text().encode_chat(&prompt)?)
    }

    fn encode_text(&self, text: &str) -> Result<Vec<u32>, PromptError> {
        Ok(self.text().encode(text, true)?)
    }

    fn submit(&self, request: GenerationRequest) -> Result<Generation, SubmitError> {
        Self::submit(self, request)
    }

    fn drain(&self) {
        Self::drain(self);
    }

    fn failed(&self) -> Option<String> {
        Self::failed(self)
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
