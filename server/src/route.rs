//! The paths that exist. What `/openapi.json` says is checked against this list.

/// One path and the one method it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Route {
    ChatCompletions,
    Completions,
    Embeddings,
    Tokenize,
    Detokenize,
    Models,
    Model,
    Healthz,
    Metrics,
    Version,
    OpenApi,
}

impl Route {
    #[cfg(test)]
    pub(crate) const ALL: [Self; 11] = [
        Self::ChatCompletions,
        Self::Completions,
        Self::Embeddings,
        Self::Tokenize,
        Self::Detokenize,
        Self::Models,
        Self::Model,
        Self::Healthz,
        Self::Metrics,
        Self::Version,
        Self::OpenApi,
    ];

    /// The route of a request's path, and what the path says beyond it: a model's name may contain slashes.
    pub(crate) fn of(path: &str) -> Option<(Self, &str)> {
        let route = match path {
            "/v1/chat/completions" => Self::ChatCompletions,
            "/v1/completions" => Self::Completions,
            "/v1/embeddings" => Self::Embeddings,
            "/tokenize" => Self::Tokenize,
            "/detokenize" => Self::Detokenize,
            "/v1/models" | "/v1/models/" => Self::Models,
            "/healthz" => Self::Healthz,
            "/metrics" => Self::Metrics,
            "/version" => Self::Version,
            "/openapi.json" => Self::OpenApi,
            _ => return path.strip_prefix("/v1/models/").map(|name| (Self::Model, name)),
        };
        Some((route, ""))
    }

    pub(crate) const fn method(self) -> &'static str {
        match self {
            Self::ChatCompletions
            | Self::Completions
            | Self::Embeddings
            | Self::Tokenize
            | Self::Detokenize => "POST",
            Self::Models | Self::Model | Self::Healthz | Self::Metrics | Self::Version | Self::OpenApi => {
                "GET"
            }
        }
    }

    /// The path as a document writes it.
    #[cfg(test)]
    pub(crate) const fn template(self) -> &'static str {
        match self {
            Self::ChatCompletions => "/v1/chat/completions",
            Self::Completions => "/v1/completions",
            Self::Embeddings => "/v1/embeddings",
            Self::Tokenize => "/tokenize",
            Self::Detokenize => "/detokenize",
            Self::Models => "/v1/models",
            Self::Model => "/v1/models/{model}",
            Self::Healthz => "/healthz",
            Self::Metrics => "/metrics",
            Self::Version => "/version",
            Self::OpenApi => "/openapi.json",
        }
    }
}
