"""Writes one seeded random Llama checkpoint as safetensors (BF16) and as GGUF (BF16, Q8_0, Q4_0).

    python make_checkpoint.py DIRECTORY

DIRECTORY/safetensors/ has config.json, model.safetensors and a stand-in for the tokenizer, which benchmarks do not use;
DIRECTORY/{bf16,q8_0,q4_0}/model.gguf have the same values, the block formats rounded from the BF16 ones.
"""

import json
import pathlib
import struct
import sys

import numpy as np

HIDDEN, LAYERS, HEADS, KV_HEADS, HEAD_DIM, INTERMEDIATE, VOCAB = 1024, 24, 16, 4, 64, 4096, 32000
CONTEXT, EPSILON, THETA, SEED = 4096, 1e-5, 10000.0, 17
ALIGNMENT = 32
# Numbers of ggml's types and of llama.cpp's file types.
GGML_F32, GGML_Q4_0, GGML_Q8_0, GGML_BF16 = 0, 2, 8, 30
FILE_TYPE = {GGML_Q4_0: 2, GGML_Q8_0: 7, GGML_BF16: 32}
UINT32, INT32, FLOAT32, STRING, ARRAY = 4, 5, 6, 8, 9
# A chat is its messages' contents.
CHAT_TEMPLATE = "{% for message in messages %}{{ message.content }}{% endfor %}"
# Kinds of sentencepiece's tokens.
NORMAL, UNKNOWN, CONTROL, BYTE = 1, 2, 3, 6


def to_bf16(values):
    bits = values.astype(np.float32).view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


def from_bf16(stored):
    return (stored.astype(np.uint32) << 16).view(np.float32)


def tensors():
    """Names as transformers has them, values as BF16 bits, in the order they are stored."""
    random = np.random.default_rng(SEED)

    def matrix(rows, columns):
        return to_bf16(random.standard_normal((rows, columns), dtype=np.float32) / np.sqrt(np.float32(columns)))

    def norm():
        return to_bf16(1 + random.standard_normal(HIDDEN, dtype=np.float32) / 16)

    yield "model.embed_tokens.weight", matrix(VOCAB, HIDDEN)
    for layer in range(LAYERS):
        prefix = f"model.layers.{layer}."
        yield prefix + "input_layernorm.weight", norm()
        yield prefix + "self_attn.q_proj.weight", matrix(HEADS * HEAD_DIM, HIDDEN)
        yield prefix + "self_attn.k_proj.weight", matrix(KV_HEADS * HEAD_DIM, HIDDEN)
        yield prefix + "self_attn.v_proj.weight", matrix(KV_HEADS * HEAD_DIM, HIDDEN)
        yield prefix + "self_attn.o_proj.weight", matrix(HIDDEN, HEADS * HEAD_DIM)
        yield prefix + "post_attention_layernorm.weight", norm()
        yield prefix + "mlp.gate_proj.weight", matrix(INTERMEDIATE, HIDDEN)
        yield prefix + "mlp.up_proj.weight", matrix(INTERMEDIATE, HIDDEN)
        yield prefix + "mlp.down_proj.weight", matrix(HIDDEN, INTERMEDIATE)
    yield "model.norm.weight", norm()
    yield "lm_head.weight", matrix(VOCAB, HIDDEN)


def write_safetensors(directory, stored):
    directory.mkdir(parents=True, exist_ok=True)
    config = {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": HIDDEN,
        "intermediate_size": INTERMEDIATE, "num_hidden_layers": LAYERS, "num_attention_heads": HEADS,
        "num_key_value_heads": KV_HEADS, "head_dim": HEAD_DIM, "vocab_size": VOCAB,
        "max_position_embeddings": CONTEXT, "rms_norm_eps": EPSILON, "rope_theta": THETA, "hidden_act": "silu",
        "tie_word_embeddings": False, "torch_dtype": "bfloat16",
    }
    (directory / "config.json").write_text(json.dumps(config))
    (directory / "tokenizer.json").write_text("{}")
    header, offset = {}, 0
    for name, values in stored.items():
        header[name] = {"dtype": "BF16", "shape": list(values.shape), "data_offsets": [offset, offset + values.nbytes]}
        offset += values.nbytes
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(directory / "model.safetensors", "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for values in stored.values():
            file.write(values.tobytes())


def q8_0(values):
    blocks = values.reshape(-1, 32)
    step = np.abs(blocks).max(axis=1, keepdims=True) / np.float32(127)
    inverse = np.divide(1, step, out=np.zeros_like(step), where=step > 0)
    scaled = blocks * inverse
    quants = np.copysign(np.floor(np.abs(scaled) + np.float32(0.5)), scaled).astype(np.int8)
    return np.concatenate([step.astype(np.float16).view(np.uint8), quants.view(np.uint8)], axis=1)


def q4_0(values):
    blocks = values.reshape(-1, 32)
    largest = np.take_along_axis(blocks, np.abs(blocks).argmax(axis=1)[:, None], axis=1)
    step = largest / np.float32(-8)
    inverse = np.divide(1, step, out=np.zeros_like(step), where=step != 0)
    quants = np.minimum(blocks * inverse + np.float32(8.5), 15).astype(np.uint8)
    packed = quants[:, :16] | quants[:, 16:] << 4
    return np.concatenate([step.astype(np.float16).view(np.uint8), packed], axis=1)


GGUF_NAMES = {
    "input_layernorm": "attn_norm", "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output", "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down",
}


def gguf_name(name):
    whole = {"model.embed_tokens.weight": "token_embd.weight", "model.norm.weight": "output_norm.weight",
             "lm_head.weight": "output.weight"}
    if name in whole:
        return whole[name]
    _, _, layer, rest = name.split(".", 3)
    return f"blk.{layer}.{GGUF_NAMES[rest.removesuffix('.weight')]}.weight"


def interleaved(values, heads):
    """Rows of a head from halves (transformers) to neighbouring pairs, which llama.cpp's rope turns."""
    return values.reshape(heads, 2, HEAD_DIM // 2, -1).swapaxes(1, 2).reshape(values.shape)


def gguf_tensor(name, values, ggml_type):
    """Type and bytes of a tensor."""
    if values.ndim == 1:
        return GGML_F32, from_bf16(values).tobytes()
    if ".q_proj." in name:
        values = interleaved(values, HEADS)
    if ".k_proj." in name:
        values = interleaved(values, KV_HEADS)
    if ggml_type == GGML_BF16:
        return ggml_type, np.ascontiguousarray(values).tobytes()
    rounded = q8_0 if ggml_type == GGML_Q8_0 else q4_0
    return ggml_type, rounded(from_bf16(np.ascontiguousarray(values))).tobytes()


def vocabulary():
    """Texts and kinds of a sentencepiece vocabulary that can write any text and means nothing."""
    special = [("<unk>", UNKNOWN), ("<s>", CONTROL), ("</s>", CONTROL)]
    tokens = special + [(f"<0x{byte:02X}>", BYTE) for byte in range(256)]
    return tokens + [(f"\u2581w{index}", NORMAL) for index in range(VOCAB - len(tokens))]


def write_gguf(path, stored, ggml_type):
    path.parent.mkdir(parents=True, exist_ok=True)

    def string(text):
        stored = text.encode()
        return struct.pack("<Q", len(stored)) + stored

    def array(kind, values):
        items = b"".join(string(v) if kind == STRING else struct.pack(formats[kind], v) for v in values)
        return struct.pack("<IQ", kind, len(values)) + items

    formats = {UINT32: "<I", INT32: "<i", FLOAT32: "<f"}
    keys = [
        ("general.architecture", STRING, "llama"), ("general.name", STRING, "random"),
        ("general.file_type", UINT32, FILE_TYPE[ggml_type]), ("general.alignment", UINT32, ALIGNMENT),
        ("llama.vocab_size", UINT32, VOCAB), ("llama.context_length", UINT32, CONTEXT),
        ("llama.embedding_length", UINT32, HIDDEN), ("llama.block_count", UINT32, LAYERS),
        ("llama.feed_forward_length", UINT32, INTERMEDIATE), ("llama.attention.head_count", UINT32, HEADS),
        ("llama.attention.head_count_kv", UINT32, KV_HEADS), ("llama.rope.dimension_count", UINT32, HEAD_DIM),
        ("llama.attention.layer_norm_rms_epsilon", FLOAT32, EPSILON), ("llama.rope.freq_base", FLOAT32, THETA),
        ("tokenizer.ggml.model", STRING, "llama"), ("tokenizer.ggml.bos_token_id", UINT32, 1),
        ("tokenizer.ggml.eos_token_id", UINT32, 2), ("tokenizer.ggml.unknown_token_id", UINT32, 0),
        ("tokenizer.chat_template", STRING, CHAT_TEMPLATE),
        ("tokenizer.ggml.tokens", ARRAY, array(STRING, [text for text, _ in vocabulary()])),
        ("tokenizer.ggml.token_type", ARRAY, array(INT32, [kind for _, kind in vocabulary()])),
        ("tokenizer.ggml.scores", ARRAY, array(FLOAT32, [-float(index) for index in range(VOCAB)])),
    ]
    head = struct.pack("<4sIQQ", b"GGUF", 3, len(stored), len(keys))
    for key, kind, value in keys:
        head += string(key) + struct.pack("<I", kind)
        if kind == ARRAY:
            head += value
        else:
            head += string(value) if kind == STRING else struct.pack(formats[kind], value)
    offset, data = 0, []
    for name, values in stored.items():
        kind, contents = gguf_tensor(name, values, ggml_type)
        shape = values.shape[::-1]
        head += string(gguf_name(name)) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, kind, offset)
        contents += bytes(-len(contents) % ALIGNMENT)
        offset += len(contents)
        data.append(contents)
    with open(path, "wb") as file:
        file.write(head + bytes(-len(head) % ALIGNMENT))
        for contents in data:
            file.write(contents)


def main():
    directory = pathlib.Path(sys.argv[1])
    stored = dict(tensors())
    write_safetensors(directory / "safetensors", stored)
    for name, ggml_type in [("bf16", GGML_BF16), ("q8_0", GGML_Q8_0), ("q4_0", GGML_Q4_0)]:
        write_gguf(directory / name / "model.gguf", stored, ggml_type)


main()
