//! A small valid GGUF in memory, to be spoiled by each test in its own way.

/// A value of the metadata, with its type.
#[derive(Clone, Debug)]
pub enum Meta {
    U32(u32),
    F32(f32),
    Flag(bool),
    Text(&'static str),
    Texts(Vec<&'static str>),
    I32s(Vec<i32>),
    /// A type's number and bytes as they are.
    Raw(u32, Vec<u8>),
}

#[derive(Clone, Debug)]
pub struct File {
    pub version: u32,
    pub metadata: Vec<(&'static str, Meta)>,
    /// Name, dimensions with columns first, number of ggml's type.
    pub tensors: Vec<(String, Vec<u64>, u32)>,
    /// Every byte of the data.
    pub fill: u8,
    /// Bytes left out before the second tensor.
    pub gap: u64,
}

const Q8_0: u32 = 8;

fn text(out: &mut Vec<u8>, text: &str) {
    out.extend((text.len() as u64).to_le_bytes());
    out.extend(text.as_bytes());
}

impl Meta {
    fn write(&self, out: &mut Vec<u8>) {
        let list = |out: &mut Vec<u8>, kind: u32, count: usize| {
            out.extend(9_u32.to_le_bytes());
            out.extend(kind.to_le_bytes());
            out.extend((count as u64).to_le_bytes());
        };
        match self {
            Self::U32(value) => {
                out.extend(4_u32.to_le_bytes());
                out.extend(value.to_le_bytes());
            }
            Self::F32(value) => {
                out.extend(6_u32.to_le_bytes());
                out.extend(value.to_le_bytes());
            }
            Self::Flag(value) => {
                out.extend(7_u32.to_le_bytes());
                out.push(u8::from(*value));
            }
            Self::Text(value) => {
                out.extend(8_u32.to_le_bytes());
                text(out, value);
            }
            Self::Texts(values) => {
                list(out, 8, values.len());
                for value in values {
                    text(out, value);
                }
            }
            Self::I32s(values) => {
                list(out, 5, values.len());
                for value in values {
                    out.extend(value.to_le_bytes());
                }
            }
            Self::Raw(kind, bytes) => {
                out.extend(kind.to_le_bytes());
                out.extend(bytes);
            }
        }
    }
}

impl File {
    /// One layer of Q8_0 with F32 norms, tied, and six tokens.
    pub fn llama() -> Self {
        Self::of("llama", &[])
    }

    /// The same with normalised heads.
    pub fn qwen3() -> Self {
        let mut file = Self::of("qwen3", &["attn_q_norm", "attn_k_norm"]);
        file.set("tokenizer.ggml.pre", Meta::Text("qwen2"));
        file
    }

    fn of(architecture: &'static str, head_norms: &[&str]) -> Self {
        let hyperparameters: [(&'static str, &'static str, Meta); 7] = [
            ("llama.block_count", "qwen3.block_count", Meta::U32(1)),
            ("llama.context_length", "qwen3.context_length", Meta::U32(128)),
            ("llama.embedding_length", "qwen3.embedding_length", Meta::U32(64)),
            ("llama.feed_forward_length", "qwen3.feed_forward_length", Meta::U32(32)),
            ("llama.attention.head_count", "qwen3.attention.head_count", Meta::U32(2)),
            ("llama.attention.head_count_kv", "qwen3.attention.head_count_kv", Meta::U32(1)),
            (
                "llama.attention.layer_norm_rms_epsilon",
                "qwen3.attention.layer_norm_rms_epsilon",
                Meta::F32(1e-5),
            ),
        ];
        let mut metadata = vec![("general.architecture", Meta::Text(architecture))];
        metadata.extend(
            hyperparameters
                .map(|(llama, qwen3, value)| (if architecture == "llama" { llama } else { qwen3 }, value)),
        );
        metadata.extend([
            ("tokenizer.ggml.model", Meta::Text("gpt2")),
            ("tokenizer.ggml.pre", Meta::Text("llama-bpe")),
            ("tokenizer.ggml.tokens", Meta::Texts(vec!["<s>", "</s>", "a", "b", "ab", "c"])),
            ("tokenizer.ggml.token_type", Meta::I32s(vec![3, 3, 1, 1, 1, 1])),
            ("tokenizer.ggml.merges", Meta::Texts(vec!["a b"])),
            ("tokenizer.ggml.bos_token_id", Meta::U32(0)),
            ("tokenizer.ggml.eos_token_id", Meta::U32(1)),
        ]);
        let mut tensors = vec![
            ("token_embd.weight".to_owned(), vec![64, 6], Q8_0),
            ("output_norm.weight".to_owned(), vec![64], 0),
        ];
        for (name, dimensions) in [
            ("attn_q", [64, 64]),
            ("attn_k", [64, 32]),
            ("attn_v", [64, 32]),
            ("attn_output", [64, 64]),
            ("ffn_gate", [64, 32]),
            ("ffn_up", [64, 32]),
            ("ffn_down", [32, 64]),
        ] {
            tensors.push((format!("blk.0.{name}.weight"), dimensions.to_vec(), Q8_0));
        }
        for name in ["attn_norm", "ffn_norm"] {
            tensors.push((format!("blk.0.{name}.weight"), vec![64], 0));
        }
        for name in head_norms {
            tensors.push((format!("blk.0.{name}.weight"), vec![32], 0));
        }
        Self { version: 3, metadata, tensors, fill: 0, gap: 0 }
    }

    /// Replaces a value, or adds it.
    pub fn set(&mut self, key: &'static str, value: Meta) {
        match self.metadata.iter_mut().find(|(name, _)| *name == key) {
            Some((_, old)) => *old = value,
            None => self.metadata.push((key, value)),
        }
    }

    /// Says a key twice.
    pub fn repeat(&mut self, key: &'static str) {
        let again = self.metadata.iter().find(|(name, _)| *name == key).expect("there").clone();
        self.metadata.push(again);
    }

    pub fn bytes(&self) -> Vec<u8> {
        let mut out = b"GGUF".to_vec();
        out.extend(self.version.to_le_bytes());
        out.extend((self.tensors.len() as u64).to_le_bytes());
        out.extend((self.metadata.len() as u64).to_le_bytes());
        for (key, value) in &self.metadata {
            text(&mut out, key);
            value.write(&mut out);
        }
        let mut offset = 0_u64;
        for (index, (name, dimensions, kind)) in self.tensors.iter().enumerate() {
            text(&mut out, name);
            out.extend(u32::try_from(dimensions.len()).expect("few").to_le_bytes());
            for size in dimensions {
                out.extend(size.to_le_bytes());
            }
            out.extend(kind.to_le_bytes());
            offset += if index == 1 { self.gap } else { 0 };
            out.extend(offset.to_le_bytes());
            let elements = dimensions.iter().fold(1_u64, |product, size| product.saturating_mul(*size));
            let bytes =
                if *kind == Q8_0 { (elements / 32).saturating_mul(34) } else { elements.saturating_mul(4) };
            offset = offset.saturating_add(bytes.min(1 << 20)).next_multiple_of(32);
        }
        out.resize(out.len().next_multiple_of(32), 0);
        out.resize(out.len() + usize::try_from(offset).expect("small"), self.fill);
        out
    }
}
