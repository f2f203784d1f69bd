// Scoring of a text on a tiny model: same bits for every chunking, exactly no distance to itself, files and
// refusals.
#include "eval/quality.h"

#include <gmock/gmock.h>

#include <cmath>

#include "eval/tiny_file.h"

namespace mete {
namespace {

using testing::some_text;
using testing::TinyFile;

class QualityTest : public ::testing::Test {
 protected:
  Quality score(const Windows& windows, int64_t max_rows, Reference* reference = nullptr, RowSink sink = {}) {
    const std::unique_ptr<Runtime> runtime = file_.load(windows.size, max_rows);
    ModelLogits source(*runtime, windows);
    return score_rows(source, windows, kVocab, reference, sink, {}).summary();
  }
  Windows windows(int64_t size, int64_t count) {
    return cut_windows(file_.load(size)->tokenizer(), some_text(400), "text", size, count);
  }
  /// Scores `windows` and writes the rows to a file; k = 0: the full form.
  std::string save(const Windows& windows, int64_t k) {
    const std::string path = TinyFile::temporary("logits" + std::to_string(k));
    LogitsWriter writer(path, kVocab, windows, k);
    score(windows, 512, nullptr, [&](const float* logits, int32_t target) { writer.row(logits, target); });
    writer.close();
    return path;
  }
  static constexpr int64_t kVocab = 320;
  TinyFile file_;
};

std::string message(const std::function<void()>& run) {
  try {
    run();
  } catch (const Error& error) {
    return error.message();
  }
  return "";
}

TEST_F(QualityTest, ChunkingDoesNotChangeABit) {
  const Windows w = windows(200, 3);
  const Quality expected = score(w, 512);
  EXPECT_EQ(expected.rows, 3 * 99);
  EXPECT_GT(expected.ppl, 1);
  for (const int64_t rows : {1, 7, 64, 100}) {
    const Quality q = score(w, rows);
    EXPECT_EQ(q.ppl, expected.ppl) << rows;
    EXPECT_EQ(q.ppl_se, expected.ppl_se) << rows;
  }
}

TEST_F(QualityTest, ARunAgainstItselfHasNoDistance) {
  const Windows w = windows(64, 4);
  const std::string full = save(w, 0), compact = save(w, 10);
  const std::unique_ptr<Runtime> beside = file_.load(64);
  std::vector<std::unique_ptr<Reference>> references;
  references.push_back(std::make_unique<ModelReference>(*beside, w));
  references.push_back(std::make_unique<FileReference>(full, kVocab, w));
  references.push_back(std::make_unique<FileReference>(compact, kVocab, w));
  for (const auto& reference : references) {
    const Quality q = score(w, 5, reference.get());
    EXPECT_EQ(q.kl_mean, 0.0);
    EXPECT_EQ(q.kl_p99, 0.0);
    EXPECT_EQ(q.kl_max, 0.0);
    EXPECT_EQ(q.same_top1, 1.0);
    EXPECT_EQ(q.reference_ppl, q.ppl);
  }
  std::remove(full.c_str());
  std::remove(compact.c_str());
}

TEST_F(QualityTest, FullPrecisionDiffersAndTheCompactFormIsBelow) {
  const Windows w = windows(64, 4);
  const std::unique_ptr<Runtime> precise = file_.load(64, 512, NumericMode::kReference);
  const std::string full = TinyFile::temporary("full"), compact = TinyFile::temporary("compact");
  {
    LogitsWriter to_full(full, kVocab, w), to_compact(compact, kVocab, w, 20);
    ModelLogits source(*precise, w);
    for (int64_t row = 0; row < w.rows(); ++row) {
      const float* logits = source.next();
      to_full.row(logits, w.target(row));
      to_compact.row(logits, w.target(row));
    }
    to_full.close();
    to_compact.close();
  }
  FileReference full_reference(full, kVocab, w), compact_reference(compact, kVocab, w);
  const Quality q = score(w, 512, &full_reference), bound = score(w, 512, &compact_reference);
  EXPECT_GT(q.kl_mean, 0);
  EXPECT_GE(q.kl_max, q.kl_p99);
  EXPECT_GE(q.kl_p99, q.kl_mean);
  EXPECT_GT(bound.kl_mean, 0);
  EXPECT_LT(bound.kl_mean, q.kl_mean);
  EXPECT_GT(bound.outside_mean, 0);
  EXPECT_EQ(bound.same_top1, q.same_top1);
  EXPECT_EQ(bound.reference_ppl, q.reference_ppl);
  std::remove(full.c_str());
  std::remove(compact.c_str());
}

TEST_F(QualityTest, SummaryIsTheArithmeticOfItsRows) {
  RowLog log(true);
  for (int i = 0; i < 200; ++i) log.add(i, 1 + 0.01 * i, {0.001 * i, 0, 2.0, i % 4 != 0});
  const Quality q = log.summary();
  EXPECT_NEAR(q.ppl, std::exp(1.995), 1e-9);
  // Variance of 0..199 is (200^2 - 1) / 12; standard error of a mean with n - 1.
  EXPECT_NEAR(q.ppl_se, q.ppl * 0.01 * std::sqrt((200.0 * 200 - 1) / 12 / 199), 1e-9);
  EXPECT_NEAR(q.kl_mean, 0.0995, 1e-12);
  EXPECT_DOUBLE_EQ(q.kl_p99, 0.197);  // the 198th of 200
  EXPECT_DOUBLE_EQ(q.kl_max, 0.199);
  EXPECT_DOUBLE_EQ(q.same_top1, 0.75);
  EXPECT_NEAR(q.reference_ppl, std::exp(2.0), 1e-9);
  const Quality part = log.summary(50, 99);
  EXPECT_EQ(part.rows, 50);
  EXPECT_NEAR(part.ppl, std::exp(1 + 0.01 * 74.5), 1e-9);
}

TEST_F(QualityTest, WhatCannotBeScoredIsRefusedWithTheReason) {
  const std::unique_ptr<Runtime> runtime = file_.load(64);
  const Tokenizer& tokenizer = runtime->tokenizer();
  const auto cut = [&](const std::string& text, int64_t count) {
    return message([&] { cut_windows(tokenizer, text, "a.txt", 64, count); });
  };
  EXPECT_EQ(cut("", -1), "a.txt: the text is empty");
  EXPECT_THAT(cut("short", -1), ::testing::HasSubstr("fewer than one window of 64"));
  EXPECT_THAT(cut(some_text(100), 1000), ::testing::HasSubstr("windows of 64 tokens"));

  const Windows w = windows(64, 2);
  const std::string path = save(w, 0);
  const auto open = [&](const std::string& file, int64_t vocab, const Windows& expected) {
    return message([&] { LogitsReader reader(file, vocab, expected); });
  };
  EXPECT_EQ(open(path, kVocab, w), "");
  EXPECT_THAT(open(path, 321, w), ::testing::HasSubstr("another tokenizer: 320 tokens, expected 321"));
  EXPECT_THAT(open(path, kVocab, windows(64, 3)), ::testing::HasSubstr("2 windows of 64"));
  EXPECT_THAT(open(path + ".none", kVocab, w), ::testing::HasSubstr("cannot be opened"));
  EXPECT_THAT(open(file_.path(), kVocab, w), ::testing::HasSubstr("not a logits file"));
  Windows other = w;
  other.tokens[9] ^= 1;
  EXPECT_THAT(open(path, kVocab, other), ::testing::HasSubstr("another tokenizer or text: token 9 has id"));
  ASSERT_EQ(::truncate(path.c_str(), LogitsWriter::bytes(kVocab, w, 0) - 1), 0);
  EXPECT_THAT(open(path, kVocab, w), ::testing::HasSubstr("bytes, expected"));
  ASSERT_EQ(::truncate(path.c_str(), 30), 0);
  EXPECT_THAT(open(path, kVocab, w), ::testing::HasSubstr("ends too early"));
  std::remove(path.c_str());
}

TEST_F(QualityTest, AReferenceOfAnotherTokenizerIsRefused) {
  const std::unique_ptr<Runtime> own = file_.load(64);
  const TinyFile same("llama", DType::kF16), gemma("gemma3");
  const auto check = [&](const TinyFile& other) {
    const std::unique_ptr<Runtime> runtime = other.load(64);
    return message(
        [&] { require_same_tokenizer(own->tokenizer(), runtime->tokenizer(), "R", "some words"); });
  };
  EXPECT_EQ(check(same), "");
  EXPECT_THAT(check(gemma), ::testing::HasSubstr("R: a reference of another tokenizer"));
}

}  // namespace
}  // namespace mete
