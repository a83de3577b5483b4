#include "quant/pack.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>
#include <string>

#include "core/error.h"
#include "core/parallel.h"
#include "quant/half.h"

namespace oarlock::quant {
namespace {

enum Fault : int { kNone, kNotFinite, kScaleTooLarge, kCodeOutOfRange, kScaleNotHalf };

struct Group {
  int codes[kGroup];
  float scale;
};

float widened(std::uint16_t bits) {
  const std::uint32_t wide = static_cast<std::uint32_t>(bits) << 16;
  float x;
  std::memcpy(&x, &wide, sizeof x);
  return x;
}

float weight(const Source& source, std::int64_t input, std::int64_t output) {
  const std::int64_t at = input * source.input_stride + output * source.output_stride;
  return source.halves ? widened(static_cast<const std::uint16_t*>(source.data)[at])
                       : static_cast<const float*>(source.data)[at];
}

// The weight with the largest magnitude, with its sign.
float largest_of(const float* values) {
  float most = 0;
  for (int i = 0; i < kGroup; ++i)
    if (std::fabs(values[i]) > std::fabs(most)) most = values[i];
  return most;
}

Fault round_group(const float* values, Format format, Group& group) {
  for (int i = 0; i < kGroup; ++i)
    if (!std::isfinite(values[i])) return kNotFinite;
  const float most = largest_of(values);
  const bool bytes = format == Format::int8;
  const int least_code = bytes ? -127 : -8, most_code = bytes ? 127 : 7;
  const std::uint16_t half = to_half(bytes ? std::fabs(most) / 127.0f : most / -8.0f);
  if ((half & 0x7fff) == 0x7c00) return kScaleTooLarge;
  group.scale = from_half(half);
  const float inverse = group.scale != 0.0f ? 1.0f / group.scale : 0.0f;
  for (int i = 0; i < kGroup; ++i) {
    const float code = std::nearbyint(values[i] * inverse);
    group.codes[i] = static_cast<int>(
        std::clamp(code, static_cast<float>(least_code), static_cast<float>(most_code)));
  }
  return kNone;
}

void put(const Group& group, Format format, int lane, int number, std::uint8_t* block) {
  const std::uint16_t half = to_half(group.scale);
  std::memcpy(block + (number * kWidth + lane) * 2, &half, sizeof half);
  std::uint8_t* codes = block + kScaleBytes;
  if (format == Format::int8) {
    codes += number * kGroup * kWidth;
    for (int i = 0; i < kGroup; ++i)
      codes[(i / 4 * kWidth + lane) * 4 + i % 4] =
          static_cast<std::uint8_t>(group.codes[i] + 128);
    return;
  }
  codes += number * kGroup * kWidth / 2;
  for (int i = 0; i < kGroup; ++i) {
    std::uint8_t& both = codes[(i / 8 * kWidth + lane) * 4 + i % 4];
    const auto code = static_cast<std::uint8_t>(group.codes[i] + 8);
    both = i % 8 < 4 ? code : static_cast<std::uint8_t>(both | code << 4);
  }
}

void report(int fault) {
  switch (fault) {
    case kNone: return;
    case kNotFinite:
      throw BadArgument("weight has NaN or infinite numbers, which no integers stand for");
    case kScaleTooLarge:
      throw BadArgument("weight has numbers too large for float16 scales; use format \"fp32\" or "
                        "\"bf16\"");
    case kCodeOutOfRange:
      throw BadArgument("codes are out of the format's range: -128 to 127 for int8, -8 to 7 for "
                        "int4");
    case kScaleNotHalf:
      throw BadArgument("scales must be finite numbers of float16, each exactly; round them first");
  }
}

// Calls group(output, number, values) for every group of a panel and lane; it fills a Group.
template <typename Fill>
void pack_integers(std::int64_t inputs, std::int64_t outputs, Format format, std::uint8_t* out,
                   std::int32_t threads, const Fill& fill) {
  const std::int64_t blocks = blocks_of(inputs), size = panel_bytes(format, inputs);
  std::atomic<int> fault{kNone};
  parallel_for(panels_of(outputs), threads, [&](std::int64_t panel) {
    std::uint8_t* const begin = out + panel * size;
    std::memset(begin, 0, size);
    for (int lane = 0; lane < kWidth; ++lane)
      for (std::int64_t g = 0; g < 2 * blocks; ++g) {
        Group group{};
        const std::int64_t output = panel * kWidth + lane;
        if (output < outputs && g * kGroup < inputs)
          if (const Fault found = fill(output, g, group)) {
            fault = found;
            return;
          }
        put(group, format, lane, static_cast<int>(g % 2), begin + g / 2 * block_bytes(format));
      }
  });
  report(fault);
}

template <typename T, typename Convert>
void pack_floats(const Source& source, std::int64_t inputs, std::int64_t outputs,
                 std::uint8_t* out, std::int32_t threads, const Convert& convert) {
  const std::int64_t size = blocks_of(inputs) * kBlock * kWidth;
  parallel_for(panels_of(outputs), threads, [&](std::int64_t panel) {
    T* const begin = reinterpret_cast<T*>(out) + panel * size;
    std::memset(begin, 0, size * sizeof(T));
    const std::int64_t lanes = std::min(kWidth, outputs - panel * kWidth);
    for (std::int64_t i = 0; i < inputs; ++i)
      for (std::int64_t lane = 0; lane < lanes; ++lane)
        begin[i * kWidth + lane] = convert(weight(source, i, panel * kWidth + lane));
  });
}

std::uint16_t narrowed(float x) {
  std::uint32_t bits;
  std::memcpy(&bits, &x, sizeof bits);
  if (std::isnan(x)) return static_cast<std::uint16_t>(bits >> 16 | 0x40);
  return static_cast<std::uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

}  // namespace

void pack(const Source& source, std::int64_t inputs, std::int64_t outputs, Format format,
          std::uint8_t* out, std::int32_t threads) {
  if (format == Format::fp32)
    return pack_floats<float>(source, inputs, outputs, out, threads, [](float x) { return x; });
  if (format == Format::bf16)
    return pack_floats<std::uint16_t>(source, inputs, outputs, out, threads, narrowed);
  pack_integers(inputs, outputs, format, out, threads,
                [&](std::int64_t output, std::int64_t g, Group& group) {
                  float values[kGroup] = {};
                  const std::int64_t end = std::min(kGroup, inputs - g * kGroup);
                  for (std::int64_t i = 0; i < end; ++i)
                    values[i] = weight(source, g * kGroup + i, output);
                  return round_group(values, format, group);
                });
}

void pack_codes(const Codes& given, std::int64_t inputs, std::int64_t outputs, Format format,
                std::uint8_t* out, std::int32_t threads) {
  // Rounding gives no -128, files of others do.
  const int least = format == Format::int8 ? -128 : -8, most = format == Format::int8 ? 127 : 7;
  pack_integers(inputs, outputs, format, out, threads,
                [&](std::int64_t output, std::int64_t g, Group& group) {
                  group.scale = given.scales[output * (inputs / kGroup) + g];
                  if (!std::isfinite(group.scale) || from_half(to_half(group.scale)) != group.scale)
                    return kScaleNotHalf;
                  for (int i = 0; i < kGroup; ++i) {
                    group.codes[i] = given.codes[output * inputs + g * kGroup + i];
                    if (group.codes[i] < least || group.codes[i] > most) return kCodeOutOfRange;
                  }
                  return kNone;
                });
}

void unpack_output(const std::uint8_t* packed, std::int64_t inputs, std::int64_t output,
                   Format format, float* out) {
  const std::uint8_t* panel = packed + output / kWidth * panel_bytes(format, inputs);
  const std::int64_t lane = output % kWidth;
  for (std::int64_t i = 0; i < inputs; ++i) {
    if (format == Format::fp32) {
      std::memcpy(out + i, panel + (i * kWidth + lane) * 4, 4);
      continue;
    }
    if (format == Format::bf16) {
      std::uint16_t half;
      std::memcpy(&half, panel + (i * kWidth + lane) * 2, 2);
      out[i] = widened(half);
      continue;
    }
    const std::uint8_t* block = panel + i / kBlock * block_bytes(format);
    const std::int64_t number = i % kBlock / kGroup, in_group = i % kGroup;
    std::uint16_t half;
    std::memcpy(&half, block + (number * kWidth + lane) * 2, 2);
    const float scale = from_half(half);
    if (format == Format::int8) {
      const std::int64_t at = (in_group / 4 * kWidth + lane) * 4 + in_group % 4;
      const std::uint8_t* codes = block + kScaleBytes + number * kGroup * kWidth;
      out[i] = static_cast<float>(static_cast<int>(codes[at]) - 128) * scale;
    } else {
      const std::int64_t at = (in_group / 8 * kWidth + lane) * 4 + in_group % 4;
      const std::uint8_t* codes = block + kScaleBytes + number * kGroup * kWidth / 2;
      const int code = in_group % 8 < 4 ? codes[at] & 15 : codes[at] >> 4;
      out[i] = static_cast<float>(code - 8) * scale;
    }
  }
}

}  // namespace oarlock::quant
