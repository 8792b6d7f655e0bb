//! A client of a published model. With no kube-proxy here, it does what one does: it reads the Service's
//! `EndpointSlice`s and connects to an address from them.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use futures::StreamExt;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{Api, ListParams};
use serde_json::{Value, json};

/// For a whole answer: a CPU that also compiles is slow, and a hang must still end the test.
const ANSWER_DEADLINE: Duration = Duration::from_mins(5);

/// One published engine.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Endpoint {
    pub address: SocketAddr,
    pub node: String,
    pub ready: bool,
}

/// All endpoints of a Service, sorted.
pub async fn endpoints(client: &kube::Client, namespace: &str, service: &str) -> Result<Vec<Endpoint>> {
    let slices: Api<EndpointSlice> = Api::namespaced(client.clone(), namespace);
    let of_service = ListParams::default().labels(&format!("kubernetes.io/service-name={service}"));
    let mut found = Vec::new();
    for slice in slices.list(&of_service).await? {
        let port = slice.ports.iter().flatten().find_map(|port| port.port).context("slice without a port")?;
        for endpoint in slice.endpoints {
            let address: IpAddr =
                endpoint.addresses.first().context("endpoint without an address")?.parse()?;
            let ready = endpoint.conditions.and_then(|conditions| conditions.ready).unwrap_or(true);
            let address = SocketAddr::new(address, u16::try_from(port)?);
            found.push(Endpoint { address, node: endpoint.node_name.unwrap_or_default(), ready });
        }
    }
    found.sort();
    Ok(found)
}

/// What came back from a stream that ended as it should.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    pub text: String,
    pub finish_reason: String,
}

/// Speaks the `OpenAI` API to one endpoint.
#[derive(Debug, Clone)]
pub struct ChatClient {
    http: reqwest::Client,
    base_url: String,
    key: Option<String>,
}

impl ChatClient {
    pub fn new(address: SocketAddr, key: Option<&str>) -> Result<Self> {
        // A proxy in the environment knows nothing of the addresses in here.
        let http = reqwest::Client::builder().no_proxy().timeout(ANSWER_DEADLINE).build()?;
        Ok(Self { http, base_url: format!("http://{address}"), key: key.map(str::to_owned) })
    }

    /// Status and body of a POST.
    pub async fn post(&self, path: &str, body: &Value) -> Result<(u16, Value)> {
        let response = self.request(path, body).send().await?;
        let status = response.status().as_u16();
        let text = response.text().await?;
        let body = serde_json::from_str(&text).with_context(|| format!("not JSON: {text}"))?;
        Ok((status, body))
    }

    /// Asks one question with greedy decoding and hands each piece of the answer to `on_text` as it comes. A stream
    /// that ends without a finish reason and `[DONE]` is an error.
    pub async fn stream(&self, model: &str, question: &str, mut on_text: impl FnMut(&str)) -> Result<Answer> {
        let body = json!({
            "model": model, "stream": true, "temperature": 0,
            "messages": [{"role": "user", "content": question}],
        });
        let response = self.request("/v1/chat/completions", &body).send().await?;
        let status = response.status();
        if !status.is_success() {
            bail!("{status}: {}", response.text().await?);
        }
        let mut bytes = response.bytes_stream();
        let mut events = EventReader::default();
        while let Some(piece) = bytes.next().await {
            events.push(&piece.context("the stream broke off")?, &mut on_text)?;
        }
        events.finish()
    }

    fn request(&self, path: &str, body: &Value) -> reqwest::RequestBuilder {
        let request = self.http.post(format!("{}{path}", self.base_url)).json(body);
        match &self.key {
            Some(key) => request.bearer_auth(key),
            None => request,
        }
    }
}

/// Puts server-sent events together from pieces that may end anywhere.
#[derive(Debug, Default)]
struct EventReader {
    unread: Vec<u8>,
    text: String,
    finish_reason: Option<String>,
    is_done: bool,
}

impl EventReader {
    fn push(&mut self, piece: &[u8], on_text: &mut impl FnMut(&str)) -> Result<()> {
        self.unread.extend_from_slice(piece);
        while let Some(end) = self.unread.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.unread.drain(..=end).collect();
            let line = std::str::from_utf8(&line)?.trim_end();
            let Some(data) = line.strip_prefix("data:").map(str::trim_start) else { continue };
            ensure!(!self.is_done, "an event after [DONE]: {data}");
            if data == "[DONE]" {
                self.is_done = true;
                continue;
            }
            self.read_chunk(data, on_text)?;
        }
        Ok(())
    }

    fn read_chunk(&mut self, data: &str, on_text: &mut impl FnMut(&str)) -> Result<()> {
        let chunk: Value = serde_json::from_str(data).with_context(|| format!("not JSON: {data}"))?;
        if let Some(error) = chunk.get("error") {
            bail!("the engine reports {error}");
        }
        // The last chunk may carry usage and no choice.
        let choice = &chunk["choices"][0];
        if let Some(text) = choice["delta"]["content"].as_str() {
            self.text.push_str(text);
            on_text(text);
        }
        if let Some(reason) = choice["finish_reason"].as_str() {
            self.finish_reason = Some(reason.to_owned());
        }
        Ok(())
    }

    fn finish(self) -> Result<Answer> {
        ensure!(self.is_done, "the stream ended without [DONE] after {:?}", self.text);
        let finish_reason = self.finish_reason.context("the stream ended without a finish reason")?;
        Ok(Answer { text: self.text, finish_reason })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STREAM: &str = "data: {\"choices\":[{\"delta\":{\"role\":\"assistant\"}}]}\n\n\
        data: {\"choices\":[{\"delta\":{\"content\":\"Gr\u{fc}n\"}}]}\n\n\
        data: {\"choices\":[{\"delta\":{\"content\":\"kohl\"},\"finish_reason\":\"stop\"}]}\n\ndata: [DONE]\n\n";

    #[test]
    fn an_answer_is_the_same_wherever_the_pieces_end() {
        for size in 1..STREAM.len() {
            let (mut events, mut seen) = (EventReader::default(), String::new());
            for piece in STREAM.as_bytes().chunks(size) {
                events.push(piece, &mut |text: &str| seen.push_str(text)).unwrap();
            }
            let answer = events.finish().unwrap();
            assert_eq!((answer.text.as_str(), answer.finish_reason.as_str()), ("Gr\u{fc}nkohl", "stop"));
            assert_eq!(seen, answer.text);
        }
    }

    #[test]
    fn a_stream_that_just_ends_is_an_error() {
        let cut = STREAM.split("data: [DONE]").next().unwrap();
        let mut events = EventReader::default();
        events.push(cut.as_bytes(), &mut |_: &str| ()).unwrap();
        assert!(events.finish().unwrap_err().to_string().contains("without [DONE]"));
    }

    #[test]
    fn an_error_in_the_stream_is_an_error() {
        let mut events = EventReader::default();
        let event = b"data: {\"error\":{\"message\":\"engine stopped\"}}\n";
        let error = events.push(event, &mut |_: &str| ()).unwrap_err();
        assert!(error.to_string().contains("engine stopped"));
    }
}
