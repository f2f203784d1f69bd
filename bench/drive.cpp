// Read rate of the drive that holds a file: bench_drive FILE BLOCK DEPTH SECONDS [small] prints bytes per
// second of random direct reads into huge pages, or into pages of 4 KiB, for bench/experts.py.
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "format/drive_probe.h"

int main(int argc, char** argv) {
  const bool small = argc == 6 && std::strcmp(argv[5], "small") == 0;
  if (argc != 5 && !small) {
    std::fputs("usage: bench_drive FILE BLOCK DEPTH SECONDS [small]\n", stderr);
    return 2;
  }
  const mete::DrivePattern pattern{true, true, std::atoll(argv[2]), std::atoi(argv[3])};
  const auto rate = mete::measure_drive(argv[1], pattern, std::atof(argv[4]), !small);
  if (!rate) {
    std::fprintf(stderr, "bench_drive: %s\n", rate.error().message().c_str());
    return 1;
  }
  std::printf("%.0f\n", rate->bytes_per_s.median);
  return 0;
}
