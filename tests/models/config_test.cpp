// Hyper-parameters are untrusted: each absurd one is an Error that names the key.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "models/model.h"
#include "testing/tiny_models.h"

namespace mete {
namespace {

using ::testing::HasSubstr;

/// The Error of reading the configuration of a golden model's file after `change`.
template <typename F>
Error error_of(const std::string& model, F&& change) {
  nlohmann::json json = testing::read_tiny_model(model).json;
  change(json);
  const std::vector<uint8_t> bytes = testing::tiny_model_gguf(json, DType::kF16);
  try {
    read_model_config(GgufFile::parse(bytes).value());
  } catch (const Error& error) {
    return error;
  }
  return Error(Code::kRuntime, "no error");
}

struct BadKey {
  const char* model;
  const char* key;
  nlohmann::json value;  // null: remove
  const char* message;   // part of it
};

TEST(ModelConfig, AbsurdValuesNameTheKey) {
  const nlohmann::json none;
  const float infinity = std::numeric_limits<float>::infinity();
  const BadKey cases[] = {
      {"llama",
       "general.architecture",
       {"str", "gptx"},
       "expected one of llama, qwen2, qwen3, gemma3, gemma3n"},
      {"llama", "general.architecture", none, "general.architecture"},
      {"llama", "llama.block_count", {"u32", 0}, "is 0, expected 1 to 1024"},
      {"llama", "llama.block_count", {"u32", 100000}, "is 100000, expected 1 to 1024"},
      {"llama", "llama.block_count", {"str", "3"}, "llama.block_count"},
      {"llama", "llama.block_count", {"u32", 4}, "tensor \"blk.3.attn_norm.weight\" is missing"},
      {"llama", "llama.block_count", {"u32", 2}, "tensor \"blk.2."},
      {"llama", "llama.embedding_length", {"u32", 0}, "llama.embedding_length"},
      {"llama",
       "llama.embedding_length",
       {"u32", 512},
       "tensor \"token_embd.weight\" is 256 x 320, expected 512 x 320"},
      {"llama", "llama.feed_forward_length", {"u32", 4000000000u}, "llama.feed_forward_length"},
      {"llama", "llama.attention.head_count", {"u32", 0}, "llama.attention.head_count"},
      {"llama", "llama.attention.head_count", {"u32", 3}, "expected a divisor of the 3 query heads"},
      {"llama", "llama.attention.head_count_kv", {"u32", 3}, "expected a divisor of the 4 query heads"},
      {"llama", "llama.attention.head_count_kv", {"u32", 0}, "is 0, expected 1 to"},
      {"llama", "llama.attention.key_length", {"u32", 63}, "head dimension is 63, expected an even number"},
      {"llama", "llama.attention.key_length", {"u32", 1u << 30}, "llama.attention.key_length"},
      {"llama", "llama.attention.value_length", {"u32", 32}, "llama.attention.value_length"},
      {"llama", "llama.attention.layer_norm_rms_epsilon", none, "llama.attention.layer_norm_rms_epsilon"},
      {"llama",
       "llama.attention.layer_norm_rms_epsilon",
       {"f32", 0.0f},
       "llama.attention.layer_norm_rms_epsilon"},
      {"llama",
       "llama.attention.layer_norm_rms_epsilon",
       {"f32", -1.0f},
       "llama.attention.layer_norm_rms_epsilon"},
      {"llama", "llama.attention.sliding_window", {"u32", 4294967295u}, "llama.attention.sliding_window"},
      {"llama", "llama.context_length", {"u32", 0}, "llama.context_length"},
      {"llama",
       "llama.vocab_size",
       {"u32", 319},
       "is 319, expected the 320 tokens of \"tokenizer.ggml.tokens\""},
      {"llama", "tokenizer.ggml.tokens", none, "tokenizer.ggml.tokens"},
      {"llama", "tokenizer.ggml.tokens", {"[str]", {"a", "b"}}, "expected the 2 tokens"},
      {"llama", "llama.rope.dimension_count", {"u32", 128}, "is 128, expected 2 to 64"},
      {"llama", "llama.rope.dimension_count", {"u32", 33}, "is 33, expected an even number"},
      {"llama", "llama.rope.freq_base", {"f32", 0.0f}, "llama.rope.freq_base"},
      {"llama",
       "llama.rope.scaling.type",
       {"str", "dynamic"},
       "is \"dynamic\", expected none, linear or yarn"},
      {"llama",
       "llama.rope.scaling.type",
       {"str", "longrope"},
       "is \"longrope\", expected none, linear or yarn"},
      {"llama_linear", "llama.rope.scaling.factor", {"f32", 1e-9f}, "llama.rope.scaling.factor"},
      {"llama", "llama.expert_count", {"u32", 8}, "\"llama.expert_used_count\" is missing"},
      {"qwen2", "qwen2.expert_count", {"u32", 8}, "\"qwen2.expert_count\" is 8, which is not supported yet"},
      {"llama", "llama.attention.causal", {"bool", false}, "\"llama.attention.causal\" is false"},
      {"llama", "llama.logit_scale", {"f32", 0.5f}, "\"llama.logit_scale\" is 0.5"},
      {"qwen2", "qwen2.attention.sliding_window", {"u32", 4096}, "not supported yet"},
      {"gemma3", "gemma3.attention.sliding_window_pattern", {"[i32]", {1, 1}}, "expected 7 flags"},
      {"gemma3", "gemma3.rope.freq_base_swa", {"f32", infinity}, "gemma3.rope.freq_base_swa"},
      {"gemma3n",
       "gemma3n.feed_forward_length",
       {"[i32]", {96, 96, 96, 96, 96, 96, 128}},
       "holds 96 and 128"},
      {"gemma3n", "gemma3n.feed_forward_length", {"[i32]", {96}}, "is an array of 1, expected"},
      {"gemma3n", "gemma3n.feed_forward_length", {"[i32]", {0, 0, 0, 0, 0, 0, 0}}, "holds 0 and 0"},
      {"gemma3n", "gemma3n.altup.num_inputs", none, "gemma3n.altup.num_inputs"},
      {"gemma3n", "gemma3n.altup.num_inputs", {"u32", 9}, "is 9, expected 2 to 8"},
      {"gemma3n", "gemma3n.altup.num_inputs", {"u32", 3}, "is 64 x 64 x 3 x 1, expected 64 x 64 x 2"},
      {"gemma3n", "gemma3n.altup.active_idx", {"u32", 4}, "is 4, expected 0 to 3"},
      {"gemma3n", "gemma3n.embedding_length_per_layer_input", {"u32", 16}, "per_layer_token_embd.weight"},
      {"gemma3n", "gemma3n.attention.shared_kv_layers", {"u32", 7}, "is 7, expected 0 to 6"},
      {"gemma3n", "gemma3n.attention.shared_kv_layers", {"u32", 5}, "no layer before layer 2 has keys"},
      {"gemma3n", "gemma3n.activation_sparsity_scale", {"[f32]", {1.0, 1.0}}, "is an array of 2, expected"},
      {"gemma3n",
       "gemma3n.activation_sparsity_scale",
       {"[f32]", {0, 0, 0, 0, 0, 0, 1000}},
       "holds 1000, expected numbers below 100"},
      {"gemma3", "gemma3.attention.shared_kv_layers", {"u32", 2}, "not supported yet"},
      {"phi3", "phi3.rope.scaling.type", {"str", "su"}, "expected none, linear, longrope or yarn"},
      {"deepseek3", "deepseek2.attention.kv_lora_rank", none, "deepseek2.attention.kv_lora_rank"},
      {"deepseek3", "deepseek2.attention.kv_lora_rank", {"u32", 63}, "is 63, expected an even number"},
      {"deepseek3", "deepseek2.attention.kv_lora_rank", {"u32", 2000}, "is 2000, expected 2 to 1024"},
      {"deepseek3",
       "deepseek2.attention.kv_lora_rank",
       {"u32", 62},
       "tensor \"blk.0.attn_kv_a_mqa.weight\" is 64 x 96, expected 64 x 94"},
      {"deepseek3", "deepseek2.attention.q_lora_rank", {"u32", 16}, "blk.0.attn_q_a.weight"},
      {"deepseek3", "deepseek2.attention.q_lora_rank", none, "tensor \"blk.0.attn_q.weight\" is missing"},
      {"deepseek3",
       "deepseek2.rope.dimension_count",
       {"u32", 64},
       "\"deepseek2.rope.dimension_count\" is 64, expected less than the key length 64"},
      {"deepseek3", "deepseek2.rope.dimension_count", {"u32", 33}, "is 33, expected an even number"},
      {"deepseek3", "deepseek2.attention.value_length_mla", none, "deepseek2.attention.value_length_mla"},
      {"deepseek3",
       "deepseek2.attention.value_length_mla",
       {"u32", 16},
       "tensor \"blk.0.attn_v_b.weight\" is 64 x 32 x 4, expected 64 x 16 x 4"},
      {"deepseek2_lite",
       "deepseek2.attention.value_length",
       {"u32", 16},
       "tensor \"blk.0.attn_kv_b.weight\" is 64 x 256 x 1, expected 64 x 192 x 1"},
      {"deepseek3", "deepseek2.expert_group_count", {"u32", 3}, "is 3, expected a divisor of the 8 experts"},
      {"deepseek3", "deepseek2.expert_group_count", {"u32", 65}, "is 65, expected 0 to 64"},
      {"deepseek3",
       "deepseek2.expert_group_used_count",
       {"u32", 1},
       "is 1: 1 groups of 2 experts hold fewer than the 3 used"},
      {"deepseek3", "deepseek2.expert_group_used_count", {"u32", 5}, "is 5, expected 0 to 4"},
      {"deepseek3", "deepseek2.expert_used_count", {"u32", 9}, "is 9, expected 1 to 8"},
      {"deepseek3", "deepseek2.expert_gating_func", {"u32", 3}, "is 3, expected 0 to 2"},
      {"deepseek3", "deepseek2.leading_dense_block_count", {"u32", 4}, "is 4, expected 0 to 3"},
      {"deepseek3",
       "deepseek2.leading_dense_block_count",
       {"u32", 0},
       "tensor \"blk.0.ffn_gate_inp.weight\" is missing"},
      {"deepseek3", "deepseek2.expert_shared_count", {"u32", 1}, "blk.1.ffn_gate_shexp.weight"},
      {"deepseek3", "deepseek2.attention.temperature_scale", {"f32", 0.1f}, "not supported yet"},
      {"llama", "llama.attention.kv_lora_rank", {"u32", 64}, "not supported yet"},
      {"mixtral", "llama.expert_used_count", {"u32", 6}, "is 6, expected 1 to 5"},
      {"mixtral", "llama.expert_used_count", {"u32", 0}, "is 0, expected 1 to 5"},
      {"mixtral",
       "llama.expert_count",
       {"u32", 4},
       "\"blk.0.ffn_gate_inp.weight\" is 64 x 5, expected 64 x 4"},
      {"mixtral", "llama.expert_count", none, "\"blk.0.ffn_gate.weight\" is missing"},
      {"mixtral", "llama.expert_gating_func", {"u32", 2}, "\"llama.expert_gating_func\" is 2"},
      {"mixtral", "llama.expert_weights_scale", {"f32", infinity}, "llama.expert_weights_scale"},
      {"qwen3moe",
       "qwen3moe.expert_feed_forward_length",
       {"u32", 95},
       "tensor \"blk.0.ffn_gate_exps.weight\" is 64 x 96 x 7, expected 64 x 95 x 7"},
      {"qwen2moe", "qwen2moe.expert_shared_feed_forward_length", {"u32", 81}, "blk.0.ffn_gate_shexp.weight"},
      {"olmoe", "olmoe.attention.clamp_kqv", {"f32", 8.0f}, "not supported yet"},
      {"gpt_oss",
       "gpt-oss.expert_count",
       {"u32", 5},
       "tensor \"blk.0.ffn_gate_inp.weight\" is 64 x 6, expected 64 x 5"},
      {"gpt_oss", "gpt-oss.attention.sliding_window_pattern", {"[i32]", {1, 1}}, "expected 4 flags"},
      {"gpt_oss",
       "gpt-oss.expert_feed_forward_length",
       {"u32", 64},
       "tensor \"blk.0.ffn_gate_exps.bias\" is 96 x 6, expected 64 x 6"},
  };
  for (const BadKey& c : cases) {
    const Error error = error_of(c.model, [&](nlohmann::json& json) {
      if (c.value.is_null()) {
        json["metadata"].erase(c.key);
      } else {
        json["metadata"][c.key] = c.value;
      }
    });
    EXPECT_EQ(error.code(), Code::kBadModel) << c.key;
    EXPECT_THAT(error.message(), HasSubstr(c.message)) << c.key;
  }
}

TEST(ModelConfig, TensorsThatAreMissingOrLeftOverAreNamed) {
  const auto erase = [](const char* name) {
    return [name](nlohmann::json& json) {
      auto& tensors = json["tensors"];
      for (size_t i = 0; i < tensors.size(); ++i) {
        if (tensors[i]["name"] == name) {
          tensors.erase(i);
          return;
        }
      }
      FAIL() << name;
    };
  };
  EXPECT_EQ(error_of("qwen3", erase("blk.1.attn_k_norm.weight")).message(),
            "tensor \"blk.1.attn_k_norm.weight\" is missing");
  EXPECT_EQ(error_of("phi3_long", erase("rope_factors_short.weight")).message(),
            "tensor \"rope_factors_short.weight\" is missing");
  EXPECT_EQ(error_of("gpt_oss", erase("blk.1.attn_sinks.weight")).message(),
            "tensor \"blk.1.attn_sinks.weight\" is missing");
  EXPECT_EQ(error_of("deepseek3", erase("blk.1.attn_v_b.weight")).message(),
            "tensor \"blk.1.attn_v_b.weight\" is missing");
  const Error apart = error_of("mixtral", [](nlohmann::json& json) {
    for (auto& tensor : json["tensors"]) {
      if (tensor["name"] == "blk.1.ffn_gate_exps.weight") tensor["name"] = "blk.1.ffn_gate.0.weight";
    }
  });
  EXPECT_THAT(apart.message(),
              HasSubstr("\"blk.1.ffn_gate.0.weight\": one tensor per expert is not supported"));
  const Error spare = error_of("qwen2", [](nlohmann::json& json) {
    json["tensors"].push_back({{"name", "blk.0.attn_q_norm.weight"}, {"values", {1.0f, 1.0f}}});
  });
  EXPECT_EQ(spare.message(), "tensor \"blk.0.attn_q_norm.weight\" (F32, 2) is not part of this architecture");
}

TEST(ModelConfig, RopeFactorsAreCheckedWhenRead) {
  nlohmann::json json = testing::read_tiny_model("llama3").json;
  for (auto& tensor : json["tensors"]) {
    if (tensor["name"] == "rope_freqs.weight") tensor["values"][2] = 0.0f;
  }
  const std::vector<uint8_t> bytes = testing::tiny_model_gguf(json, DType::kF16);
  const GgufFile file = GgufFile::parse(bytes).value();
  ThreadPool pool(1);
  KernelTable table{};
  Context ctx{pool, table};
  try {
    load_model(ctx, file, {});
    ADD_FAILURE() << "no error";
  } catch (const Error& error) {
    EXPECT_EQ(error.message(), "tensor \"rope_freqs.weight\" has element 2 = 0, expected 0.5 to 1e9");
  }
}

TEST(ModelConfig, CountsBytesAndMultiplications) {
  const auto read = [](const char* name) {
    const std::vector<uint8_t> bytes = testing::named_tiny_model_gguf(name, DType::kF16);
    return read_model_config(GgufFile::parse(bytes).value());
  };
  const ModelConfig tied = read("qwen2"), untied = read("qwen3"), moe = read("qwen3moe");
  const int64_t d = 64, ffn = 96, vocab = 320;
  EXPECT_EQ(tied.macs_per_token, 3 * (d * (64 + 32 + 32) + 64 * d + 3 * d * ffn));
  EXPECT_EQ(untied.macs_per_token, 3 * (d * (128 + 64 + 64) + 128 * d + 3 * d * ffn));
  EXPECT_EQ(tied.macs_per_logits, vocab * d);
  // Seven experts, two of them used.
  EXPECT_EQ(moe.macs_per_token, 3 * (d * (128 + 64 + 64) + 128 * d + 7 * d + 2 * 3 * d * ffn));
  EXPECT_EQ(moe.expert_bytes, 3 * 7 * 3 * d * ffn * 2);
  EXPECT_EQ(moe.bytes_per_token, moe.weight_bytes - vocab * d * 2 - moe.expert_bytes / 7 * 5);
  EXPECT_EQ(tied.bytes_per_token, tied.weight_bytes);
  EXPECT_EQ(untied.bytes_per_token, untied.weight_bytes - vocab * d * 2);
  // F16 panels hold exactly the file's bytes, as do float vectors.
  const int64_t vectors = 3 * 2 * d + d + 3 * (64 + 32 + 32);
  EXPECT_EQ(tied.weight_bytes, (tied.macs_per_token + vocab * d) * 2 + vectors * 4);
  const ModelConfig gemma = read("gemma3");
  EXPECT_EQ(gemma.windows, (std::vector<int32_t>{8, 8, 8, 8, 8, 0, 8}));
  EXPECT_EQ(gemma.head_dim, 32);
  EXPECT_EQ(gemma.kv_layers, 7);
  const ModelConfig latent = read("deepseek3");  // one key of 64 + 32 elements per token, no value
  EXPECT_EQ(latent.kv_heads, 1);
  EXPECT_EQ(latent.head_dim, 96);
  EXPECT_EQ(latent.value_dim, 64);
  EXPECT_TRUE(latent.value_in_key);
  const int64_t attention = d * 32 + 32 * 4 * 64 + d * 96 + 4 * (32 + 32) * 64 + 4 * 32 * d;
  const int64_t experts = d * 8 + 3 * 3 * d * 32 + 3 * d * 64;  // router, three of them, shared
  EXPECT_EQ(latent.macs_per_token, 3 * attention + 3 * d * ffn + 2 * experts);
  EXPECT_EQ(read("gpt_oss").windows, (std::vector<int32_t>{8, 0, 8, 0}));
}

}  // namespace
}  // namespace mete
