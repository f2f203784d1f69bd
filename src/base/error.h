// Error values and the one exception type. Parsers of untrusted bytes return Result<T>; Error is thrown
// only at cold boundaries (bad file, bad configuration, out of memory at start). See docs/architecture.md.
#pragma once

#include <fmt/format.h>

#include <exception>
#include <optional>
#include <string>
#include <utility>
#include <variant>

namespace mete {

/// What went wrong, in terms of the process exit code that it leads to.
enum class Code {
  kRuntime = 1,    ///< run-time failure (I/O, memory)
  kUsage = 2,      ///< the caller asked for something that cannot be
  kBadModel = 3,   ///< malformed, hostile or unsupported model file
  kOverBudget = 4  ///< budget below the model's floor
};

/// An error: a code and one line that names the thing, what was found and what was expected.
class Error : public std::exception {
 public:
  Error(Code code, std::string message) : code_(code), message_(std::move(message)) {}
  Code code() const noexcept { return code_; }
  int exit_code() const noexcept { return static_cast<int>(code_); }
  const std::string& message() const noexcept { return message_; }
  const char* what() const noexcept override { return message_.c_str(); }

 private:
  Code code_;
  std::string message_;
};

template <typename... Args>
Error bad_model(fmt::format_string<Args...> format, Args&&... args) {
  return Error(Code::kBadModel, fmt::format(format, std::forward<Args>(args)...));
}
template <typename... Args>
Error bad_usage(fmt::format_string<Args...> format, Args&&... args) {
  return Error(Code::kUsage, fmt::format(format, std::forward<Args>(args)...));
}
template <typename... Args>
Error run_failure(fmt::format_string<Args...> format, Args&&... args) {
  return Error(Code::kRuntime, fmt::format(format, std::forward<Args>(args)...));
}

/// A value or an Error. `if (!result) return result.error();`, then `*result`.
template <typename T>
class [[nodiscard]] Result {
 public:
  Result(T value) : state_(std::move(value)) {}
  Result(Error error) : state_(std::move(error)) {}
  explicit operator bool() const noexcept { return state_.index() == 0; }
  T& operator*() & { return std::get<0>(state_); }
  const T& operator*() const& { return std::get<0>(state_); }
  T&& operator*() && { return std::get<0>(std::move(state_)); }
  T* operator->() { return &std::get<0>(state_); }
  const T* operator->() const { return &std::get<0>(state_); }
  const Error& error() const { return std::get<1>(state_); }
  /// The value; throws the Error if there is none. For cold boundaries only.
  T value() && {
    if (state_.index() == 1) throw std::get<1>(state_);
    return std::get<0>(std::move(state_));
  }

 private:
  std::variant<T, Error> state_;
};

/// Success or an Error.
class [[nodiscard]] Status {
 public:
  Status() = default;
  Status(Error error) : error_(std::move(error)) {}
  explicit operator bool() const noexcept { return !error_.has_value(); }
  const Error& error() const { return *error_; }
  void or_throw() const {
    if (error_) throw *error_;
  }

 private:
  std::optional<Error> error_;
};

[[noreturn]] void check_failed(const char* file, int line, const char* expression);

}  // namespace mete

/// Aborts on a broken invariant of our own; never on anything that a user or a file can cause.
#define METE_CHECK(expression) \
  ((expression) ? static_cast<void>(0) : ::mete::check_failed(__FILE__, __LINE__, #expression))
