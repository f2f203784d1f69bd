// The engine's prefix cache on disk.
#include <xxhash.h>

#include <cstring>
#include <fstream>
#include <unordered_map>

#include "base/numerics.h"
#include "engine/engine.h"
#include "format/byte_source.h"
#include "format/prefix_file.h"

namespace mete {
namespace {

/// XXH3-128 of the bytes of all parts.
Result<std::array<uint64_t, 2>> hash_files(const std::vector<std::string>& paths) {
  const std::unique_ptr<XXH3_state_t, decltype(&XXH3_freeState)> state{XXH3_createState(), &XXH3_freeState};
  XXH3_128bits_reset(state.get());
  std::vector<uint8_t> buffer(4u << 20);
  for (const std::string& path : paths) {
    Result<std::unique_ptr<ByteSource>> source = ByteSource::open(path);
    if (!source) return source.error();
    for (uint64_t at = 0; at < (*source)->size(); at += buffer.size()) {
      const std::span<uint8_t> part(buffer.data(), std::min<uint64_t>(buffer.size(), (*source)->size() - at));
      if (Status got = (*source)->read(at, part); !got) return got.error();
      (*source)->drop_cache(at, part.size());
      XXH3_128bits_update(state.get(), part.data(), part.size());
    }
  }
  const XXH128_hash_t hash = XXH3_128bits_digest(state.get());
  return std::array<uint64_t, 2>{hash.low64, hash.high64};
}

Result<PrefixIdentity> identity_of(const Runtime& runtime) {
  const Result<std::array<uint64_t, 2>> model = hash_files(runtime.file().paths());
  if (!model) return model.error();
  const KvCache& kv = runtime.kv();
  PrefixIdentity identity;
  identity.model = *model;
  identity.numerics = kNumericsVersion;
  identity.context = static_cast<uint64_t>(runtime.max_context());
  identity.key_codec = static_cast<uint64_t>(kv.config().key_codec);
  identity.value_codec = static_cast<uint64_t>(kv.config().value_codec);
  identity.page_slots = static_cast<uint64_t>(kv.config().page_slots);
  identity.block_bytes = kv.block_bytes();
  identity.lists = static_cast<uint64_t>(kv.lists());
  identity.vocab = static_cast<uint64_t>(runtime.model_config().vocab);
  return identity;
}

/// The state after `tokens` of the last of them, its rows from `done` on computed into the sequence `kv`.
Result<std::vector<float>> last_state(Runtime& runtime, SeqId kv, std::span<const int32_t> tokens,
                                      size_t done) {
  std::vector<float> hidden(static_cast<size_t>(runtime.model_config().d_model));
  for (; done < tokens.size();) {
    const size_t end = std::min(tokens.size(), done + static_cast<size_t>(runtime.max_rows()));
    std::vector<Row> rows;
    for (size_t i = done; i < end; ++i) rows.push_back({tokens[i], static_cast<int32_t>(i), kv});
    const auto last = static_cast<int32_t>(rows.size()) - 1;
    Batch batch;
    batch.rows = rows;
    batch.hidden_rows = {&last, 1};
    Outputs outputs;
    outputs.hidden = hidden.data();
    if (Status ran = runtime.step(batch, outputs); !ran) return ran.error();
    done = end;
  }
  return hidden;
}

/// Computes a restored first page anew and compares what a token after it sees: a file that passed every
/// check and still differs was made by other arithmetic.
Status recompute(Runtime& runtime, PrefixCache& cache, int32_t node) {
  std::vector<int32_t> tokens(cache.tree().tokens(node).begin(), cache.tree().tokens(node).end());
  const size_t page = tokens.size();
  tokens.push_back(tokens[0]);
  KvCache& kv = runtime.kv();
  std::vector<float> states[2];
  for (const bool restored : {false, true}) {
    const SeqId seq = kv.create();
    const BlockId block = cache.tree().block(node);
    if (restored) kv.attach(seq, {&block, 1}, static_cast<int64_t>(page));
    Result<std::vector<float>> state = last_state(runtime, seq, tokens, restored ? page : 0);
    if (state && !restored && !kv.whole(block)) {  // what is left of the page is compared
      const BlockId fresh = kv.share(seq, 0);
      if (fresh < 0) return run_failure("a page cannot be computed anew");
      kv.complete(block, fresh);
      kv.drop_block(fresh);
    }
    kv.release(seq);
    if (!state) return state.error();
    states[restored ? 1 : 0] = *std::move(state);
  }
  if (std::memcmp(states[0].data(), states[1].data(), states[0].size() * sizeof(float)) == 0) return {};
  return run_failure("a page that was computed anew has other bits");
}

}  // namespace

Status Engine::save_cache(const std::string& path) {
  if (!cache_) return bad_usage("{}: there is no prefix cache to save", path);
  const Result<PrefixIdentity> identity = identity_of(runtime_);
  if (!identity) return identity.error();
  const PrefixTree& tree = cache_->tree();
  const std::vector<int32_t> nodes = tree.all();
  Result<PrefixFileWriter> writer =
      PrefixFileWriter::create(path, *identity, static_cast<int64_t>(nodes.size()));
  if (!writer) return writer.error();
  std::unordered_map<int32_t, int64_t> index;
  PrefixRecord record;
  record.kv.resize(identity->block_bytes);
  for (const int32_t node : nodes) {
    const int32_t parent = tree.parent(node);
    record.parent = parent == PrefixTree::kNone ? -1 : index.at(parent);
    record.salt = tree.salt(node);
    record.tokens.assign(tree.tokens(node).begin(), tree.tokens(node).end());
    record.whole = runtime_.kv().whole(tree.block(node));
    runtime_.kv().read_block(tree.block(node), record.kv);
    if (Status added = writer->add(record); !added) return added;
    index.emplace(node, static_cast<int64_t>(index.size()));
  }
  return writer->finish();
}

Result<RestoredCache> Engine::restore_cache(const std::string& path) {
  if (!cache_) return bad_usage("{}: there is no prefix cache to restore into", path);
  if (!idle() || cache_->tree().nodes() > 0) {
    return bad_usage("{}: a prefix cache is restored before anything has run", path);
  }
  const Result<PrefixIdentity> identity = identity_of(runtime_);
  if (!identity) return identity.error();
  std::ifstream in(path, std::ios::binary);
  if (!in) return run_failure("{}: cannot be opened", path);
  Result<RestoredCache> restored = restore_from(in, path, *identity);
  if (!restored) cache_->clear();  // all or nothing
  return restored;
}

Result<RestoredCache> Engine::restore_from(std::istream& in, const std::string& name,
                                           const PrefixIdentity& identity) {
  Result<PrefixFileReader> reader = PrefixFileReader::open(in, name, identity);
  if (!reader) return reader.error();
  RestoredCache restored;
  std::vector<int32_t> nodes;  // of the records so far; kNone: left out
  bool verified = false;
  for (;;) {
    const Result<const PrefixRecord*> next = reader->next();
    if (!next) return next.error();
    if (*next == nullptr) break;
    const PrefixRecord& record = **next;
    const bool orphan = record.parent >= 0 && nodes[static_cast<size_t>(record.parent)] == PrefixTree::kNone;
    const BlockId block = orphan ? -1 : runtime_.kv().write_block(record.kv, record.whole);
    nodes.push_back(PrefixTree::kNone);
    if (block < 0) {
      restored.left_out += static_cast<int64_t>(record.tokens.size());
      continue;
    }
    nodes.back() =
        cache_->restore(record.parent < 0 ? PrefixTree::kNone : nodes[static_cast<size_t>(record.parent)],
                        record.salt, record.tokens, block);
    if (nodes.back() == PrefixTree::kNone) {
      return run_failure("{}: record {} repeats another", name, nodes.size() - 1);
    }
    restored.tokens += static_cast<int64_t>(record.tokens.size());
    const bool whole = record.tokens.size() == identity.page_slots;
    if (verified || !whole || record.parent >= 0) continue;
    verified = true;
    if (Status same = recompute(runtime_, *cache_, nodes.back()); !same) {
      return run_failure("{}: {}", name, same.error().message());
    }
  }
  return restored;
}

}  // namespace mete
