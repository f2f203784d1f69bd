#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <iostream>
#include <nlohmann/json.hpp>
#include <optional>

#include "apps/args.h"
#include "apps/commands.h"
#include "apps/conversation.h"
#include "apps/grammar_options.h"
#include "apps/memory.h"
#include "apps/progress.h"
#include "base/energy.h"
#include "engine/engine.h"
#include "text/detokenizer.h"
#include "text/stop_matcher.h"

namespace mete {
namespace {

volatile std::sig_atomic_t g_interrupts = 0;  // Ctrl-C since the last look; the one thing a handler may touch

struct RunOptions {
  ModelOptions model;
  SamplingOptions sampling;
  GrammarOptions grammar;
  std::optional<std::string> prompt;
  std::string prompt_file, system_prompt, system_prompt_file, chat_template, chat_template_file;
  std::vector<std::string> stops;
  int64_t n_predict = -1;
  bool no_conversation = false, conversation = false, ignore_eos = false, json = false, receipt = false;
};

struct Reply {
  std::string text;
  std::vector<int32_t> tokens;  ///< without a final end token
  FinishReason reason = FinishReason::kNone;
  std::optional<double> joules;  ///< of the whole machine, from the request to the last token
  std::string no_joules;         ///< why there is no figure
};

void declare(CLI::App& app, RunOptions& o) {
  o.model.add_to(app);
  app.add_option("-p,--prompt", o.prompt, "the prompt; a user message if the model has a chat template");
  app.add_option("-f,--file", o.prompt_file, "read the prompt from a file");
  app.add_option("-n,--n-predict", o.n_predict, "most tokens to generate; -1: until the end or the context")
      ->check(CLI::Range(int64_t{-1}, int64_t{1} << 30))
      ->capture_default_str();
  app.add_flag("--conversation", o.conversation, "(-cnv) require a chat template");
  app.add_flag("--no-conversation", o.no_conversation,
               "(-no-cnv) continue the raw text, without a chat template");
  app.add_option("--system-prompt", o.system_prompt, "(-sys) system message");
  app.add_option("--system-prompt-file", o.system_prompt_file, "(-sysf) system message from a file");
  app.add_option("--chat-template", o.chat_template, "built-in template name, or a Jinja template's text");
  app.add_option("--chat-template-file", o.chat_template_file, "Jinja template file");
  app.add_option("-r,--reverse-prompt", o.stops, "stop string, may be repeated; not part of the text")
      ->allow_extra_args(false);
  app.add_flag("--ignore-eos", o.ignore_eos, "never sample an end-of-generation token");
  app.add_flag("--json", o.json, "print one JSON object on stdout and nothing else");
  app.add_flag("--receipt", o.receipt, "print on stderr what the answer cost");
  o.sampling.add_to(app);
  o.grammar.add_to(app);
}

/// What the options cannot mean together is refused, not ignored.
void check_options(const RunOptions& o) {
  const auto conflict = [](bool both, const char* a, const char* b) {
    if (both) throw bad_usage("{} and {} exclude each other", a, b);
  };
  conflict(o.prompt && !o.prompt_file.empty(), "-p", "-f");
  conflict(o.conversation && o.no_conversation, "--conversation", "--no-conversation");
  conflict(o.no_conversation && !o.system_prompt.empty(), "--no-conversation", "--system-prompt");
  conflict(o.no_conversation && !o.system_prompt_file.empty(), "--no-conversation", "--system-prompt-file");
  conflict(o.no_conversation && !o.chat_template.empty(), "--no-conversation", "--chat-template");
  conflict(o.no_conversation && !o.chat_template_file.empty(), "--no-conversation", "--chat-template-file");
  conflict(!o.chat_template.empty() && !o.chat_template_file.empty(), "--chat-template",
           "--chat-template-file");
  conflict(!o.system_prompt.empty() && !o.system_prompt_file.empty(), "--system-prompt",
           "--system-prompt-file");
  if (!o.prompt && o.prompt_file.empty()) {
    if (o.json) throw bad_usage("--json needs a prompt: -p or -f");
    if (o.no_conversation) throw bad_usage("--no-conversation needs a prompt: -p or -f");
  }
}

/// Writes to stdout; false when the reader has gone.
bool emit(const std::string& text) {
  return text.empty() ||
         (std::fwrite(text.data(), 1, text.size(), stdout) == text.size() && std::fflush(stdout) == 0);
}

class Runner {
 public:
  Runner(Engine& engine, const RunOptions& options, const SamplingParams& sampling, MemoryWatch& memory)
      : engine_(engine),
        options_(options),
        sampling_(sampling),
        memory_(memory),
        compiler_(engine.runtime().tokenizer()),
        grammar_(options.grammar.compile(compiler_)) {
    if (options.receipt || options.json) meter_.emplace();
  }

  /// Generates one reply, streaming it to stdout unless `--json`. Throws Error for a prompt that cannot be.
  Reply generate(std::vector<int32_t> prompt) {
    Request request;
    request.prompt = std::move(prompt);
    request.max_tokens = options_.n_predict;
    request.ignore_eos = options_.ignore_eos;
    request.sampling = sampling_;
    request.grammar = grammar_;
    if (request.max_tokens == 0) throw bad_usage("-n 0: nothing to generate");
    if (seq_) engine_.release(*seq_);
    seq_.reset();
    const std::optional<double> joules = meter_ ? meter_->joules() : std::nullopt;
    seq_ = engine_.submit(request).value();

    Reply reply;
    StreamDetokenizer detokenizer(engine_.runtime().tokenizer());
    StopMatcher stops(options_.stops);
    Progress progress("prompt");
    g_interrupts = 0;
    const auto deliver = [&](const std::string& text) {
      reply.text += text;
      if (!options_.json && !emit(text)) end(reply, FinishReason::kCancelled);
    };
    while (reply.reason == FinishReason::kNone) {
      memory_.poll(engine_.runtime());
      const std::vector<TokenEvent>& events = engine_.step();
      if (events.empty()) progress.update(engine_.rows_done(*seq_), engine_.ledger(*seq_).prompt_tokens);
      for (const TokenEvent& event : events) {
        progress.clear();
        if (event.reason == FinishReason::kError) throw run_failure("{}", engine_.error(*seq_));
        reply.reason = event.reason;
        if (event.end_token) continue;
        reply.tokens.push_back(event.token);
        deliver(stops.put(detokenizer.put(event.token)));
        if (stops.stopped()) end(reply, FinishReason::kStop);
      }
      if (g_interrupts != 0 && reply.reason == FinishReason::kNone) end(reply, FinishReason::kCancelled);
    }
    deliver(stops.put(detokenizer.finish()));
    deliver(stops.finish());
    if (joules) {
      if (const std::optional<double> now = meter_->joules()) reply.joules = *now - *joules;
    }
    if (meter_) reply.no_joules = meter_->why_not();
    return reply;
  }

  SeqId seq() const { return *seq_; }

 private:
  void end(Reply& reply, FinishReason reason) {
    if (reply.reason == FinishReason::kNone) engine_.cancel(*seq_);
    reply.reason = reason;
  }

  Engine& engine_;
  const RunOptions& options_;
  const SamplingParams& sampling_;
  MemoryWatch& memory_;
  GrammarCompiler compiler_;
  std::shared_ptr<const Grammar> grammar_;  // null: none
  std::optional<SeqId> seq_;
  std::optional<EnergyMeter> meter_;
};

nlohmann::ordered_json receipt_json(Engine& engine, SeqId seq, const Reply& reply) {
  const SequenceLedger& l = engine.ledger(seq);
  Runtime& r = engine.runtime();
  nlohmann::ordered_json receipt = {{"load_s", r.load_seconds()},
                                    {"ttft_s", l.ttft_s()},
                                    {"prompt_tokens", l.prompt_tokens},
                                    {"prefill_tokens", l.prefill_tokens},
                                    {"prefill_s", l.prefill_s},
                                    {"decode_tokens", l.decode_tokens},
                                    {"decode_s", l.decode_s()},
                                    {"sample_s", l.sample_s},
                                    {"peak_rss_bytes", peak_rss_bytes()},
                                    {"weight_bytes", r.model_config().weight_bytes},
                                    {"kv_bytes", r.kv().peak_bytes()},
                                    {"cpu_tier", name(r.tier())},
                                    {"threads", r.threads()},
                                    {"threads_batch", r.threads_batch()},
                                    {"context", r.max_context()}};
  if (ExpertStore* store = r.expert_store()) receipt["experts"] = experts_json(*store, l.spent());
  if (!r.row_stores().empty()) receipt["embeddings"] = embeddings_json(r.row_stores(), l.spent());
  receipt["joules"] = reply.joules ? nlohmann::ordered_json(*reply.joules) : nlohmann::ordered_json();
  if (!reply.joules) receipt["joules_unavailable"] = reply.no_joules;
  add_memory(receipt, r, engine.memory_use());
  receipt["ledger"] = {{"prefill", to_json(l.prefill())}, {"decode", to_json(l.decode())}};
  return receipt;
}

void print_receipt(Engine& engine, SeqId seq, const Reply& reply) {
  const nlohmann::ordered_json j = receipt_json(engine, seq, reply);
  const auto rate = [&](const char* tokens, const char* seconds) {
    return j[seconds] > 0 ? j[tokens].get<double>() / j[seconds].get<double>() : 0.0;
  };
  fmt::print(
      stderr,
      "load {:.3f} s | first token {:.3f} s | prefill {} tokens {:.3f} s ({:.1f} tok/s) | decode {} tokens "
      "{:.3f} s ({:.1f} tok/s)\n",
      j["load_s"].get<double>(), j["ttft_s"].get<double>(), j["prefill_tokens"].get<int64_t>(),
      j["prefill_s"].get<double>(), rate("prefill_tokens", "prefill_s"), j["decode_tokens"].get<int64_t>(),
      j["decode_s"].get<double>(), rate("decode_tokens", "decode_s"));
  fmt::print(stderr, "peak memory {:.1f} MiB (weights {:.1f}, KV {:.1f}) | {} | {} threads\n",
             j["peak_rss_bytes"].get<double>() / 1048576, j["weight_bytes"].get<double>() / 1048576,
             j["kv_bytes"].get<double>() / 1048576, j["cpu_tier"].get<std::string>(),
             j["threads"].get<int>());
  const SequenceLedger& l = engine.ledger(seq);
  if (j.contains("experts")) fmt::print(stderr, "{}\n", experts_text(j["experts"]));
  if (j.contains("embeddings")) fmt::print(stderr, "{}\n", embeddings_text(j["embeddings"]));
  fmt::print(stderr, "energy {}\n",
             reply.joules ? fmt::format("{:.2f} J", *reply.joules) : "not available: " + reply.no_joules);
  print_memory(engine.runtime(), engine.memory_use());
  fmt::print(stderr, "{}{}", describe("prefill", l.prefill()), describe("decode", l.decode()));
}

void print_json(Engine& engine, SeqId seq, const Reply& reply) {
  const nlohmann::ordered_json out = {{"text", reply.text},
                                      {"tokens", reply.tokens},
                                      {"prompt_tokens", engine.ledger(seq).prompt_tokens},
                                      {"finish_reason", name(reply.reason)},
                                      {"logits_hash", fmt::format("{:016x}", engine.logits_hash(seq))},
                                      {"receipt", receipt_json(engine, seq, reply)}};
  emit(out.dump(2, ' ', false, nlohmann::ordered_json::error_handler_t::replace) + "\n");
}

/// Says on stderr when a reply ended for want of room.
void report_end(const Reply& reply, Engine& engine, const RunOptions& options) {
  if (reply.reason != FinishReason::kLength) return;
  const bool limit = options.n_predict >= 0 && static_cast<int64_t>(reply.tokens.size()) >= options.n_predict;
  if (!limit) {
    fmt::print(stderr,
               "mete run: the context of {} tokens is full; the reply ends here (finish_reason length, -c)\n",
               engine.runtime().max_context());
  }
}

int run_once(Engine& engine, const RunOptions& o, const SamplingParams& sampling, MemoryWatch& memory,
             std::vector<int32_t> prompt) {
  Runner runner(engine, o, sampling, memory);
  const Reply reply = runner.generate(std::move(prompt));
  if (o.json) {
    print_json(engine, runner.seq(), reply);
  } else if (!reply.text.empty() && reply.text.back() != '\n') {
    emit("\n");
  }
  report_end(reply, engine, o);
  if (o.receipt) print_receipt(engine, runner.seq(), reply);
  return reply.reason == FinishReason::kCancelled && g_interrupts != 0 ? 130 : 0;
}

/// One line from the terminal; false at its end. Ctrl-C gives an empty line and counts in g_interrupts.
bool read_line(std::string& line) {
  line.clear();
  for (char c;;) {
    const ssize_t n = ::read(STDIN_FILENO, &c, 1);
    if (n < 0 && errno == EINTR) return true;
    if (n <= 0) return !line.empty();
    if (c == '\n') return true;
    line += c;
  }
}

int chat(Engine& engine, const RunOptions& o, const SamplingParams& sampling, MemoryWatch& memory,
         const ChatTemplate& chat_template, const std::vector<ChatMessage>& opening) {
  const bool terminal = ::isatty(STDIN_FILENO) == 1;
  if (terminal)
    fmt::print(stderr, "/clear forgets the conversation, /exit or Ctrl-D leaves, Ctrl-C stops a reply\n");
  Runner runner(engine, o, sampling, memory);
  std::vector<ChatMessage> messages = opening;
  std::string line;
  int idle_interrupts = 0;
  for (;;) {
    g_interrupts = 0;
    if (terminal && !emit("> ")) return 0;
    if (!read_line(line) || line == "/exit") break;
    if (g_interrupts != 0) {
      if (++idle_interrupts > 1) break;
      fmt::print(stderr, "\nCtrl-C again, Ctrl-D or /exit leaves\n");
      continue;
    }
    idle_interrupts = 0;
    if (line.empty()) continue;
    if (line == "/clear") {
      messages = opening;
      fmt::print(stderr, "the conversation is forgotten\n");
      continue;
    }
    if (line[0] == '/') {
      fmt::print(stderr, "unknown command {}: /clear, /exit\n", line);
      continue;
    }
    messages.push_back({"user", line});
    try {
      const Reply reply = runner.generate(encode_chat(engine.runtime().tokenizer(), chat_template, messages));
      if (!emit("\n")) return 0;
      report_end(reply, engine, o);
      if (o.receipt) print_receipt(engine, runner.seq(), reply);
      messages.push_back({"assistant", reply.text});
    } catch (const Error& error) {
      if (error.code() != Code::kUsage) throw;
      fmt::print(stderr, "mete run: {}; /clear starts anew\n", error.what());
      messages.pop_back();
    }
  }
  return emit(terminal ? "\n" : "") ? 0 : 0;
}

}  // namespace

int cmd_run(const std::vector<std::string>& args) {
  CLI::App app(
      "Answer a prompt, or chat when none is given. The same command gives the same text every time.",
      "mete run");
  RunOptions o;
  declare(app, o);
  if (const int code = parse(app, args); code >= 0) return code;
  check_options(o);
  const SamplingParams sampling = o.sampling.finish();
  std::optional<std::string> prompt = o.prompt;
  if (!o.prompt_file.empty()) prompt = read_text_file(o.prompt_file);
  if (!o.system_prompt_file.empty()) o.system_prompt = read_text_file(o.system_prompt_file);

  struct sigaction action {};
  action.sa_handler = [](int) {
    g_interrupts = g_interrupts + 1;
  };  // no SA_RESTART: a read at the prompt ends
  ::sigaction(SIGINT, &action, nullptr);

  MemoryWatch memory("run", o.model.memory_file);
  std::optional<Runtime> runtime;
  {
    Progress progress("loading");
    RuntimeConfig config = o.model.config();
    config.progress = Progress::callback;
    config.progress_user = &progress;
    config.text_bytes = prompt ? static_cast<int64_t>(prompt->size()) * kTextCopies : 0;
    runtime.emplace(config);
  }
  announce_memory("run", *runtime);
  EngineConfig engine_config;
  if (prompt) engine_config.reuse = ReusePolicy::kNone;  // one answer: nothing comes back to its prefixes
  Engine engine(*runtime, engine_config);
  const Tokenizer& tokenizer = runtime->tokenizer();
  if (o.no_conversation) return run_once(engine, o, sampling, memory, encode_raw(tokenizer, *prompt));

  const std::optional<ChatTemplate> chat_template =
      find_chat_template(runtime->file().metadata(), o.chat_template, o.chat_template_file);
  if (!chat_template) {
    if (o.conversation || !prompt || !o.system_prompt.empty()) {
      throw bad_usage(
          "this model has no chat template: give --chat-template or --chat-template-file, or a prompt "
          "with --no-conversation");
    }
    return run_once(engine, o, sampling, memory, encode_raw(tokenizer, *prompt));
  }
  std::vector<ChatMessage> messages;
  if (!o.system_prompt.empty()) messages.push_back({"system", o.system_prompt});
  if (!prompt) return chat(engine, o, sampling, memory, *chat_template, messages);
  messages.push_back({"user", *prompt});
  return run_once(engine, o, sampling, memory, encode_chat(tokenizer, *chat_template, messages));
}

}  // namespace mete
