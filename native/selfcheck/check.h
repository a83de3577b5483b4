// A small framework: families register checks, main runs them on every code path.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <initializer_list>
#include <string>
#include <vector>

#include "core/abi.h"

namespace selfcheck {

using Check = void (*)();

struct Register {
  Register(const char* name, Check check);
};

// Counts a failure and prints it.
void fail(const std::string& what);

inline void require(bool good, const std::string& what) {
  if (!good) fail(what);
}

inline void close(double found, double wanted, double tolerance, const std::string& what) {
  if (std::abs(found - wanted) <= tolerance * (1 + std::abs(wanted))) return;
  fail(what + ": " + std::to_string(found) + ", not " + std::to_string(wanted));
}

// The code path that is being checked, and whether it fuses multiplications and additions.
const std::string& path();
inline bool fuses() { return path() != "portable"; }

// Results under this name must have the same bits on every code path.
void same_bits(const std::string& name, std::uint64_t hash);

constexpr std::uint64_t kNoBytes = 0xcbf29ce484222325u;

// FNV-1a, going on from `hash`.
template <typename T>
std::uint64_t hash_of(const std::vector<T>& vector, std::uint64_t hash = kNoBytes) {
  const auto* const bytes = reinterpret_cast<const unsigned char*>(vector.data());
  for (std::size_t i = 0; i < sizeof(T) * vector.size(); ++i)
    hash = (hash ^ bytes[i]) * 0x100000001b3u;
  return hash;
}

template <typename T>
void same_bits(const std::string& name, const std::vector<std::vector<T>>& vectors) {
  std::uint64_t hash = kNoBytes;
  for (const std::vector<T>& vector : vectors) hash = hash_of(vector, hash);
  same_bits(name, hash);
}

// Results must have the bits that were recorded, on this processor or another.
inline void recorded(const std::string& name, std::uint64_t hash, std::uint64_t wanted) {
  char text[64];
  std::snprintf(text, sizeof text, ": hash %016llx, not %016llx",
                static_cast<unsigned long long>(hash), static_cast<unsigned long long>(wanted));
  require(hash == wanted, name + text);
}

// Reproducible numbers in [-1, 1).
inline std::vector<float> numbers(std::int64_t count, std::uint32_t seed) {
  std::vector<float> out(count);
  for (float& x : out) {
    seed = seed * 1664525u + 1013904223u;
    x = static_cast<float>(static_cast<std::int32_t>(seed)) / 2147483648.0f;
  }
  return out;
}

// Tensors over vectors, as a list argument. T is float, or uint16_t for bfloat16.
template <typename T>
class List {
 public:
  List(const char* name, std::vector<std::vector<T>>& vectors) : name_(name) {
    for (std::vector<T>& vector : vectors) {
      oarlock_tensor item{};
      item.data = vector.data();
      item.count = static_cast<std::int64_t>(vector.size());
      item.dtype = sizeof(T) == 4 ? oarlock::kFloat32 : oarlock::kBfloat16;
      item.device = OARLOCK_CPU;
      item.ndim = 1;
      item.flags = OARLOCK_CONTIGUOUS;
      item.shape[0] = item.count;
      items_.push_back(item);
    }
    list_ = {name_, items_.data(), static_cast<std::int64_t>(items_.size())};
  }
  operator const oarlock_tensors*() const { return &list_; }
  std::vector<oarlock_tensor>& items() { return items_; }

 private:
  const char* name_;
  std::vector<oarlock_tensor> items_;
  oarlock_tensors list_;
};

constexpr std::int32_t kInt8 = 8, kInt32 = 32, kInt64 = 64, kUint8 = 1 << 8 | 8;

// One tensor of any type and shape, as a list argument.
class One {
 public:
  One(const char* name, void* data, std::int32_t dtype, std::initializer_list<std::int64_t> shape) {
    item_.data = data;
    item_.dtype = dtype;
    item_.device = OARLOCK_CPU;
    item_.ndim = static_cast<std::int16_t>(shape.size());
    item_.flags = OARLOCK_CONTIGUOUS;
    item_.count = 1;
    std::copy(shape.begin(), shape.end(), item_.shape);
    for (std::int64_t length : shape) item_.count *= length;
    list_ = {name, &item_, 1};
  }
  One(const One&) = delete;
  operator const oarlock_tensors*() const { return &list_; }

 private:
  oarlock_tensor item_{};
  oarlock_tensors list_;
};

}  // namespace selfcheck
