#include <cstdio>

int main() {
  std::puts("mete");
  return 0;
}
