#include "server/engine_loop.h"

#include <unistd.h>

#include <algorithm>
#include <utility>

#include "base/clock.h"

namespace mete {
namespace {

constexpr double kMemorySeconds = 2;  // between two counts of the process's memory

}  // namespace

EngineLoop::EngineLoop(EngineLoopConfig config, Metrics& metrics, Deliver deliver, Ready ready, Note note)
    : metrics_(metrics),
      deliver_(std::move(deliver)),
      ready_(std::move(ready)),
      note_(std::move(note)),
      config_(std::move(config)) {
  thread_ = std::thread([this] { run(); });
}

EngineLoop::~EngineLoop() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
  }
  wake_.notify_one();
  thread_.join();
}

void EngineLoop::submit(JobId job, JobSpec spec) {
  {
    const std::lock_guard lock(mutex_);
    commands_.push_back({job, std::make_unique<JobSpec>(std::move(spec))});
  }
  wake_.notify_one();
}

void EngineLoop::cancel(JobId job) {
  {
    const std::lock_guard lock(mutex_);
    commands_.push_back({job, nullptr});
  }
  wake_.notify_one();
}

void EngineLoop::save_cache() {
  {
    const std::lock_guard lock(mutex_);
    save_wanted_ = true;
  }
  wake_.notify_one();
}

void EngineLoop::reread_memory() {
  {
    const std::lock_guard lock(mutex_);
    memory_wanted_ = true;
  }
  wake_.notify_one();
}

void EngineLoop::change_memory(int64_t bytes, std::function<void(Status)> done) {
  {
    const std::lock_guard lock(mutex_);
    memory_changes_.push_back({bytes, std::move(done)});
  }
  wake_.notify_one();
}

void EngineLoop::apply_memory_file() {
  try {
    (void)set_memory(config_.read_memory());  // it has said what came of it
  } catch (const Error& error) {
    note_("memory", fmt::format("the ceiling stays: {}", error.what()));
  }
}

Status EngineLoop::set_memory(int64_t bytes) {
  Status set = runtime_->set_memory(bytes);
  note_("memory", set ? fmt::format("the ceiling is now {} bytes", bytes)
                      : fmt::format("the ceiling stays: {}", set.error().message()));
  memory_counted_ = 0;
  return set;
}

EngineSnapshot EngineLoop::snapshot() const {
  const std::lock_guard lock(mutex_);
  return snapshot_;
}

void EngineLoop::run() {
  std::optional<Engine> engine;
  try {
    runtime_ = std::make_unique<Runtime>(config_.runtime);
    const MemoryPlan& plan = runtime_->memory_plan();
    if (plan.budget > 0) note_("memory", plan.summary());
    for (const std::string& choice : plan.choices) note_("memory", choice);
    engine.emplace(*runtime_, config_.engine);
    restore(*engine);
  } catch (...) {
    return ready_(std::current_exception());
  }
  publish(*engine);
  ready_(nullptr);
  while (take_commands(*engine)) {
    const double began = now_seconds();
    events_ = engine->step();  // a copy: on_event may cancel, which touches the engine's list
    report_progress(*engine, began);
    for (const TokenEvent& event : events_) on_event(*engine, event);
    publish(*engine);
    if (!news_.empty()) deliver_(std::exchange(news_, {}));
  }
  save(*engine);
}

/// A file that cannot be used exactly as it is is not used at all, and is left alone.
void EngineLoop::restore(Engine& engine) {
  if (config_.cache_file.empty() || ::access(config_.cache_file.c_str(), F_OK) != 0) return;
  const Result<RestoredCache> restored = engine.restore_cache(config_.cache_file);
  note_("prefix cache", restored ? fmt::format("restored {} tokens from {}, {} had no room", restored->tokens,
                                               config_.cache_file, restored->left_out)
                                 : fmt::format("not restored: {}", restored.error().message()));
}

void EngineLoop::save(Engine& engine) {
  if (config_.cache_file.empty()) return;
  const Status saved = engine.save_cache(config_.cache_file);
  note_("prefix cache", saved ? fmt::format("saved to {}", config_.cache_file)
                              : fmt::format("not saved: {}", saved.error().message()));
}

/// Waits while there is nothing to do; false when it is time to stop.
bool EngineLoop::take_commands(Engine& engine) {
  std::vector<Command> commands;
  std::vector<MemoryChange> changes;
  bool save_now = false, memory_now = false;
  {
    std::unique_lock lock(mutex_);
    wake_.wait(lock, [&] {
      return stop_ || save_wanted_ || memory_wanted_ || !memory_changes_.empty() || !commands_.empty() ||
             !engine.idle();
    });
    if (stop_) return false;
    commands.swap(commands_);
    changes.swap(memory_changes_);
    save_now = std::exchange(save_wanted_, false);
    memory_now = std::exchange(memory_wanted_, false);
  }
  if (save_now) save(engine);
  if (memory_now) apply_memory_file();
  for (const MemoryChange& change : changes) change.done(set_memory(change.bytes));
  for (Command& command : commands) {
    if (command.spec) {
      start_job(engine, command.job, *command.spec);
      continue;
    }
    const auto seq = seqs_.find(command.job);
    if (seq == seqs_.end()) continue;
    engine.cancel(seq->second);
    engine.release(seq->second);
    jobs_.erase(seq->second);
    seqs_.erase(seq);
  }
  return true;
}

void EngineLoop::start_job(Engine& engine, JobId id, const JobSpec& spec) {
  const Result<SeqId> seq = engine.submit(spec.request);
  if (!seq) {
    auto end = std::make_unique<JobEnd>();
    end->reason = FinishReason::kError;
    end->refused = true;
    end->queue_full = seq.error().code() == Code::kOverBudget;
    end->error = seq.error().message();
    news_.push_back({id, "", {}, std::move(end), {}, nullptr});
    return;
  }
  jobs_.emplace(*seq, Job(id, spec, runtime_->tokenizer()));
  seqs_.emplace(id, *seq);
}

/// After a step, before its tokens are told: the first report says what was there before.
void EngineLoop::report_progress(const Engine& engine, double step_began) {
  for (auto& entry : jobs_) {
    Job& job = entry.second;
    if (!job.wants_progress) continue;
    const SequenceLedger& ledger = engine.ledger(entry.first);
    const int64_t total = ledger.prompt_tokens, cached = total - ledger.prefill_tokens;
    const int64_t processed = std::min(engine.rows_done(entry.first), total);
    const bool first = job.prompt_began == 0;
    // Not yet: it waits, or for a prompt that begins alike; or what it had is computed anew.
    if (first ? ledger.prefill_tokens == 0 || processed <= cached : processed <= job.processed) continue;
    const auto report = [&](int64_t done, double prefill_s) {
      JobEvent news{job.id, "", {}, nullptr};
      news.progress =
          PromptProgress{total, job.cached, done, done > job.cached ? now_seconds() - job.prompt_began : 0};
      if (job.wants_times) {
        SequenceLedger now = ledger;  // as if the prompt ended here
        now.prompt_tokens = done;
        now.prefill_tokens = done - job.cached;
        now.prefill_s = prefill_s;
        now.first_token = now.last_token = 0;
        now.decode_tokens = 0;
        news.times = std::make_unique<JobTimes>(JobTimes{now, 0});
      }
      news_.push_back(std::move(news));
    };
    if (first) {
      job.prompt_began = step_began;
      job.cached = cached;
      report(cached, 0);
    }
    job.processed = processed;
    job.wants_progress = processed < total;
    report(processed, ledger.prefill_s);
  }
}

void EngineLoop::on_event(Engine& engine, const TokenEvent& event) {
  const auto found = jobs_.find(event.seq);
  METE_CHECK(found != jobs_.end());
  Job& job = found->second;
  FinishReason reason = event.reason;
  JobEvent news{job.id, "", {}, nullptr};
  if (event.token >= 0) {
    ++job.generated;
    const double now = now_seconds();
    if (job.last_token > 0) metrics_.inter_token_latency.observe(now - job.last_token);
    job.last_token = now;
    if (!event.end_token) {
      job.held.push_back({event.token, event.logprob, {event.top.begin(), event.top.end()}});
      news.text = job.stops.put(job.detokenizer.put(event.token));
    }
  }
  if (reason != FinishReason::kNone && !job.stops.stopped()) {
    news.text += job.stops.put(job.detokenizer.finish());
    news.text += job.stops.finish();
  }
  if (job.stops.stopped() && reason != FinishReason::kError) {
    if (reason == FinishReason::kNone) engine.cancel(event.seq);
    reason = FinishReason::kStop;
  }
  const bool ended = reason != FinishReason::kNone;
  // Tokens of a stop string are not shown; nor are those whose text is still held back.
  if (!news.text.empty() || (ended && !job.stops.stopped())) news.tokens = std::exchange(job.held, {});
  if (ended) return end_job(engine, event.seq, reason, std::move(news));
  if (news.text.empty()) return;
  if (job.wants_times)
    news.times = std::make_unique<JobTimes>(JobTimes{engine.ledger(event.seq), job.generated});
  news_.push_back(std::move(news));
}

void EngineLoop::end_job(Engine& engine, SeqId seq, FinishReason reason, JobEvent event) {
  const Job& job = jobs_.at(seq);
  auto end = std::make_unique<JobEnd>();
  end->reason = reason;
  end->generated = job.generated;
  end->stop_string = job.stops.found();
  end->ledger = engine.ledger(seq);
  end->logits_hash = engine.logits_hash(seq);
  if (reason == FinishReason::kError) end->error = engine.error(seq);
  if (event.tokens.empty() && job.generated == 0) end->embedding = engine.embedding(seq);
  if (job.wants_times) event.times = std::make_unique<JobTimes>(JobTimes{end->ledger, end->generated});
  metrics_.observe_end(reason, end->ledger, end->generated, now_seconds());
  engine.release(seq);
  seqs_.erase(job.id);
  jobs_.erase(seq);
  event.end = std::move(end);
  news_.push_back(std::move(event));
}

void EngineLoop::publish(const Engine& engine) {
  EngineSnapshot fresh;
  fresh.stats = engine.stats();
  fresh.jobs.reserve(jobs_.size());
  for (const auto& [seq, job] : jobs_) {
    fresh.jobs.push_back({job.id, engine.ledger(seq).prompt_tokens, engine.rows_done(seq), job.generated});
  }
  const double now = now_seconds();
  const bool count = now - memory_counted_ > kMemorySeconds;  // it reads /proc
  if (count) {
    memory_counted_ = now;
    fresh.memory = engine.memory_use();
  }
  const MemoryPlan& plan = runtime_->memory_plan();
  fresh.planned = plan.lines;
  fresh.memory_ceiling = plan.budget;
  fresh.memory_floor = plan.floor;
  const std::lock_guard lock(mutex_);
  if (!count) fresh.memory = snapshot_.memory;
  snapshot_ = std::move(fresh);
}

}  // namespace mete
