// Programs in the sandbox: what is right passes, what cheats, hangs, eats memory or looks outside does not.
#include "eval/sandbox.h"

#include <gtest/gtest.h>

#include "base/clock.h"
#include "eval/run_task.h"

namespace mete {
namespace {

class SandboxTest : public ::testing::Test {
 protected:
  void SetUp() override {
    SandboxLimits limits;
    limits.wall_s = 5;
    limits.cpu_s = 2;
    Result<Sandbox> opened = Sandbox::open(limits);
    if (!opened) GTEST_SKIP() << opened.error().message();
    sandbox_.emplace(*std::move(opened));
  }
  SandboxRun run(const std::string& program) const { return sandbox_->run_python(program).value(); }
  bool passes(const std::string& answer) const {
    const TaskItem item = {"", "def add(a, b):\n", "def check(f):\n    assert f(2, 3) == 5\n\ncheck(add)\n"};
    return passes_test(*sandbox_, item, answer).value();
  }
  std::optional<Sandbox> sandbox_;
};

TEST_F(SandboxTest, OutputAndExitCode) {
  const SandboxRun good =
      run("print('hello', flush=True); import sys; print('err', file=sys.stderr); sys.exit(3)");
  EXPECT_EQ(good.exit_code, 3);
  EXPECT_EQ(good.output, "hello\nerr\n");
  EXPECT_EQ(run("print('x' * 1000000)").output.size(), size_t{1} << 16);
}

TEST_F(SandboxTest, AnswersAreJudgedByTheirTest) {
  EXPECT_TRUE(passes("    return a + b\n"));
  EXPECT_FALSE(passes("    return a - b\n"));
  EXPECT_FALSE(passes("    return a +\n"));
  EXPECT_FALSE(passes("    return a + b\nimport sys\nsys.exit(0)\n"));
  EXPECT_FALSE(passes("    return a + b\nprint('passed')\nimport os\nos._exit(0)\n"));
}

TEST_F(SandboxTest, TimeAndMemoryEnd) {
  const double start = now_seconds();
  const SandboxRun spin = run("while True: pass");
  EXPECT_TRUE(spin.timed_out || spin.exit_code != 0);
  const SandboxRun sleep = run("import time\ntime.sleep(1000)");
  EXPECT_TRUE(sleep.timed_out);
  const SandboxRun silent = run("import os, time\nos.close(1)\nos.close(2)\ntime.sleep(1000)");
  EXPECT_TRUE(silent.timed_out);
  EXPECT_LT(now_seconds() - start, 60);
  EXPECT_NE(run("x = bytearray(2 << 30)").exit_code, 0);
  EXPECT_NE(run("open('/tmp/a', 'wb').write(bytes(32 << 20))").exit_code, 0);
}

TEST_F(SandboxTest, NothingOutsideIsReached) {
  EXPECT_NE(run("import os\nos.fork()").exit_code, 0);
  EXPECT_NE(run("import subprocess\nsubprocess.run(['/bin/true'])").exit_code, 0);
  EXPECT_NE(run("import socket\nsocket.create_connection(('127.0.0.1', 22), 1)").exit_code, 0);
  EXPECT_NE(run("import socket\nsocket.create_connection(('1.1.1.1', 53), 1)").exit_code, 0);
  EXPECT_NE(run("open('/etc/passwd')").exit_code, 0);
  EXPECT_NE(run("open('/usr/x', 'w')").exit_code, 0);
  EXPECT_EQ(run("import os\nassert not set(os.environ) - {'PATH', 'PWD', 'LC_CTYPE'}, os.environ").exit_code,
            0);
  EXPECT_EQ(run("open('/tmp/x', 'w').write('ok')").exit_code, 0);
}

TEST(SandboxRefusal, WhereItsPromisesCannotBeKept) {
  SandboxLimits limits;
  limits.memory_bytes = 1 << 20;  // no program starts in 1 MiB
  const Result<Sandbox> opened = Sandbox::open(limits);
  ASSERT_FALSE(opened);
  EXPECT_EQ(opened.error().code(), Code::kRuntime);
  EXPECT_EQ(opened.error().message().rfind("no sandbox", 0), 0u);
}

}  // namespace
}  // namespace mete
