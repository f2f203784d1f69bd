#include <csignal>
#include <cstdio>
#include <exception>
#include <new>
#include <string>
#include <vector>

#include "apps/commands.h"
#include "base/error.h"
#include "base/process_memory.h"

namespace {

struct Command {
  const char* name;
  int (*run)(const std::vector<std::string>& args);
  const char* help;
};
constexpr Command kCommands[] = {
    {"run", mete::cmd_run, "answer a prompt, or chat"},
    {"bench", mete::cmd_bench, "measure prefill and decode speed as a share of the machine's limit"},
    {"eval", mete::cmd_eval,
     "what a model and its settings cost in quality: perplexity, KL, tasks, price lists"},
    {"inspect", mete::cmd_inspect, "what is in a model file, and what the engine would do with it"},
    {"plan", mete::cmd_plan,
     "what a run under a memory ceiling would keep in memory, and how fast it should be"},
    {"serve", mete::cmd_serve, "serve the model over HTTP to OpenAI, Anthropic and llama-server clients"},
    {"pack", mete::cmd_pack, "write a model's experts to a file that is quicker to read them from"},
    {"replay", mete::cmd_replay, "hit rates of expert policies on a routing trace"},
    {"tokenize", mete::cmd_tokenize, "text to token ids"},
};

void print_help(FILE* out) {
  std::fputs(
      "mete: run a GGUF language model on this CPU, with the same bits every time\n\n"
      "usage: mete COMMAND [options]        mete COMMAND --help\n\n",
      out);
  for (const Command& c : kCommands) std::fprintf(out, "  %-10s %s\n", c.name, c.help);
  std::fputs(
      "\nexample: mete run -m model.gguf -p \"Why is the sky blue?\"\n"
      "exit codes: 0 ok, 1 run-time failure, 2 usage, 3 bad model file, 4 budget below the floor\n",
      out);
}

/// A message may quote strings of an untrusted file: control characters are escaped, so that it stays one
/// line and no terminal obeys it.
std::string one_line(const char* message) {
  constexpr char kHex[] = "0123456789abcdef";
  std::string out;
  for (const char* c = message; *c != '\0'; ++c) {
    const unsigned byte = static_cast<unsigned char>(*c);
    if (byte >= 0x20 && byte != 0x7f) {
      out += *c;
    } else {
      out += {'\\', 'x', kHex[byte >> 4], kHex[byte & 15]};
    }
  }
  return out;
}

}  // namespace

int main(int argc, char** argv) {
  mete::limit_memory_overhead();
  std::signal(SIGPIPE, SIG_IGN);  // a closed pipe is seen as a failed write
  const std::vector<std::string> args(argv + 1, argv + argc);
  if (args.empty() || args[0] == "--help" || args[0] == "-h" || args[0] == "help") {
    print_help(args.empty() ? stderr : stdout);
    return args.empty() ? 2 : 0;
  }
  if (args[0] == "--version") {
    std::puts("mete " METE_VERSION);
    return 0;
  }
  for (const Command& command : kCommands) {
    if (args[0] != command.name) continue;
    try {
      return command.run({args.begin() + 1, args.end()});
    } catch (const mete::Error& error) {
      std::fprintf(stderr, "mete %s: %s\n", command.name, one_line(error.what()).c_str());
      return error.exit_code();
    } catch (const std::bad_alloc&) {
      std::fprintf(stderr, "mete %s: out of memory\n", command.name);
      return 1;
    } catch (const std::exception& error) {  // fmt::print on a closed pipe or a full disk
      std::fprintf(stderr, "mete %s: %s\n", command.name, one_line(error.what()).c_str());
      return 1;
    }
  }
  std::fprintf(stderr, "mete: unknown command '%s' (mete --help lists them)\n", args[0].c_str());
  return 2;
}
