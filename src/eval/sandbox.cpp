#include "eval/sandbox.h"

#include <fcntl.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <csignal>
#include <cstddef>
#include <cstring>
#include <vector>

#include "base/clock.h"

namespace mete {
namespace {

constexpr const char* kBubblewrap = "/usr/bin/bwrap";
constexpr const char* kPython = "/usr/bin/python3";
constexpr int kSeccompFd = 3;  // its number in the child

class File {
 public:
  explicit File(int fd) : fd_(fd) {}
  ~File() { reset(); }
  File(const File&) = delete;
  File& operator=(const File&) = delete;
  int get() const { return fd_; }
  void reset() {
    if (fd_ >= 0) ::close(fd_);
    fd_ = -1;
  }

 private:
  int fd_;
};

/// A file in memory that holds `bytes`, to be read from its start; -1 if it cannot be made.
int memory_file(const void* bytes, size_t count) {
  const int fd = ::memfd_create("mete", MFD_CLOEXEC);
  if (fd >= 0 &&
      (::write(fd, bytes, count) != static_cast<ssize_t>(count) || ::lseek(fd, 0, SEEK_SET) != 0)) {
    ::close(fd);
    return -1;
  }
  return fd;
}

/// Refuses every way to make a process or thread, new namespaces, and io_uring (which would go round the
/// filter); kills callers of another system call table.
std::vector<sock_filter> no_new_processes() {
  constexpr uint32_t kRefused[] = {SYS_clone,   SYS_fork,  SYS_vfork,         SYS_clone3,
                                   SYS_unshare, SYS_setns, SYS_io_uring_setup};
  constexpr uint32_t kX32 = 0x40000000u;
  std::vector<sock_filter> filter = {
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, arch)),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, AUDIT_ARCH_X86_64, 1, 0),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)),
      BPF_JUMP(BPF_JMP | BPF_JGE | BPF_K, kX32, 0, 1),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
  };
  for (const uint32_t number : kRefused) {
    filter.push_back(BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, number, 0, 1));
    filter.push_back(BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM));
  }
  filter.push_back(BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW));
  return filter;
}

std::vector<std::string> command_line(const SandboxLimits& limits) {
  const std::string line = fmt::format(
      "{} --unshare-user --unshare-ipc --unshare-pid --unshare-net --unshare-uts --unshare-cgroup-try --uid "
      "65534 "
      "--gid 65534 --cap-drop ALL --die-with-parent --new-session --clearenv --setenv PATH /usr/bin "
      "--ro-bind /usr /usr --symlink usr/lib /lib --symlink usr/lib64 /lib64 --symlink usr/bin /bin --proc "
      "/proc "
      "--dev /dev --remount-ro /dev --size {} --tmpfs /tmp --remount-ro / --chdir /tmp --seccomp {} {} -I -",
      kBubblewrap, 4 * limits.file_bytes, kSeccompFd, kPython);
  std::vector<std::string> words(1);
  for (const char c : line) {
    if (c == ' ') {
      words.emplace_back();
    } else {
      words.back() += c;
    }
  }
  return words;
}

void set_limit(int what, int64_t value) {
  const rlimit limit = {static_cast<rlim_t>(value), static_cast<rlim_t>(value)};
  if (::setrlimit(static_cast<__rlimit_resource>(what), &limit) != 0) ::_exit(126);
}

/// After fork, in the child: only calls that are safe there. Does not return.
[[noreturn]] void become_sandbox(char* const* argv, int program, int seccomp, int output,
                                 const SandboxLimits& limits) {
  ::setpgid(0, 0);
  // Moved high first, so that none is overwritten before it is used.
  const int high_program = ::fcntl(program, F_DUPFD, 100), high_seccomp = ::fcntl(seccomp, F_DUPFD, 100),
            high_output = ::fcntl(output, F_DUPFD, 100);
  if (::dup2(high_program, 0) < 0 || ::dup2(high_output, 1) < 0 || ::dup2(high_output, 2) < 0 ||
      ::dup2(high_seccomp, kSeccompFd) < 0 || ::syscall(SYS_close_range, kSeccompFd + 1, ~0U, 0) != 0) {
    ::_exit(126);
  }
  set_limit(RLIMIT_CPU, limits.cpu_s);
  set_limit(RLIMIT_AS, limits.memory_bytes);
  set_limit(RLIMIT_FSIZE, limits.file_bytes);
  set_limit(RLIMIT_NOFILE, 64);
  set_limit(RLIMIT_CORE, 0);
  ::execv(kBubblewrap, argv);
  ::_exit(126);
}

/// Reads until the other end is closed or the time is over; false in the second case.
bool drain(int fd, double deadline, size_t limit, std::string& output) {
  std::array<char, 4096> buffer;
  for (;;) {
    const double left = deadline - now_seconds();
    if (left <= 0) return false;
    pollfd wait = {fd, POLLIN, 0};
    const int ready = ::poll(&wait, 1, static_cast<int>(left * 1000) + 1);
    if (ready < 0 && errno != EINTR) return false;
    if (ready <= 0) continue;
    const ssize_t n = ::read(fd, buffer.data(), buffer.size());
    if (n == 0) return true;
    if (n > 0) output.append(buffer.data(), std::min(static_cast<size_t>(n), limit - output.size()));
  }
}

// Exits with 0 if every promise of sandbox.h holds; else prints the first one that does not.
constexpr const char* kCheck = R"(
import ctypes, os, resource, socket, sys, threading
def fail(what):
    print(what)
    sys.exit(1)
if [n for _, n in socket.if_nameindex() if n != "lo"]: fail("there is a network")
try:
    os.fork()
    fail("a process could be made")
except OSError: pass
try:
    threading.Thread(target=print).start()
    fail("a thread could be made")
except RuntimeError: pass
try:
    bytearray(MEMORY)
    fail("memory is not limited")
except MemoryError: pass
for folder in ("/", "/usr", "/dev", "/proc"):
    try:
        open(folder + "/written", "w")
        fail("could write to " + folder)
    except OSError: pass
found = set(os.listdir("/")) - {"usr", "lib", "lib64", "bin", "proc", "dev", "tmp"}
if found: fail("can see " + str(sorted(found)))
if resource.getrlimit(resource.RLIMIT_CPU)[1] != CPU: fail("processor time is not limited")
if resource.getrlimit(resource.RLIMIT_FSIZE)[1] != FILE: fail("file size is not limited")
if os.getuid() != 65534: fail("runs as user " + str(os.getuid()))
if len([p for p in os.listdir("/proc") if p.isdigit()]) > 3: fail("can see other processes")
)";

}  // namespace

Result<SandboxRun> Sandbox::run_python(const std::string& program) const {
  const std::vector<sock_filter> filter = no_new_processes();
  File program_file(memory_file(program.data(), program.size()));
  File seccomp_file(memory_file(filter.data(), filter.size() * sizeof(sock_filter)));
  int ends[2];
  if (program_file.get() < 0 || seccomp_file.get() < 0 || ::pipe2(ends, O_CLOEXEC) != 0) {
    return run_failure("sandbox: no files for a program: {}", std::strerror(errno));
  }
  File reader(ends[0]), writer(ends[1]);
  std::vector<std::string> words = command_line(limits_);
  std::vector<char*> argv;
  for (std::string& word : words) argv.push_back(word.data());
  argv.push_back(nullptr);
  const double deadline = now_seconds() + limits_.wall_s;
  const pid_t child = ::fork();
  if (child < 0) return run_failure("sandbox: cannot fork: {}", std::strerror(errno));
  if (child == 0) become_sandbox(argv.data(), program_file.get(), seccomp_file.get(), writer.get(), limits_);
  writer.reset();

  SandboxRun run;
  run.timed_out = !drain(reader.get(), deadline, limits_.output_bytes, run.output);
  int status = 0;
  // The program may have closed its output and go on: its end is waited for too, within the same time.
  while (!run.timed_out && ::waitpid(child, &status, WNOHANG) == 0) {
    run.timed_out = now_seconds() > deadline;
    ::usleep(2000);
  }
  if (run.timed_out) {
    ::kill(child, SIGKILL);  // everything inside dies with it (--die-with-parent, own PID namespace)
    ::waitpid(child, &status, 0);
    return run;
  }
  run.exit_code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  return run;
}

Result<Sandbox> Sandbox::open(const SandboxLimits& limits) {
  for (const char* program : {kBubblewrap, kPython}) {
    if (::access(program, X_OK) != 0) return run_failure("no sandbox: {} is not there", program);
  }
  Sandbox sandbox(limits);
  const Result<SandboxRun> run =
      sandbox.run_python(fmt::format("MEMORY = {}\nCPU = {}\nFILE = {}\n", limits.memory_bytes, limits.cpu_s,
                                     limits.file_bytes) +
                         kCheck);
  if (!run) return run.error();
  if (run->exit_code == 0) return sandbox;
  return run_failure("no sandbox: {}", run->timed_out ? "its check takes too long" : run->output);
}

}  // namespace mete
