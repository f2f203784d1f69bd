#!/usr/bin/env python3
"""Makes the golden data of tests/models: per architecture a tiny model with known weights, run by Hugging Face
transformers (eager, float32).

    pip install torch transformers numpy     # any recent CPU build
    python make.py [NAME..]                  # rewrites NAME.json and NAME.bin beside this file

NAME.json describes the GGUF file (metadata, tensors) and the run (tokens, context, dumped rows). The weights are
not stored: element i of tensor T is a hash of (T, i), rounded to float16, which tests/testing/tiny_models.h computes
as well (`element` below). NAME.bin is float32, little-endian: for each dumped row the residual stream after every
layer, then the logits. Tensor names, shapes, permutations and metadata follow llama.cpp's convert_hf_to_gguf.py."""
import json
import math
import pathlib
import sys

import numpy as np
import torch
import transformers

HERE = pathlib.Path(__file__).resolve().parent
VOCAB = 320
TOKENS = 24
ROWS = [0, 9, 16, 23]
MASK = (1 << 64) - 1


# ---- weights ---------------------------------------------------------------------------------------------------

def name_seed(name):
    """FNV-1a, 64 bits."""
    h = 0xcbf29ce484222325
    for byte in name.encode():
        h = ((h ^ byte) * 0x100000001b3) & MASK
    return h


def mix(z):
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xbf58476d1ce4e5b9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94d049bb133111eb)
    return z ^ (z >> np.uint64(31))


def element(name, n, scale, offset):
    """n elements of tensor `name`: offset + scale * uniform[-1, 1), float32, rounded to float16."""
    with np.errstate(over="ignore"):
        index = np.arange(n, dtype=np.uint64)
        bits = mix(np.uint64(name_seed(name)) + np.uint64(0x9e3779b97f4a7c15) * (index + np.uint64(1)))
    unit = (bits >> np.uint64(40)).astype(np.float32) * np.float32(2.0**-23) - np.float32(1)
    return (np.float32(offset) + np.float32(scale) * unit).astype(np.float16).astype(np.float32)


def scale_of(name, dims):
    """(scale, offset), both exact in float32: about unit variance through a matrix; peaked attention; norms near 1."""
    if "norm" in name:
        return 0.25, 1.0
    if name.endswith(".bias"):
        return 0.25, 0.0
    if name == "token_embd.weight":
        return 1.0, 0.0
    scale = math.sqrt(3.0 / dims[0])
    if "attn_q" in name or "attn_k" in name:
        scale *= 1.5
    return round(scale * 4096) / 4096, 0.0


def unpermute(w, heads):
    """Inverse of the converter's permutation of llama's q and k rows: adjacent pairs back to halves."""
    rows = w.shape[0]
    return w.reshape(heads, rows // heads // 2, 2, *w.shape[1:]).swapaxes(1, 2).reshape(w.shape)


def permute(w, heads):
    """The converter's (LlamaModel.permute)."""
    rows = w.shape[0]
    return w.reshape(heads, 2, rows // heads // 2, *w.shape[1:]).swapaxes(1, 2).reshape(w.shape)


# ---- tokenizers ------------------------------------------------------------------------------------------------

def byte_alphabet():
    """GPT-2's printable stand-ins for the 256 bytes."""
    kept = [*range(33, 127), *range(161, 173), *range(174, 256)]
    table, extra = {}, 256
    for b in range(256):
        table[b] = chr(b) if b in kept else chr(extra)
        extra += b not in kept
    return [table[b] for b in range(256)]


def bpe_tokenizer(pre, bos, eos, chat):
    pairs = ("\u0120 t,\u0120 a,h e,i n,r e,o n,e r,a t,e n,o r,e s,i s,i t,o u,a n,\u0120 s,\u0120 w,\u0120 c,"
             "\u0120 b,\u0120 f,a l,a r,l e,n d,\u0120 o,\u0120 m,\u0120 p,\u0120 d,\u0120 h,i c,a s,l l,o m,e d,"
             "\u0120t he,in g,\u0120a nd,io n,en t,\u0120 in,\u0120t o,\u0120o f,\u0120b e,\u0120 re,s t,v e,r o,l y,"
             "c h,i d,u r,e l,a m,o l,\u0120 n,\u0120 l,\u0120 g,t h,o t,i on").split(",")
    merges, tokens = [], byte_alphabet()
    for pair in pairs:
        left, right = pair.split(" ")
        if left in tokens and right in tokens and left + right not in tokens:
            merges.append(pair)
            tokens.append(left + right)
    specials = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    while len(tokens) + len(specials) < VOCAB:
        specials.append(f"<|pad{len(specials)}|>")
    types = [1] * len(tokens) + [3] * len(specials)
    tokens += specials
    meta = {
        "tokenizer.ggml.model": ["str", "gpt2"], "tokenizer.ggml.pre": ["str", pre],
        "tokenizer.ggml.tokens": ["[str]", tokens], "tokenizer.ggml.token_type": ["[i32]", types],
        "tokenizer.ggml.merges": ["[str]", merges],
        "tokenizer.ggml.bos_token_id": ["u32", tokens.index(bos)],
        "tokenizer.ggml.eos_token_id": ["u32", tokens.index(eos)],
        "tokenizer.ggml.add_bos_token": ["bool", False],
    }
    if chat:
        meta["tokenizer.chat_template"] = ["str", (
            "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + "
            "'<|im_end|>' + '\\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}"
            "{% endif %}")]
    return meta


def spm_tokenizer(add_bos, space_prefix):
    tokens, types, scores = ["<unk>", "<s>", "</s>"], [2, 3, 3], [0.0, 0.0, 0.0]
    for b in range(256):
        tokens.append(f"<0x{b:02X}>")
        types.append(6)
        scores.append(0.0)
    pieces = ["\u2581t", "he", "in", "\u2581the", "er", "\u2581a", "on", "re", "an", "\u2581s", "ing", "or", "en",
              "at", "\u2581an", "\u2581and", "es", "is", "ou", "it", "\u2581to", "\u2581of", "ed", "al"]
    letters = ["\u2581", *"etaoinsrhldcumfpgwybvk,.xAT"]
    for i, piece in enumerate((pieces + letters + [f"piece{i}" for i in range(VOCAB)])[:VOCAB - 259]):
        tokens.append(piece)
        types.append(1)
        scores.append(-float(i))
    return {
        "tokenizer.ggml.model": ["str", "llama"], "tokenizer.ggml.pre": ["str", "default"],
        "tokenizer.ggml.tokens": ["[str]", tokens], "tokenizer.ggml.scores": ["[f32]", scores],
        "tokenizer.ggml.token_type": ["[i32]", types],
        "tokenizer.ggml.bos_token_id": ["u32", 1], "tokenizer.ggml.eos_token_id": ["u32", 2],
        "tokenizer.ggml.unknown_token_id": ["u32", 0],
        "tokenizer.ggml.add_bos_token": ["bool", add_bos], "tokenizer.ggml.add_eos_token": ["bool", False],
        "tokenizer.ggml.add_space_prefix": ["bool", space_prefix],
    }


BPE_LLAMA3 = bpe_tokenizer("llama-bpe", "<|endoftext|>", "<|im_end|>", False)
BPE_SMOLLM = bpe_tokenizer("smollm", "<|im_start|>", "<|im_end|>", True)
BPE_OLMO = bpe_tokenizer("olmo", "<|endoftext|>", "<|endoftext|>", False)
BPE_QWEN = bpe_tokenizer("qwen2", "<|endoftext|>", "<|im_end|>", True)
SPM = spm_tokenizer(True, True)
SPM_GEMMA = spm_tokenizer(True, False)

# ---- models ----------------------------------------------------------------------------------------------------

TINY = dict(vocab_size=VOCAB, hidden_size=64, intermediate_size=96, num_hidden_layers=3, num_attention_heads=4,
            num_key_value_heads=2, max_position_embeddings=256, rms_norm_eps=1e-5, tie_word_embeddings=False,
            bos_token_id=1, eos_token_id=2, pad_token_id=0)
THETA = {"rope_type": "default", "rope_theta": 10000.0}
YARN = {"rope_type": "yarn", "rope_theta": 10000.0, "factor": 4.0, "original_max_position_embeddings": 128,
        "beta_fast": 2.0, "beta_slow": 1.0}
LONG = [1.0 + 0.7 * i for i in range(6)]
SHORT = [1.0 + 0.05 * i for i in range(6)]
LONGROPE = {"rope_type": "longrope", "rope_theta": 10000.0, "partial_rotary_factor": 0.75, "long_factor": LONG,
            "short_factor": SHORT, "original_max_position_embeddings": 16}


def gemma3(**changes):
    rope = {"sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
            "full_attention": {"rope_type": "default", "rope_theta": 1000000.0}}
    return dict(arch="gemma3", tokenizer=SPM_GEMMA, config=dict(
        TINY, num_hidden_layers=7, num_key_value_heads=1, head_dim=32, sliding_window=8, query_pre_attn_scalar=32,
        tie_word_embeddings=True, rope_parameters=rope) | changes)


MODELS = {
    "llama": dict(arch="llama", tokenizer=BPE_SMOLLM, config=dict(
        TINY, hidden_size=256, intermediate_size=256, tie_word_embeddings=True, rope_parameters=THETA)),
    "llama3": dict(arch="llama", tokenizer=BPE_LLAMA3, config=dict(TINY, attention_bias=True, rope_parameters={
        "rope_type": "llama3", "rope_theta": 500000.0, "factor": 8.0, "low_freq_factor": 1.0,
        "high_freq_factor": 4.0, "original_max_position_embeddings": 128})),
    "llama_linear": dict(arch="llama", tokenizer=SPM, config=dict(
        TINY, rope_parameters={"rope_type": "linear", "rope_theta": 10000.0, "factor": 4.0})),
    "llama_yarn": dict(arch="llama", tokenizer=SPM, config=dict(TINY, rope_parameters=YARN)),
    "mistral": dict(arch="llama", hf="mistral", tokenizer=SPM, config=dict(
        TINY, sliding_window=8, head_dim=32, rope_parameters=THETA)),
    "qwen2": dict(arch="qwen2", tokenizer=BPE_QWEN, config=dict(
        TINY, tie_word_embeddings=True, rope_parameters=dict(THETA, rope_theta=1000000.0))),
    "qwen2_yarn": dict(arch="qwen2", tokenizer=BPE_QWEN, config=dict(
        TINY, rope_parameters=dict(YARN, attention_factor=1.25))),
    "qwen3": dict(arch="qwen3", tokenizer=BPE_QWEN, config=dict(
        TINY, head_dim=32, rope_parameters=dict(THETA, rope_theta=1000000.0))),
    "mixtral": dict(arch="llama", hf="mixtral", tokenizer=SPM, config=dict(
        TINY, num_local_experts=5, num_experts_per_tok=2, rope_parameters=THETA)),
    "qwen2moe": dict(arch="qwen2moe", hf="qwen2_moe", tokenizer=BPE_QWEN, config=dict(
        TINY, num_experts=6, num_experts_per_tok=3, moe_intermediate_size=96, shared_expert_intermediate_size=80,
        norm_topk_prob=False, rope_parameters=dict(THETA, rope_theta=1000000.0))),
    # No choice of an expert here is so close that rounding keys to q8_0 turns it.
    "qwen3moe": dict(arch="qwen3moe", hf="qwen3_moe", tokenizer=BPE_QWEN, config=dict(
        TINY, head_dim=32, num_experts=7, num_experts_per_tok=2, moe_intermediate_size=96, norm_topk_prob=True,
        rope_parameters=dict(THETA, rope_theta=1000000.0))),
    "olmoe": dict(arch="olmoe", tokenizer=BPE_OLMO, config=dict(
        TINY, num_experts=5, num_experts_per_tok=3, norm_topk_prob=False, rope_parameters=THETA)),
    "gemma3": gemma3(),
    "gemma3_scaled": gemma3(final_logit_softcapping=4.0, rope_parameters={
        "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
        "full_attention": {"rope_type": "linear", "rope_theta": 1000000.0, "factor": 8.0}}),
    "phi3": dict(arch="phi3", tokenizer=SPM, config=dict(TINY, sliding_window=12, rope_parameters=THETA)),
    "phi3_long": dict(arch="phi3", tokenizer=SPM, context=64, config=dict(
        TINY, max_position_embeddings=64, original_max_position_embeddings=16, rope_parameters=LONGROPE)),
    # The same file, loaded for a context within the original one: HF takes the short factors for these tokens.
    "phi3_short": dict(arch="phi3", tokenizer=SPM, context=16, tokens=16, rows=[0, 5, 10, 15], config=dict(
        TINY, max_position_embeddings=64, original_max_position_embeddings=16, rope_parameters=LONGROPE)),
}


def metadata(spec, config):
    arch, rope = spec["arch"], config.rope_parameters
    full = rope.get("full_attention", rope)
    heads, head_dim = config.num_attention_heads, head_dim_of(config)
    meta = {
        "general.architecture": ["str", arch], "general.name": ["str", f"tiny {arch}"],
        f"{arch}.block_count": ["u32", config.num_hidden_layers],
        f"{arch}.context_length": ["u32", config.max_position_embeddings],
        f"{arch}.embedding_length": ["u32", config.hidden_size],
        f"{arch}.feed_forward_length": ["u32", config.intermediate_size],
        f"{arch}.attention.head_count": ["u32", heads],
        f"{arch}.attention.head_count_kv": ["u32", config.num_key_value_heads],
        f"{arch}.attention.layer_norm_rms_epsilon": ["f32", config.rms_norm_eps],
        f"{arch}.rope.freq_base": ["f32", full["rope_theta"]],
        f"{arch}.vocab_size": ["u32", VOCAB],
    }
    if head_dim != config.hidden_size // heads or arch in ("qwen3", "qwen3moe", "gemma3"):
        meta[f"{arch}.attention.key_length"] = ["u32", head_dim]
        meta[f"{arch}.attention.value_length"] = ["u32", head_dim]
    experts = getattr(config, "num_local_experts", None) or getattr(config, "num_experts", None)
    if experts:
        meta[f"{arch}.expert_count"] = ["u32", experts]
        meta[f"{arch}.expert_used_count"] = ["u32", config.num_experts_per_tok]
        if arch.startswith("qwen"):
            meta[f"{arch}.expert_feed_forward_length"] = ["u32", config.moe_intermediate_size]
        if arch == "qwen2moe":
            meta[f"{arch}.expert_shared_feed_forward_length"] = ["u32", config.shared_expert_intermediate_size]
    if arch in ("llama", "phi3"):
        meta[f"{arch}.rope.dimension_count"] = ["u32", rotary_dim(config)]
    if arch == "gemma3":
        meta["gemma3.rope.freq_base_swa"] = ["f32", rope["sliding_attention"]["rope_theta"]]
        if config.final_logit_softcapping:
            meta["gemma3.final_logit_softcapping"] = ["f32", config.final_logit_softcapping]
    if getattr(config, "sliding_window", None) and arch in ("llama", "gemma3", "phi3"):
        meta[f"{arch}.attention.sliding_window"] = ["u32", config.sliding_window]
    if full["rope_type"] in ("linear", "yarn"):
        meta[f"{arch}.rope.scaling.type"] = ["str", full["rope_type"]]
        meta[f"{arch}.rope.scaling.factor"] = ["f32", full["factor"]]
    if full["rope_type"] == "yarn":
        meta[f"{arch}.rope.scaling.original_context_length"] = ["u32", full["original_max_position_embeddings"]]
        meta[f"{arch}.rope.scaling.yarn_beta_fast"] = ["f32", full["beta_fast"]]
        meta[f"{arch}.rope.scaling.yarn_beta_slow"] = ["f32", full["beta_slow"]]
        if "attention_factor" in full:
            meta[f"{arch}.rope.scaling.yarn_attn_factor"] = ["f32", full["attention_factor"]]
    if full["rope_type"] == "longrope":
        original = full["original_max_position_embeddings"]
        scale = config.max_position_embeddings / original
        meta[f"{arch}.rope.scaling.original_context_length"] = ["u32", original]
        meta[f"{arch}.rope.scaling.attn_factor"] = ["f32", math.sqrt(1 + math.log(scale) / math.log(original))]
    return meta | spec["tokenizer"]


def head_dim_of(config):
    return getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads


def rotary_dim(config):
    return int(head_dim_of(config) * config.rope_parameters.get("partial_rotary_factor", 1.0))


def llama3_factors(config):
    """Divisors of the frequencies, as the converter computes them."""
    rope, dim = config.rope_parameters, head_dim_of(config)
    factors = []
    for i in range(0, dim, 2):
        wavelength = 2 * math.pi * rope["rope_theta"] ** (i / dim)
        original, low, high = (rope["original_max_position_embeddings"], rope["low_freq_factor"],
                               rope["high_freq_factor"])
        if wavelength < original / high:
            factors.append(1.0)
        elif wavelength > original / low:
            factors.append(rope["factor"])
        else:
            smooth = (original / wavelength - low) / (high - low)
            factors.append(1 / ((1 - smooth) / rope["factor"] + smooth))
    return factors


GGUF_NAMES = {
    "model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output",
    "input_layernorm": "attn_norm", "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output", "self_attn.qkv_proj": "attn_qkv",
    "self_attn.q_norm": "attn_q_norm", "self_attn.k_norm": "attn_k_norm", "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down", "mlp.gate_up_proj": "ffn_up",
    "post_attention_layernorm": "ffn_norm", "mlp.gate": "ffn_gate_inp", "mlp.experts.down_proj": "ffn_down_exps",
    "mlp.shared_expert.gate_proj": "ffn_gate_shexp", "mlp.shared_expert.up_proj": "ffn_up_shexp",
    "mlp.shared_expert.down_proj": "ffn_down_shexp", "mlp.shared_expert_gate": "ffn_gate_inp_shexp",
}
GEMMA_NAMES = GGUF_NAMES | {
    "post_attention_layernorm": "post_attention_norm", "pre_feedforward_layernorm": "ffn_norm",
    "post_feedforward_layernorm": "post_ffw_norm",
}


def gguf_name(name, arch):
    stem, kind = (name, "weight") if ".mlp.experts." in name else name.rsplit(".", 1)
    names = GEMMA_NAMES if arch == "gemma3" else GGUF_NAMES
    if stem in names:
        return f"{names[stem]}.{kind}"
    _, _, layer, part = stem.split(".", 3)
    return f"blk.{layer}.{names[part]}.{kind}"


def fill_gate_up(parameter, layer):
    """Sets the stacked gate and up matrices of a layer's experts; returns the two GGUF tensors."""
    experts, rows, cols = parameter.shape
    dims, parts, tensors = [cols, rows // 2, experts], [], []
    for part in ("gate", "up"):
        target = f"blk.{layer}.ffn_{part}_exps.weight"
        scale, offset = scale_of(target, dims)
        parts.append(element(target, experts * rows * cols // 2, scale, offset).reshape(experts, rows // 2, cols))
        tensors.append({"name": target, "dims": dims, "scale": scale, "offset": offset})
    with torch.no_grad():
        parameter.copy_(torch.from_numpy(np.concatenate(parts, axis=1)))
    return tensors


def fill(model, spec, config):
    """Sets the model's parameters and returns the GGUF tensor list: [name, dims, scale, offset] or values."""
    arch, tensors = spec["arch"], []
    for name, parameter in model.named_parameters():
        if name.endswith(".mlp.experts.gate_up_proj"):  # [experts][2 * ffn][d], split by the converter
            tensors += fill_gate_up(parameter, name.split(".")[2])
            continue
        target = gguf_name(name, arch)
        dims = list(reversed(parameter.shape))
        scale, offset = scale_of(target, dims)
        w = element(target, parameter.numel(), scale, offset).reshape(parameter.shape)
        if arch == "llama" and (".attn_q." in target or ".attn_k." in target):
            heads = config.num_attention_heads if ".attn_q." in target else config.num_key_value_heads
            stored, w = w, unpermute(w, heads)
            assert (permute(w, heads) == stored).all()
        if arch == "gemma3" and "norm" in target:
            w = w - 1.0  # the converter adds 1
        with torch.no_grad():
            parameter.copy_(torch.from_numpy(w.copy()))
        if "gate_inp_shexp" in target:
            dims = dims[:1]  # stored as a vector
        tensors.append({"name": target, "dims": dims, "scale": scale, "offset": offset})
    rope = config.rope_parameters
    if rope.get("rope_type") == "llama3":
        tensors.append({"name": "rope_freqs.weight", "values": llama3_factors(config)})
    if rope.get("rope_type") == "longrope":
        tensors.append({"name": "rope_factors_long.weight", "values": LONG})
        tensors.append({"name": "rope_factors_short.weight", "values": SHORT})
    return tensors


def run(model, tokens):
    """Residual stream after each layer [layers][tokens][d] and logits [tokens][vocab]."""
    taps = []
    for layer in model.model.layers:
        layer.register_forward_hook(
            lambda module, args, output: taps.append((output[0] if isinstance(output, tuple) else output)[0]))
    with torch.no_grad():
        logits = model(torch.tensor([tokens]), use_cache=False).logits[0]
    return torch.stack([t.reshape(len(tokens), -1) for t in taps]).numpy(), logits.numpy()


def write_golden(name, model, config, metadata, tensors, tokens, rows, context):
    """Runs the model and writes NAME.json and NAME.bin."""
    taps, logits = run(model, tokens)
    out = {"metadata": metadata, "tensors": tensors, "tokens": tokens, "rows": rows, "context": context,
           "layers": config.num_hidden_layers, "d_model": config.hidden_size, "vocab": VOCAB}
    lines = ",\n".join(f"{json.dumps(key)}: {json.dumps(value, ensure_ascii=True)}" for key, value in out.items())
    (HERE / f"{name}.json").write_text("{\n" + lines + "\n}\n")
    data = [np.concatenate([taps[:, row].reshape(-1), logits[row]]) for row in rows]
    np.concatenate(data).astype("<f4").tofile(HERE / f"{name}.bin")
    print(name, "rms of residual after each layer:", np.round(np.sqrt((taps**2).mean(axis=(1, 2))), 2),
          "logits:", round(float(logits.std()), 2))


def some_tokens(count):
    return [(7 + 37 * i + i * i) % VOCAB for i in range(count)]


def make(name, spec):
    hf = {"gemma3": "gemma3_text"}.get(spec["arch"], spec.get("hf", spec["arch"]))
    config = transformers.AutoConfig.for_model(hf, **spec["config"])
    config._attn_implementation = "eager"
    model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    if spec["arch"] == "gemma3":  # a buffer that some versions round to bfloat16
        model.model.embed_tokens.embed_scale = torch.tensor(config.hidden_size ** 0.5)
    tensors = fill(model, spec, config)
    write_golden(name, model, config, metadata(spec, config), tensors, some_tokens(spec.get("tokens", TOKENS)),
                 spec.get("rows", ROWS), spec.get("context", config.max_position_embeddings))


if __name__ == "__main__":
    for model_name in sys.argv[1:] or MODELS:
        make(model_name, MODELS[model_name])
