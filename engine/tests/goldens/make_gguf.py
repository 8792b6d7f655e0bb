"""Makes the GGUF checkpoints and what is expected of them, as make.py does for safetensors; and of one that is
requantised.

    python make_gguf.py                     makes all of them
    python make_gguf.py tiny-gguf-q4_0      makes only what is named

Quantising and reading back are the `gguf` package's (PyPI), the arithmetic is transformers' on the weights it reads
back, and the tokens are those of the `tokenizers` objects that the metadata was written from.
"""

import json
import sys
from dataclasses import dataclass, field

import gguf
import numpy
import torch
from gguf import GGMLQuantizationType as Type
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedModel
from transformers.convert_slow_tokenizer import generate_merges

import make
from make import HERE, SEED, SPECIAL_TOKENS, Tiny

COMMON = {"bos_token_id": 0, "eos_token_id": 1, "hidden_act": "silu", "max_position_embeddings": 192}
LLAMA = COMMON | {"attention_bias": False, "mlp_bias": False}
# Published with the models: Llama 3's and Qwen2's `tokenizer.json`.
WORDS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}%s| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
TEXTS = (
    "the herd of sparks answers the questions of the shepherds",
    " 2026-11-21, 12345 sparks; don't\n\n\n  wait\t!",
    "Wie heiß? 86 °C, 日本語, 🐑 é e\u0301",
    "one<|end|> two<|begin|><tool>three",
    "",
)


@dataclass(frozen=True)
class Gguf(Tiny):
    """`types` are of the tensors whose names hold the key, the first that does; all vectors are F32."""

    architecture: str = "llama"
    types: dict[str, Type] = field(default_factory=dict)
    pre: str | None = "llama-bpe"

    def type_of(self, name: str) -> Type:
        return next(kind for part, kind in self.types.items() if part in name)


GGUF = (
    Gguf(
        "tiny-gguf-k",
        torch.float32,
        LLAMA
        | dict(hidden_size=256, intermediate_size=256, num_hidden_layers=1, num_attention_heads=4, vocab_size=283)
        | dict(num_key_value_heads=2, head_dim=16, rms_norm_eps=1e-5, tie_word_embeddings=False)
        | dict(rope_theta=10000.0, rope_scaling=make.LLAMA3_ROPE),
        # As llama.cpp's Q4_K_M: finer where it matters, and Q8_0 where a row is no multiple of 256.
        types={"embed": Type.Q6_K, "v_proj": Type.Q6_K, "down": Type.Q6_K, "o_proj": Type.Q8_0, "": Type.Q4_K},
    ),
    Gguf(
        "tiny-gguf-q8_0",
        torch.float32,
        make.COMMON_QWEN
        | dict(hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4, vocab_size=271)
        | dict(num_key_value_heads=2, head_dim=16, rms_norm_eps=1e-6, tie_word_embeddings=True)
        | dict(max_position_embeddings=64, rope_theta=10000.0)
        | dict(rope_scaling={"factor": 4.0, "original_max_position_embeddings": 64, "type": "yarn"}),
        family="qwen2",
        architecture="qwen2",
        types={"": Type.Q8_0},
        pre="qwen2",
        tied_gain=15.0,
    ),
    Gguf(
        "tiny-gguf-bf16",
        torch.float32,
        make.COMMON_QWEN
        | dict(hidden_size=36, intermediate_size=76, num_hidden_layers=2, num_attention_heads=4, vocab_size=277)
        | dict(num_key_value_heads=2, head_dim=14, rms_norm_eps=1e-6, tie_word_embeddings=False)
        | dict(max_position_embeddings=192, attention_bias=False, rope_theta=1000000.0, rope_scaling=None),
        family="qwen3",
        architecture="qwen3",
        types={"embed": Type.F16, "": Type.BF16},
        pre="qwen2",
    ),
    Gguf(
        "tiny-gguf-q4_0",
        torch.float32,
        COMMON
        | dict(hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4, vocab_size=320)
        | dict(num_key_value_heads=1, head_dim=16, rms_norm_eps=1e-5, tie_word_embeddings=False)
        | dict(sliding_window=None, rope_theta=1000000.0, bos_token_id=1, eos_token_id=2),
        family="mistral",
        types={"lm_head": Type.Q8_0, "": Type.Q4_0},
        pre=None,
    ),
)


# Requantised while it is read; the embedding is not, as it is looked up and not multiplied with.
INT8 = Tiny(
    "tiny-int8",
    torch.bfloat16,
    make.COMMON_QWEN
    | dict(hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2)
    | dict(head_dim=16, vocab_size=271, max_position_embeddings=192, rms_norm_eps=1e-6, tie_word_embeddings=False)
    | dict(rope_theta=10000.0, rope_scaling=None),
    written={"torch_dtype": "bfloat16"},
    family="qwen2",
)


def permuted(weight: numpy.ndarray, heads: int) -> numpy.ndarray:
    """Rows of each head as llama.cpp's converter orders them: the halves interleaved."""
    rows, columns = weight.shape
    return weight.reshape(heads, 2, rows // heads // 2, columns).swapaxes(1, 2).reshape(rows, columns)


def unpermuted(weight: numpy.ndarray, heads: int) -> numpy.ndarray:
    rows, columns = weight.shape
    return weight.reshape(heads, rows // heads // 2, 2, columns).swapaxes(1, 2).reshape(rows, columns)


def drawn_blocks(shape: tuple[int, int], kind: Type, spread: float, generator: numpy.random.Generator) -> numpy.ndarray:
    """Random blocks of a K-quant, which the package reads but does not write; scaled to a standard deviation."""
    elements, size = gguf.GGML_QUANT_SIZES[kind]
    blocks = generator.integers(0, 256, (shape[0] * shape[1] // elements, size), dtype=numpy.uint8)
    halves = blocks.view(numpy.float16)

    def scale(d: float) -> None:
        # Block by block another scale. In Q4_K the minima make up for the quants' mean of 7.5.
        steps = (d * generator.uniform(0.5, 1.5, len(blocks))).astype(numpy.float16)
        if kind == Type.Q4_K:
            halves[:, 0], halves[:, 1] = steps, steps * numpy.float16(7.5)
        else:
            halves[:, -1] = steps

    scale(1.0)
    scale(spread / float(gguf.quants.dequantize(blocks, kind).std()))
    return blocks.reshape(shape[0], -1)


def stored_weights(tiny: Gguf, model: PreTrainedModel) -> dict[str, tuple[numpy.ndarray, Type]]:
    """Rounds the model's weights to what the file will hold, and returns that, by GGUF's names."""
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH[tiny.architecture.upper()], tiny.config["num_hidden_layers"])
    generator = numpy.random.default_rng(SEED)
    stored = {}
    for name, parameter in model.named_parameters():
        value = parameter.detach().numpy()
        kind = Type.F32 if value.ndim == 1 else tiny.type_of(name)
        heads = None
        if tiny.architecture == "llama" and "q_proj" in name:
            heads = tiny.config["num_attention_heads"]
        elif tiny.architecture == "llama" and "k_proj" in name:
            heads = tiny.config["num_key_value_heads"]
        value = value if heads is None else permuted(value, heads)
        if kind in (Type.Q4_K, Type.Q6_K):
            data = drawn_blocks(value.shape, kind, float(value.std()), generator)
        else:
            data = gguf.quants.quantize(value, kind)
        back = gguf.quants.dequantize(data, kind).reshape(value.shape)
        back = back if heads is None else unpermuted(back, heads)
        with torch.no_grad():
            parameter.copy_(torch.from_numpy(back.copy()))
        stored[names.get_name(name, (".weight", ".bias"))] = (data, kind)
    return stored


def byte_level(tiny: Gguf) -> Tokenizer:
    """The tokenizer of make.py with the words of the `pre`, a token of the user's, and no end by itself."""
    tokenizer = make.byte_tokenizer(tiny.config["vocab_size"] - 1)
    digits = "{1,3}" if tiny.pre == "llama-bpe" else ""
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(WORDS % digits), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    if tiny.pre == "qwen2":
        tokenizer.normalizer = normalizers.NFC()
    tokenizer.add_tokens([AddedToken("<tool>", special=False, normalized=False)])
    begin = SPECIAL_TOKENS[0]
    tokenizer.post_processor = processors.TemplateProcessing(single=f"{begin} $A", special_tokens=[(begin, 0)])
    return tokenizer


def sentence_piece(tiny: Gguf) -> tuple[Tokenizer, list[str], list[float], list[int]]:
    """Unknown, begin, end, bytes, and pieces with scores; merges from the scores as transformers makes them."""
    specials = ["<unk>", "<s>", "</s>"]
    pieces = specials + [f"<0x{byte:02X}>" for byte in range(256)]
    letters = sorted(set("▁abcdefhiknoprstuw"))
    joint = ["▁t", "he", "▁the", "er", "s▁", "sp", "ar", "▁sp", "▁spark", "ark", "▁a", "an", "sw", "answ", "▁answ"]
    joint += ["ers", "▁sh", "ep", "her", "ds", "es", "ti", "on", "ques", "que", "qu", "th", "herd", "▁of", "of", "in"]
    pieces += (letters + joint + [f"▁w{letter}" for letter in letters])[: tiny.config["vocab_size"] - len(pieces)]
    pieces += [f"<extra{index}>" for index in range(tiny.config["vocab_size"] - len(pieces))]
    first = len(specials) + 256
    scores = [0.0] * first + [-float(index) for index in range(len(pieces) - first)]
    # Unknown, control, byte, normal.
    types = [2, 3, 3] + [6] * 256 + [1] * (len(pieces) - first)
    vocabulary = {piece: index for index, piece in enumerate(pieces)}
    merges = generate_merges(vocabulary, {piece: scores[index] for index, piece in enumerate(pieces)})
    made = {(left, right) for left, right in merges if types[vocabulary[left + right]] == 1}
    tokenizer = Tokenizer(
        models.BPE(vocabulary, [m for m in map(tuple, merges) if m in made], unk_token="<unk>", fuse_unk=True, byte_fallback=True)
    )
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    back = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    tokenizer.decoder = decoders.Sequence(back)
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in specials[1:]])
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return tokenizer, pieces, scores, types


def write_tokenizer(tiny: Gguf, writer: gguf.GGUFWriter) -> Tokenizer:
    if tiny.pre is None:
        tokenizer, tokens, scores, types = sentence_piece(tiny)
        writer.add_tokenizer_model("llama")
        writer.add_token_scores(scores)
        writer.add_unk_token_id(0)
    else:
        tokenizer = byte_level(tiny)
        model = json.loads(tokenizer.to_str())["model"]
        tokens = [tokenizer.id_to_token(index) for index in range(tokenizer.get_vocab_size())]
        types = [3 if token in SPECIAL_TOKENS else 4 if token == "<tool>" else 1 for token in tokens]
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre(tiny.pre)
        writer.add_token_merges([" ".join(merge) for merge in model["merges"]])
        writer.add_add_bos_token(True)
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    writer.add_bos_token_id(tiny.config["bos_token_id"])
    writer.add_eos_token_id(tiny.config["eos_token_id"])
    writer.add_chat_template("{{ bos_token }}{% for message in messages %}{{ message.content }}{{ eos_token }}{% endfor %}")
    return tokenizer


def write_checkpoint(tiny: Gguf, model: PreTrainedModel, stored: dict[str, tuple[numpy.ndarray, Type]]) -> Tokenizer:
    folder = HERE / tiny.name
    folder.mkdir(exist_ok=True)
    config = tiny.config
    writer = gguf.GGUFWriter(folder / "model.gguf", tiny.architecture)
    writer.add_name(tiny.name)
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_freq_base(config["rope_theta"])
    writer.add_key_length(config["head_dim"])
    writer.add_value_length(config["head_dim"])
    scaling = config.get("rope_scaling") or {}
    if scaling.get("type") == "yarn":
        writer.add_rope_scaling_type(gguf.RopeScalingType.YARN)
        writer.add_rope_scaling_factor(scaling["factor"])
        writer.add_rope_scaling_orig_ctx_len(scaling["original_max_position_embeddings"])
    tokenizer = write_tokenizer(tiny, writer)
    for name, (data, kind) in stored.items():
        writer.add_tensor(name, data, raw_dtype=kind)
    if scaling.get("rope_type") == "llama3":
        plain = tiny.model(rope_scaling=None).model.rotary_emb.inv_freq
        writer.add_tensor("rope_freqs.weight", (plain / model.model.rotary_emb.inv_freq).numpy().astype(numpy.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return tokenizer


def write_texts(tiny: Gguf, tokenizer: Tokenizer) -> None:
    texts = []
    for text in TEXTS:
        tokens = tokenizer.encode(text).ids
        texts.append({"text": text, "tokens": tokens, "decoded": tokenizer.decode(tokens)})
    make.write_json(HERE / f"{tiny.name}.texts.json", texts)


def make_int8() -> None:
    """The checkpoint in BF16, and what is expected where its matrices are Q8_0."""
    model = INT8.model()
    make.random_weights(model, INT8)
    make.write_checkpoint(INT8, model)
    for name, parameter in model.named_parameters():
        value = parameter.detach().numpy()
        if value.ndim == 2 and "embed" not in name:
            back = gguf.quants.dequantize(gguf.quants.quantize(value, Type.Q8_0), Type.Q8_0)
            with torch.no_grad():
                parameter.copy_(torch.from_numpy(back))
    cases, tensors = make.tiny_expectations(INT8, model)
    make.write_expectations(INT8.name, f"engine/tests/goldens/{INT8.name}", cases, tensors)


def main() -> None:
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    names = sys.argv[1:]
    for tiny in (tiny for tiny in GGUF if not names or tiny.name in names):
        model = tiny.model()
        make.random_weights(model, tiny)
        stored = stored_weights(tiny, model)
        tokenizer = write_checkpoint(tiny, model, stored)
        write_texts(tiny, tokenizer)
        cases, tensors = make.tiny_expectations(tiny, model)
        make.write_expectations(tiny.name, f"engine/tests/goldens/{tiny.name}", cases, tensors)
    if not names or INT8.name in names:
        make_int8()


if __name__ == "__main__":
    try:
        main()
    except ValueError as error:
        sys.exit(f"make_gguf.py: {error}")
