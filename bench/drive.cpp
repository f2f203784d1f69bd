// Read rate of the drive that holds a file: bench_drive FILE BLOCK DEPTH SECONDS prints bytes per second of
// random direct reads, for bench/experts.py.
#include <cstdio>
#include <cstdlib>

#include "format/drive_probe.h"

int main(int argc, char** argv) {
  if (argc != 5) {
    std::fputs("usage: bench_drive FILE BLOCK DEPTH SECONDS\n", stderr);
    return 2;
  }
  const mete::DrivePattern pattern{true, true, std::atoll(argv[2]), std::atoi(argv[3])};
  const auto rate = mete::measure_drive(argv[1], pattern, std::atof(argv[4]));
  if (!rate) {
    std::fprintf(stderr, "bench_drive: %s\n", rate.error().message().c_str());
    return 1;
  }
  std::printf("%.0f\n", rate->bytes_per_s.median);
  return 0;
}
