// The engine on a thread of its own: commands go in without waiting, events come out once per step. Text is
// made here too, so that a stop string ends a sequence at a defined token.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <exception>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <unordered_map>
#include <vector>

#include "engine/engine.h"
#include "server/metrics.h"
#include "text/detokenizer.h"
#include "text/stop_matcher.h"

namespace mete {

using JobId = uint64_t;

/// One sequence as the server asks for it.
struct JobSpec {
  Request request;
  std::vector<std::string> stops;
  std::vector<int32_t> shown_tokens{};  ///< special tokens that are part of the text
  bool wants_progress = false;          ///< events say how far the prompt is
  bool wants_times = false;             ///< events with text say what it took so far
};

struct JobToken {
  int32_t id;
  float logprob;
  std::vector<TokenLogprob> top;
};

struct JobEnd {
  FinishReason reason = FinishReason::kNone;
  bool refused = false;     ///< the engine did not take it; `error` says why
  bool queue_full = false;  ///< that is why
  std::string error;        ///< with kError, or refused
  std::string stop_string;  ///< that ended the text, or ""
  int64_t generated = 0;    ///< tokens, a final end token included
  uint64_t logits_hash = 0;
  SequenceLedger ledger;
  std::vector<float> embedding;
};

/// How far a prompt is: `cached` of `total` tokens were there, `processed` are (those included).
struct PromptProgress {
  int64_t total, cached, processed;
  double seconds;  ///< since its first step began
};

/// What a sequence took until now.
struct JobTimes {
  SequenceLedger ledger;
  int64_t generated;
};

/// Text that is certain, with the tokens behind it (an end token is not among them), or the end; or progress
/// of the prompt, and times until there, and nothing else.
struct JobEvent {
  JobId job;
  std::string text;
  std::vector<JobToken> tokens;
  std::unique_ptr<JobEnd> end;
  std::optional<PromptProgress> progress{};
  std::unique_ptr<JobTimes> times{};
};

struct SlotInfo {
  JobId job;
  int64_t prompt_tokens, rows_done, generated;
};

/// What the engine's thread last said of itself.
struct EngineSnapshot {
  EngineStats stats;
  std::vector<SlotInfo> jobs;  ///< that have not ended
  /// Memory by part: planned, and in use at most two seconds before the last step.
  MemoryLines planned{};
  MemoryUse memory;
  int64_t memory_ceiling = 0, memory_floor = 0;  ///< bytes; ceiling 0: none
};

struct EngineLoopConfig {
  RuntimeConfig runtime;
  EngineConfig engine;
  std::string cache_file;                ///< where the prefix cache is kept between runs; "": nowhere
  std::function<int64_t()> read_memory;  ///< the ceiling as it should be now; throws Error
};

class EngineLoop {
 public:
  /// Called on the engine's thread: after each step that had news, and once when loading has ended (with an
  /// exception if it failed).
  using Deliver = std::function<void(std::vector<JobEvent>)>;
  using Ready = std::function<void(std::exception_ptr)>;
  /// Called on the engine's thread: what came of a change, in a line.
  using Note = std::function<void(const char* about, const std::string&)>;

  EngineLoop(EngineLoopConfig config, Metrics& metrics, Deliver deliver, Ready ready, Note note);
  /// Stops at the end of the running step.
  ~EngineLoop();

  void submit(JobId job, JobSpec spec);
  /// No event of the job follows but those already under way.
  void cancel(JobId job);
  /// Writes the prefix cache to its file after the running step.
  void save_cache();
  /// Applies what read_memory says after the running step.
  void reread_memory();
  /// Sets the ceiling after the running step; `done` is called on the engine's thread with what came of it.
  void change_memory(int64_t bytes, std::function<void(Status)> done);
  EngineSnapshot snapshot() const;
  /// After `ready`; immutable parts (tokenizer, model configuration, file) may be used on any thread.
  const Runtime& runtime() const { return *runtime_; }

 private:
  struct Command {
    JobId job;
    std::unique_ptr<JobSpec> spec;  ///< null: cancel
  };
  struct Job {
    Job(JobId i, const JobSpec& spec, const Tokenizer& tokenizer)
        : id(i),
          stops(spec.stops),
          detokenizer(tokenizer, false, spec.shown_tokens),
          wants_progress(spec.wants_progress),
          wants_times(spec.wants_times) {}
    JobId id;
    StopMatcher stops;
    StreamDetokenizer detokenizer;
    bool wants_progress, wants_times;
    int64_t processed = 0;       // prompt tokens, as last said
    int64_t cached = 0;          // of those, there before
    double prompt_began = 0;     // clock
    std::vector<JobToken> held;  // tokens whose text is not certain yet
    double last_token = 0;
    int64_t generated = 0;
  };

  void run();
  bool take_commands(Engine& engine);
  void start_job(Engine& engine, JobId id, const JobSpec& spec);
  void report_progress(const Engine& engine, double step_began);
  void on_event(Engine& engine, const TokenEvent& event);
  void end_job(Engine& engine, SeqId seq, FinishReason reason, JobEvent event);
  void publish(const Engine& engine);
  void restore(Engine& engine);
  void save(Engine& engine);
  struct MemoryChange {
    int64_t bytes;
    std::function<void(Status)> done;
  };
  void apply_memory_file();
  Status set_memory(int64_t bytes);

  Metrics& metrics_;
  Deliver deliver_;
  Ready ready_;
  Note note_;
  EngineLoopConfig config_;
  std::unique_ptr<Runtime> runtime_;

  mutable std::mutex mutex_;
  std::condition_variable wake_;
  std::vector<Command> commands_;
  std::vector<MemoryChange> memory_changes_;
  bool stop_ = false, save_wanted_ = false, memory_wanted_ = false;
  EngineSnapshot snapshot_;

  // Of the engine's thread.
  double memory_counted_ = 0;
  std::unordered_map<SeqId, Job> jobs_;
  std::unordered_map<JobId, SeqId> seqs_;
  std::vector<TokenEvent> events_;
  std::vector<JobEvent> news_;

  std::thread thread_;
};

}  // namespace mete
