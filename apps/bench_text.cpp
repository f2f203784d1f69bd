// What `mete bench` feeds to a model when no text is given: plain English prose, some figures, a little code.
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <memory>

#include "apps/bench_rows.h"

namespace mete {

const char* const kBenchText =
    "The ferry to the island leaves at a quarter past seven, and by that time the harbour is already awake. "
    "Men in "
    "rubber boots hose down the quay, gulls quarrel over a crate of heads and tails, and the woman who sells "
    "coffee "
    "from the back of a van has a line of twelve people in front of her. She knows most of them by name. "
    "\"Two "
    "sugars, Mr. Aldous, and your change,\" she says, and before he has found his pocket she is asking the "
    "next one "
    "whether the baby sleeps through the night.\n\n"
    "On clear days you can see the lighthouse from here. It was built in 1874, after the Marguerite went "
    "down with "
    "forty-one passengers and a cargo of slate, and for ninety-eight years somebody lived in it. The last "
    "keeper, a "
    "quiet man with an interest in beetles, left a notebook in which every storm has a number and every "
    "number a "
    "sentence: \"No. 212. North-west, force nine; the lamp stood, the hens did not.\" The museum would like "
    "to have "
    "the notebook. His granddaughter would like to keep it.\n\n"
    "How much light does a lamp of that size give? The arithmetic is simple enough. A first-order lens "
    "gathers about "
    "60 percent of the flame's output and sends it out in a beam of some 5 degrees. If the flame gives 500 "
    "candela "
    "in every direction, the beam carries roughly 500 * 0.6 * 360 / 5 = 21,600 candela, and a dark-adapted "
    "eye can "
    "pick that out at twenty nautical miles. Fog changes everything: at a visibility of half a mile, the "
    "same beam "
    "is lost before it reaches the reef it was meant to mark.\n\n"
    "def visible(intensity, distance, clearness):\n"
    "    \"\"\"Illuminance at the eye, by Allard's law.\"\"\"\n"
    "    light = intensity / distance ** 2 * clearness ** distance\n"
    "    return light > 2e-7\n\n"
    "for miles in range(1, 25):\n"
    "    if not visible(21600, 1852 * miles, 0.99995):\n"
    "        print(f'lost beyond {miles - 1} miles')\n"
    "        break\n\n"
    "The crossing takes fifty minutes when the tide helps and a little over an hour when it does not. Nobody "
    "hurries. "
    "There is a cat on board that belongs to no one, a rack of leaflets about seals, and a bell that the "
    "children are "
    "allowed to ring once. Halfway over, the engine changes its tone, the deck tilts, and the water turns "
    "from grey "
    "to a green that painters never get right. \"They put too much blue in it,\" says the deckhand, who has "
    "seen it "
    "nine thousand times. \"It isn't the sky that does it. It's the sand.\"\n\n"
    "In the evening, when the wind drops, the return boat is nearly empty. A teacher marks exercise books, "
    "pressing "
    "hard enough to leave dents in the page below. Two engineers argue about whether the new cable should "
    "run north "
    "or south of the wreck; one of them draws on a napkin, the other eats the biscuit that came with it. The "
    "price "
    "of the northern route is 4.2 million, of the southern one 3.7, and neither of them includes the divers. "
    "They "
    "agree on nothing except that the committee will choose the wrong one. Behind them the lighthouse begins "
    "to turn, "
    "one flash every ten seconds, as it has done on every night but three.\n\n";

std::string file_hash(const std::string& path) {
  constexpr int64_t kPiece = int64_t{1} << 20, kWholeUpTo = int64_t{4} << 30;
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  struct stat info {};
  if (fd < 0 || ::fstat(fd, &info) != 0) {
    const int code = errno;
    if (fd >= 0) ::close(fd);
    throw run_failure("{}: {}", path, std::strerror(code));
  }
  const int64_t size = info.st_size, stride = size > kWholeUpTo ? 64 * kPiece : kPiece;
  std::vector<char> buffer(static_cast<size_t>(kPiece));
  std::unique_ptr<XXH3_state_t, decltype(&XXH3_freeState)> state{XXH3_createState(), &XXH3_freeState};
  XXH3_64bits_reset(state.get());
  for (int64_t at = 0; at < size; at += stride) {
    const ssize_t got = ::pread(fd, buffer.data(), buffer.size(), at);
    if (got <= 0) {
      ::close(fd);
      throw run_failure("{}: cannot be read at byte {}", path, at);
    }
    XXH3_64bits_update(state.get(), buffer.data(), static_cast<size_t>(got));
  }
  ::close(fd);
  return fmt::format("{}:{:016x}", stride == kPiece ? "xxh3" : "xxh3/64", XXH3_64bits_digest(state.get()));
}

}  // namespace mete
