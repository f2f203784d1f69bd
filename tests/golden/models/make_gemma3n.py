#!/usr/bin/env python3
"""The golden models of gemma3n. As make.py, whose parts it uses:

    python make_gemma3n.py [NAME ..]    # rewrites NAME.json and NAME.bin beside this file

The residual stream that is dumped after each layer is the first of the model's streams. The layout of stored tensors
follows llama.cpp's converter: the matrices of the streams stacked, standard deviations instead of sparsities."""
import sys

import numpy as np
import torch
import transformers

import make

SLIDING, FULL = "sliding_attention", "full_attention"
ROPE = {SLIDING: {"rope_type": "default", "rope_theta": 10000.0},
        FULL: {"rope_type": "default", "rope_theta": 1000000.0}}
CONFIG = dict(make.TINY, num_hidden_layers=7, num_key_value_heads=1, head_dim=32, sliding_window=8,
              tie_word_embeddings=True, rope_parameters=ROPE, final_logit_softcapping=4.0,
              vocab_size_per_layer_input=make.VOCAB, hidden_size_per_layer_input=32, laurel_rank=8)
MODELS = {
    # As the released models: the first stream is active, four streams.
    "gemma3n": dict(config=dict(
        CONFIG, altup_num_inputs=4, altup_active_idx=0, num_kv_shared_layers=3,
        layer_types=[SLIDING, SLIDING, FULL, SLIDING, SLIDING, FULL, SLIDING],
        activation_sparsity_pattern=[0.95, 0.8, 0.3, 0.0, 0.0, 0.0, 0.0])),
    "gemma3n_three": dict(config=dict(
        CONFIG, num_hidden_layers=5, altup_num_inputs=3, altup_active_idx=1, num_kv_shared_layers=2,
        layer_types=[SLIDING, FULL, SLIDING, SLIDING, FULL], final_logit_softcapping=30.0,
        activation_sparsity_pattern=[0.0, 0.6, 0.0, 0.0, 0.9])),
}

GLOBAL_NAMES = {
    "embed_tokens.weight": "token_embd.weight", "norm.weight": "output_norm.weight",
    "embed_tokens_per_layer.weight": "per_layer_token_embd.weight",
    "per_layer_model_projection.weight": "per_layer_model_proj.weight",
    "per_layer_projection_norm.weight": "per_layer_proj_norm.weight",
}
STACKED_NAMES = {"altup_projections": "altup_proj.weight", "altup_unembed_projections": "altup_unembd_proj.weight"}
LAYER_NAMES = make.GEMMA_NAMES | {
    "altup.correct_output_scale": "altup_correct_scale", "altup.correction_coefs": "altup_correct_coef",
    "altup.prediction_coefs": "altup_predict_coef", "altup.modality_router": "altup_router",
    "altup.router_norm": "altup_router_norm", "laurel.linear_left": "laurel_l", "laurel.linear_right": "laurel_r",
    "laurel.post_laurel_norm": "laurel_post_norm", "per_layer_input_gate": "inp_gate",
    "per_layer_projection": "proj", "post_per_layer_input_norm": "post_norm",
}


def scale_of(name, dims):
    """As make.scale_of, with routers whose tanh bends, and coefficients that keep the streams' size."""
    if name == "per_layer_token_embd.weight":
        return 0.25, 0.0
    if "correct_scale" in name:
        return 0.25, 1.0
    if "altup_router.weight" in name:
        return 8.0, 0.0
    if "_coef" in name:
        return 0.25, 0.0
    return make.scale_of(name, dims)


def metadata(config):
    u32 = {
        "context_length": config.max_position_embeddings, "embedding_length": config.hidden_size,
        "block_count": config.num_hidden_layers, "attention.head_count": config.num_attention_heads,
        "attention.head_count_kv": config.num_key_value_heads, "attention.key_length": config.head_dim,
        "attention.value_length": config.head_dim, "attention.sliding_window": config.sliding_window,
        "attention.shared_kv_layers": config.num_kv_shared_layers, "vocab_size": make.VOCAB,
        "altup.active_idx": config.altup_active_idx, "altup.num_inputs": config.altup_num_inputs,
        "embedding_length_per_layer_input": config.hidden_size_per_layer_input,
    }
    f32 = {
        "attention.layer_norm_rms_epsilon": config.rms_norm_eps, "rope.freq_base": ROPE[FULL]["rope_theta"],
        "rope.freq_base_swa": ROPE[SLIDING]["rope_theta"], "final_logit_softcapping": config.final_logit_softcapping,
    }
    deviations = torch.distributions.normal.Normal(0, 1).icdf(
        torch.tensor(config.activation_sparsity_pattern, dtype=torch.float32)).numpy()
    meta = {"general.architecture": ["str", "gemma3n"], "general.name": ["str", "tiny gemma3n"]}
    meta |= {f"gemma3n.{key}": ["u32", value] for key, value in u32.items()}
    meta |= {f"gemma3n.{key}": ["f32", value] for key, value in f32.items()}
    meta["gemma3n.feed_forward_length"] = ["[i32]", list(config.intermediate_size)]
    meta["gemma3n.attention.sliding_window_pattern"] = ["[i32]", [int(t == SLIDING) for t in config.layer_types]]
    meta["gemma3n.activation_sparsity_scale"] = ["[f32bits]", deviations.view(np.uint32).tolist()]
    return meta | make.SPM_GEMMA


def fill(model, config):
    """Sets the model's parameters and returns the GGUF tensor list."""
    tensors = []

    def take(target, shape):
        dims = list(reversed(shape))
        scale, offset = scale_of(target, dims)
        tensors.append({"name": target, "dims": dims, "scale": scale, "offset": offset})
        return torch.from_numpy(make.element(target, int(np.prod(shape)), scale, offset).reshape(shape))

    done = set()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            part = name.removeprefix("model.")
            if part in GLOBAL_NAMES:
                parameter.copy_(take(GLOBAL_NAMES[part], tuple(parameter.shape)))
            elif part.split(".")[0] in STACKED_NAMES:
                stem = part.split(".")[0]
                if stem in done:
                    continue
                done.add(stem)
                matrices = getattr(model.model, stem)
                stacked = take(STACKED_NAMES[stem], (len(matrices), *parameter.shape))
                for matrix, values in zip(matrices, stacked):
                    matrix.weight.copy_(values)
            else:
                _, layer, stem = part.split(".", 2)
                stem = stem.removesuffix(".weight")
                parameter.copy_(take(f"blk.{layer}.{LAYER_NAMES[stem]}.weight", tuple(parameter.shape)))
    return tensors


def write(name, spec):
    config = transformers.AutoConfig.for_model("gemma3n_text", **spec["config"])
    config._attn_implementation = "eager"
    model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    # Buffers that some versions round to bfloat16.
    model.model.embed_tokens.embed_scale = torch.tensor(config.hidden_size ** 0.5)
    model.model.embed_tokens_per_layer.embed_scale = torch.tensor(config.hidden_size_per_layer_input ** 0.5)
    tensors = fill(model, config)
    make.write_golden(name, model, config, metadata(config), tensors, make.some_tokens(make.TOKENS), make.ROWS,
                      config.max_position_embeddings)


if __name__ == "__main__":
    for model_name in sys.argv[1:] or MODELS:
        write(model_name, MODELS[model_name])
