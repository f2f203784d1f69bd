// A GGUF file of routed experts on disk, with the panels that each expert must have.
#pragma once

#include <unistd.h>

#include <cstdio>
#include <string>
#include <vector>

#include "base/rng.h"
#include "quant/pack.h"
#include "testing/gguf_writer.h"
#include "weights/expert_layout.h"
#include "weights/experts.h"

namespace mete::testing {

/// Layers of experts with matrices of random bytes: panels hold any bits. Odd layers have gate and up in one
/// tensor if `fused`; layer 1 has another type for its down matrices.
class ExpertFile {
 public:
  static constexpr int32_t kLayers = 3, kExperts = 8;
  static constexpr int64_t kModel = 256, kFfn = 32 * 3;

  explicit ExpertFile(const std::string& name, bool fused = true)
      : path(std::string(::testing::TempDir()) + "/mete_" + name + "_" + std::to_string(::getpid()) +
             ".gguf") {
    GgufWriter writer;
    writer.set("general.architecture", "test");
    for (int layer = 0; layer < kLayers; ++layer) {
      const std::string stem = "blk." + std::to_string(layer);
      const DType down = layer == 1 ? DType::kQ8_0 : DType::kQ4_0;
      if (fused && layer % 2 == 1) {
        add(writer, stem + ".up", DType::kQ4_0, kModel, 2 * kFfn);
      } else {
        add(writer, stem + ".gate", DType::kQ5_1, kModel, kFfn);
        add(writer, stem + ".up", DType::kQ4_0, kModel, kFfn);
      }
      add(writer, stem + ".down", down, kFfn, kModel);
    }
    writer.save(path);
    file = std::make_unique<GgufFile>(GgufFile::open(path).value());
    declaration.experts = kExperts;
    declaration.used = 2;
    declaration.d_model = kModel;
    declaration.ffn = kFfn;
    for (int layer = 0; layer < kLayers; ++layer) {
      const std::string stem = "blk." + std::to_string(layer);
      declaration.layers.push_back({file->find(stem + ".gate"), file->find(stem + ".up"),
                                    file->find(stem + ".down"), nullptr, nullptr, nullptr});
    }
  }
  ExpertFile(const ExpertFile&) = delete;
  ExpertFile& operator=(const ExpertFile&) = delete;
  ~ExpertFile() {
    for (const char* tail : {"", ".pack", ".pack.partial"}) std::remove((path + tail).c_str());
  }

  /// Panels of one expert's matrices, one after the other, packed row by row from the file.
  std::vector<uint8_t> expected(int layer, int32_t expert) const {
    const ExpertLayer& l = declaration.layers[static_cast<size_t>(layer)];
    std::vector<uint8_t> out;
    if (l.gate != nullptr) append(out, *l.gate, expert, 0, kFfn);
    if (l.gate == nullptr) append(out, *l.up, expert, 0, kFfn);
    append(out, *l.up, expert, l.gate == nullptr ? kFfn : 0, kFfn);
    append(out, *l.down, expert, 0, kModel);
    return out;
  }

  static std::vector<uint8_t> panels(const ExpertWeights& w) {
    std::vector<uint8_t> out;
    for (const Linear* l : {&w.gate, &w.up, &w.down}) {
      out.insert(out.end(), l->panels, l->panels + static_cast<size_t>(panel_count(l->rows)) * l->stride());
    }
    return out;
  }

  std::string path;
  std::unique_ptr<GgufFile> file;
  ExpertDeclaration declaration;

 private:
  void add(GgufWriter& writer, const std::string& name, DType type, int64_t cols, int64_t rows) {
    std::vector<uint8_t> raw(row_bytes(type, cols) * static_cast<size_t>(rows * kExperts));
    for (uint8_t& byte : raw) byte = static_cast<uint8_t>(random_bits(5, position_++, Purpose::kTest));
    writer.tensor(name, type, {cols, rows, kExperts}, raw);
  }

  void append(std::vector<uint8_t>& out, const GgufTensor& t, int64_t expert, int64_t first,
              int64_t rows) const {
    const size_t row = row_bytes(t.type, t.cols()), stride = panel_bytes(t.type, t.cols());
    std::vector<uint8_t> raw(row * static_cast<size_t>(rows));
    const auto at = static_cast<uint64_t>(expert * t.dims[1] + first) * row;
    file->read(t, at, raw).or_throw();
    AlignedBuffer panel(stride);
    for (int64_t r = 0; r < rows; r += kPanelRows) {
      pack_panel(t.type, raw.data() + static_cast<size_t>(r) * row,
                 static_cast<int>(std::min<int64_t>(kPanelRows, rows - r)), t.cols(), panel.data());
      out.insert(out.end(), panel.data(), panel.data() + stride);
    }
  }

  uint64_t position_ = 0;
};

}  // namespace mete::testing
