// Runs every family's checks on every code path; for machines without Python, such as emulated ones.

#include <map>

#include "check.h"

extern "C" {
const char* oarlock_path_name(std::int32_t);
const char* oarlock_build();
const char* oarlock_last_error();
std::int32_t oarlock_path_state(std::int32_t);
std::int32_t oarlock_force_path(std::int32_t);
std::int32_t oarlock_parallel_for(std::int64_t, std::int32_t, void (*)(std::int64_t));
}

namespace selfcheck {
namespace {

struct Named {
  const char* name;
  Check check;
};

std::vector<Named>& checks() {
  static std::vector<Named> all;
  return all;
}

int failures = 0;
std::string path_name;
std::map<std::string, std::uint64_t> hashes;

void inner(std::int64_t) {}
void outer(std::int64_t) { oarlock_parallel_for(4, 3, inner); }

}  // namespace

Register::Register(const char* name, Check check) { checks().push_back({name, check}); }

const std::string& path() { return path_name; }

void fail(const std::string& what) {
  ++failures;
  if (failures <= 20) std::printf("FAILED: %s\n", what.c_str());
}

void same_bits(const std::string& name, std::uint64_t hash) {
  const auto [first, is_new] = hashes.emplace(name, hash);
  if (!is_new && first->second != hash) fail(name + ": other bits than before");
}

int run() {
  std::printf("%s\n", oarlock_build());
  require(oarlock_parallel_for(100, 3, outer) == OARLOCK_OK, "nested regions");
  for (std::int32_t path = 0; oarlock_path_name(path) != nullptr; ++path) {
    if (oarlock_path_state(path) != 2) continue;
    require(oarlock_force_path(path) == OARLOCK_OK, "force_path");
    path_name = oarlock_path_name(path);
    for (const Named& one : checks()) {
      const int before = failures;
      one.check();
      std::printf("%-9s %-24s %s\n", oarlock_path_name(path), one.name,
                  failures == before ? "ok" : "FAILED");
    }
  }
  std::uint64_t all = 0;
  for (const auto& [name, hash] : hashes) all = all * 31 + hash;
  std::printf("%zu results compared between paths; hash of all %016llx\n", hashes.size(),
              static_cast<unsigned long long>(all));
  std::printf("%d failures\n", failures);
  return failures == 0 ? 0 : 1;
}

}  // namespace selfcheck

int main() { return selfcheck::run(); }
