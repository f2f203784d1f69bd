// The bodies of requests: the first byte chooses the API. A body is taken or refused with a JSON error.
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "base/error.h"
#include "server/generation.h"

namespace {

template <typename T>
void check(const mete::ApiResult<T>& result) {
  if (result) return;
  METE_CHECK(result.error().status >= 400 && !result.error().message.empty());
  METE_CHECK(mete::Json::parse(mete::openai_error_body(result.error())).contains("error"));
  METE_CHECK(mete::Json::parse(mete::anthropic_error_body(result.error(), "id")).contains("error"));
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const std::string_view body(reinterpret_cast<const char*>(data) + 1, size - 1);
  mete::ApiDefaults defaults;
  defaults.vocab = 1000;
  switch (data[0] % 8) {
    case 0:
      check(mete::parse_chat(body, defaults));
      break;
    case 1:
      check(mete::parse_completion(body, defaults));
      break;
    case 2:
      check(mete::parse_llama_completion(body, defaults));
      break;
    case 3:
      check(mete::parse_responses(body, defaults));
      break;
    case 4:
      check(mete::parse_messages(body, defaults));
      break;
    case 5:
      check(mete::parse_embeddings(body, defaults));
      break;
    case 6:
      check(mete::parse_tokenize(body));
      break;
    default:
      check(mete::parse_detokenize(body, defaults));
  }
  return 0;
}
