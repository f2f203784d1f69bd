#!/usr/bin/env python3
"""The golden models with latent attention or attention sinks: deepseek2 and gpt-oss. As make.py, whose parts it uses:

    python make_deepseek_gpt_oss.py [NAME ..]    # rewrites NAME.json and NAME.bin beside this file

The layout of stored tensors follows llama.cpp's converters: experts stacked, gpt-oss's interleaved gate and up taken
apart, kv_b either whole (old files) or split into a transposed k_b and v_b."""
import sys

import numpy as np
import torch
import transformers

import make

YARN_V2 = {"rope_type": "yarn", "rope_theta": 10000.0, "factor": 8.0, "original_max_position_embeddings": 64,
           "beta_fast": 4.0, "beta_slow": 1.0, "mscale": 0.707, "mscale_all_dim": 0.707}
YARN_V3 = YARN_V2 | {"mscale": 1.0, "mscale_all_dim": 1.0}
# Not truncated: gpt-oss's ramp begins and ends between two frequencies.
YARN_OSS = {"rope_type": "yarn", "rope_theta": 10000.0, "factor": 8.0, "original_max_position_embeddings": 64,
            "beta_fast": 4.0, "beta_slow": 1.0, "truncate": False}

LATENT = dict(make.TINY, rms_norm_eps=1e-6, num_key_value_heads=4, kv_lora_rank=64, qk_rope_head_dim=32, qk_nope_head_dim=32, v_head_dim=32,
              moe_intermediate_size=32, n_routed_experts=8, num_experts_per_tok=3, n_shared_experts=2,
              first_k_dense_replace=1)
BPE_V3 = make.bpe_tokenizer("deepseek-v3", "<|endoftext|>", "<|im_end|>", True)
BPE_LLM = make.bpe_tokenizer("deepseek-llm", "<|endoftext|>", "<|im_end|>", True)
BPE_OSS = make.bpe_tokenizer("gpt-4o", "<|endoftext|>", "<|im_end|>", True)

MODELS = {
    # As DeepSeek-V3: q through a low rank, sigmoid gate with a bias for choosing, groups of experts, split kv_b.
    "deepseek3": dict(arch="deepseek2", hf="deepseek_v3", tokenizer=BPE_V3, split=True, config=dict(
        LATENT, q_lora_rank=32, n_group=4, topk_group=2, norm_topk_prob=True, routed_scaling_factor=2.5,
        rope_parameters=YARN_V3, rope_interleave=True)),
    # As DeepSeek-V2-Lite: plain q, softmax gate, all experts one group, kv_b whole.
    "deepseek2_lite": dict(arch="deepseek2", hf="deepseek_v2", tokenizer=BPE_LLM, split=False, config=dict(
        LATENT, q_lora_rank=None, n_group=1, topk_group=1, topk_method="greedy", norm_topk_prob=False,
        routed_scaling_factor=1.0, rope_parameters=YARN_V2)),
    # As DeepSeek-V2: groups ranked by their best expert.
    "deepseek2": dict(arch="deepseek2", hf="deepseek_v2", tokenizer=BPE_LLM, split=True, config=dict(
        LATENT, q_lora_rank=64, n_group=4, topk_group=2, topk_method="group_limited_greedy", norm_topk_prob=False,
        routed_scaling_factor=1.5, qk_nope_head_dim=64, rope_parameters=make.THETA)),
    "gpt_oss": dict(arch="gpt-oss", hf="gpt_oss", tokenizer=BPE_OSS, config=dict(
        make.TINY, num_hidden_layers=4, head_dim=32, sliding_window=8, num_local_experts=6, num_experts_per_tok=2,
        attention_bias=True, rope_parameters=YARN_OSS)),
}


def metadata(spec, config):
    arch, rope = spec["arch"], config.rope_parameters
    u32 = {
        "block_count": config.num_hidden_layers, "context_length": config.max_position_embeddings,
        "embedding_length": config.hidden_size, "feed_forward_length": config.intermediate_size,
        "attention.head_count": config.num_attention_heads, "vocab_size": make.VOCAB,
        "expert_used_count": config.num_experts_per_tok,
    }
    f32 = {"attention.layer_norm_rms_epsilon": config.rms_norm_eps, "rope.freq_base": rope["rope_theta"]}
    meta = {"general.architecture": ["str", arch], "general.name": ["str", f"tiny {arch}"]}
    if arch == "gpt-oss":
        u32 |= {"attention.head_count_kv": config.num_key_value_heads, "attention.key_length": config.head_dim,
                "attention.value_length": config.head_dim, "attention.sliding_window": config.sliding_window,
                "expert_count": config.num_local_experts, "expert_feed_forward_length": config.intermediate_size}
    else:
        lora, rotary, plain = config.kv_lora_rank, config.qk_rope_head_dim, config.qk_nope_head_dim
        u32 |= {"attention.kv_lora_rank": lora, "rope.dimension_count": rotary,
                "leading_dense_block_count": config.first_k_dense_replace,
                "expert_count": config.n_routed_experts, "expert_shared_count": config.n_shared_experts,
                "expert_feed_forward_length": config.moe_intermediate_size,
                "expert_gating_func": 2 if spec["hf"] == "deepseek_v3" else 1}
        if spec["split"]:
            u32 |= {"attention.head_count_kv": 1, "attention.key_length": lora + rotary,
                    "attention.value_length": lora, "attention.key_length_mla": plain + rotary,
                    "attention.value_length_mla": config.v_head_dim}
        else:
            u32 |= {"attention.head_count_kv": config.num_key_value_heads, "attention.key_length": plain + rotary,
                    "attention.value_length": config.v_head_dim}
        if config.q_lora_rank:
            u32["attention.q_lora_rank"] = config.q_lora_rank
        if config.n_group > 1:
            u32 |= {"expert_group_count": config.n_group, "expert_group_used_count": config.topk_group}
        f32["expert_weights_scale"] = config.routed_scaling_factor
        if config.norm_topk_prob:
            meta["deepseek2.expert_weights_norm"] = ["bool", True]
        if rope.get("mscale_all_dim"):
            f32["rope.scaling.yarn_log_multiplier"] = 0.1 * rope["mscale_all_dim"]
    if rope["rope_type"] == "yarn":
        meta[f"{arch}.rope.scaling.type"] = ["str", "yarn"]
        u32["rope.scaling.original_context_length"] = rope["original_max_position_embeddings"]
        f32 |= {"rope.scaling.factor": rope["factor"], "rope.scaling.yarn_beta_fast": rope["beta_fast"],
                "rope.scaling.yarn_beta_slow": rope["beta_slow"]}
    meta |= {f"{arch}.{key}": ["u32", value] for key, value in u32.items()}
    meta |= {f"{arch}.{key}": ["f32", value] for key, value in f32.items()}
    return meta | spec["tokenizer"]


NAMES = make.GGUF_NAMES | {
    "self_attn.q_a_proj": "attn_q_a", "self_attn.q_b_proj": "attn_q_b", "self_attn.q_a_layernorm": "attn_q_a_norm",
    "self_attn.kv_a_proj_with_mqa": "attn_kv_a_mqa", "self_attn.kv_a_layernorm": "attn_kv_a_norm",
    "self_attn.kv_b_proj": "attn_kv_b", "mlp.gate": "ffn_gate_inp", "mlp.router": "ffn_gate_inp",
    "mlp.shared_experts.gate_proj": "ffn_gate_shexp", "mlp.shared_experts.up_proj": "ffn_up_shexp",
    "mlp.shared_experts.down_proj": "ffn_down_shexp",
}


class Tensors:
    """The stored tensors, and their values by name."""

    def __init__(self, wide):
        self.listed, self.wide = [], wide

    def take(self, name, shape):
        """Declares a tensor of that (numpy) shape and returns its values."""
        dims = list(reversed(shape))
        scale, offset = make.scale_of(name, dims)
        if len(dims) == 3 and self.wide and "down" not in name:
            scale *= 4  # gate and up reach gpt-oss's limits
        self.listed.append({"name": name, "dims": dims, "scale": scale, "offset": offset})
        return make.element(name, int(np.prod(shape)), scale, offset).reshape(shape)


def weights_of(name, shape, spec, config, tensors):
    """Values of one parameter of transformers, made of the stored tensors that it becomes."""
    if not name.startswith("model.layers."):
        stem, kind = name.rsplit(".", 1)
        return tensors.take(f"{NAMES[stem]}.{kind}", shape)
    _, _, layer, part = name.split(".", 3)
    block = f"blk.{layer}."
    if part == "self_attn.sinks":
        return tensors.take(block + "attn_sinks.weight", shape)
    if part == "mlp.gate.e_score_correction_bias":
        return tensors.take(block + "exp_probs_b.bias", shape)
    if part == "post_attention_layernorm.weight" and spec["arch"] == "gpt-oss":
        return tensors.take(block + "post_attention_norm.weight", shape)
    if part == "mlp.experts.down_proj":
        if spec["arch"] != "gpt-oss":
            return tensors.take(block + "ffn_down_exps.weight", shape)
        return tensors.take(block + "ffn_down_exps.weight", (shape[0], shape[2], shape[1])).swapaxes(1, 2)
    if part == "mlp.experts.down_proj_bias":
        return tensors.take(block + "ffn_down_exps.bias", shape)
    if part == "mlp.experts.gate_up_proj_bias":
        half = (shape[0], shape[1] // 2)
        pair = [tensors.take(block + f"ffn_{which}_exps.bias", half) for which in ("gate", "up")]
        return np.stack(pair, axis=-1).reshape(shape)
    if part == "mlp.experts.gate_up_proj" and spec["arch"] == "gpt-oss":
        half = (shape[0], shape[2] // 2, shape[1])
        pair = [tensors.take(block + f"ffn_{which}_exps.weight", half) for which in ("gate", "up")]
        return np.stack(pair, axis=2).reshape(shape[0], shape[2], shape[1]).swapaxes(1, 2)
    if part == "mlp.experts.gate_up_proj":
        half = (shape[0], shape[1] // 2, shape[2])
        pair = [tensors.take(block + f"ffn_{which}_exps.weight", half) for which in ("gate", "up")]
        return np.concatenate(pair, axis=1)
    if part == "self_attn.kv_b_proj.weight" and spec["split"]:
        heads, lora = config.num_attention_heads, config.kv_lora_rank
        k = tensors.take(block + "attn_k_b.weight", (heads, lora, config.qk_nope_head_dim)).swapaxes(1, 2)
        v = tensors.take(block + "attn_v_b.weight", (heads, config.v_head_dim, lora))
        return np.concatenate([k, v], axis=1).reshape(shape)
    stem, kind = part.rsplit(".", 1)
    return tensors.take(f"{block}{NAMES[stem]}.{kind}", shape)


def fill(model, spec, config):
    tensors = Tensors(spec["arch"] == "gpt-oss")
    state = dict(model.named_parameters())
    state |= {name: b for name, b in model.named_buffers() if name.endswith("e_score_correction_bias")}
    for name, parameter in state.items():
        w = weights_of(name, tuple(parameter.shape), spec, config, tensors)
        with torch.no_grad():
            parameter.copy_(torch.from_numpy(np.ascontiguousarray(w)))
    return tensors.listed


def write(name, spec):
    config = transformers.AutoConfig.for_model(spec["hf"], **spec["config"])
    config._attn_implementation = "eager"
    config._experts_implementation = "eager"
    model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    tensors = fill(model, spec, config)
    make.write_golden(name, model, config, metadata(spec, config), tensors, make.some_tokens(make.TOKENS), make.ROWS,
                      config.max_position_embeddings)


if __name__ == "__main__":
    for model_name in sys.argv[1:] or MODELS:
        write(model_name, MODELS[model_name])
