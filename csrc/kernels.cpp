// The kernels of one instruction set. Compiled once for each, with PNN_TABLE naming the function that returns them.
#include "kernels.h"

#include "simd.h"

namespace {

using pnn::Block;
using pnn::GridBins;
using pnn::GridBlock;
using pnn::kBinCells;
using pnn::kTile;

constexpr int64_t kSources = 64;        // sources per tile: a tile of weights stays in the first-level cache
constexpr int64_t kSourceBlock = 512;   // sources whose gradients are summed locally
constexpr int64_t kPartial = 8192;      // sources per partial sum: bounds the rounding error of long sums
constexpr int64_t kMaxDim = 64;

// Expanding |a - b|^2 = |a|^2 + |b|^2 - 2ab costs half the operations of subtracting first and loses at most
// eps * (|a|^2 + |b|^2) of the exponent. Tiles farther out than this from the first target are subtracted.
template <class T>
constexpr T kExpand = T(sizeof(T) == 4 ? 24 : 64);

template <class T>
PNN_INLINE int64_t padded(int64_t n) {
  return (n + Simd<T>::kLanes - 1) / Simd<T>::kLanes * Simd<T>::kLanes;
}

template <class T>
struct Arena {
  T* next;
  T* take(int64_t n) {
    T* p = next;
    next += (n + 15) / 16 * 16;
    return p;
  }
};

template <class T>
int64_t scratch_elements(const PnnSetConv& p) {
  const int64_t c = padded<T>(p.channels), d = padded<T>(p.dim);
  const int64_t forward = p.dim * kTile + 4 * kTile + kSources * (p.dim + 1) + kSources * kTile + kSources * c +
                          2 * most(p.channels * kTile, kTile * c);
  const int64_t backward = p.dim * kTile + kTile * d + p.channels * kTile + kTile * c + 4 * kTile + p.dim * kTile +
                           kSources * (p.dim + 2) + 3 * kSources * kTile + kSources * d +
                           kSourceBlock * (c + p.dim);
  return most(forward, backward) + 64 * 16;
}

int64_t scratch_bytes(const PnnSetConv& p) {
  return p.is_double ? 8 * scratch_elements<double>(p) : 4 * scratch_elements<float>(p);
}

// A tile of targets, scaled relative to its first one: near points keep all their digits whatever the offset of the
// data. Coordinates lie along the lanes: z[d][j].
template <class T>
struct Targets {
  T *z, *norm;
  T centre[kMaxDim], scale[kMaxDim];
  T largest;
  int64_t count, vectors, dim;

  void pack(const PnnSetConv& p, const Block& b, int64_t j0) {
    const T* x = static_cast<const T*>(p.x_dst) + j0 * p.x_dst_row + b.head * p.x_dst_head;
    for (int64_t d = 0; d < dim; ++d) centre[d] = x[d];
    for (int64_t j = 0; j < kTile; ++j) {
      // Lanes beyond the last target repeat the first: finite, and never read back.
      const T* row = x + (j < count ? j : 0) * p.x_dst_row;
      T square = 0;
      for (int64_t d = 0; d < dim; ++d) {
        const T value = (row[d] - centre[d]) * scale[d];
        z[d * kTile + j] = value;
        square += value * value;
      }
      norm[j] = square;
    }
    largest = 0;
    for (int64_t j = 0; j < kTile; ++j) largest = most(largest, norm[j]);
  }
};

// A tile of sources in the same coordinates, row by row: z[i][d].
template <class T>
struct Sources {
  T *z, *norm;
  T largest;

  void pack(const PnnSetConv& p, const Block& b, const Targets<T>& targets, int64_t i0, int64_t count) {
    const T* x = static_cast<const T*>(p.x_src) + i0 * p.x_src_row + b.head * p.x_src_head;
    const int64_t dim = targets.dim;
    largest = 0;
    for (int64_t i = 0; i < count; ++i, x += p.x_src_row) {
      T square = 0;
      for (int64_t d = 0; d < dim; ++d) {
        const T value = (x[d] - targets.centre[d]) * targets.scale[d];
        z[i * dim + d] = value;
        square += value * value;
      }
      norm[i] = square;
      largest = most(largest, square);
    }
  }
};

// Writes the squared distances of a tile, or minus twice the inner products if those suffice; tells which.
template <class T>
PNN_INLINE bool distances(const Targets<T>& targets, const Sources<T>& sources, int64_t count, T* tile) {
  const bool expand = targets.largest + sources.largest <= kExpand<T>;  // false for NaN
  if (expand)
    product<Dot, false>(sources.z, targets.dim, 1, targets.z, kTile, tile, kTile, count, targets.vectors, targets.dim);
  else
    product<Square, false>(sources.z, targets.dim, 1, targets.z, kTile, tile, kTile, count, targets.vectors,
                           targets.dim);
  return expand;
}

template <class T>
void transpose(const T* in, int64_t in_row, T* out, int64_t out_row, int64_t rows, int64_t columns) {
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t c = 0; c < columns; ++c) out[c * out_row + r] = in[r * in_row + c];
}

template <class T, int kKernel, bool kExpanded>
PNN_INLINE void weigh(const Targets<T>& targets, const Sources<T>& sources, int64_t count, T* tile, T* density) {
  using V = typename Simd<T>::V;
  constexpr int L = Simd<T>::kLanes;
  for (int64_t v = 0; v < targets.vectors; ++v) {
    const V norm = load(targets.norm + v * L);
    V sum = V{};
    T* p = tile + v * L;
#pragma GCC unroll 4
    for (int64_t i = 0; i < count; ++i, p += kTile) {
      V square = load(p);
      if constexpr (kExpanded) square = (norm + sources.norm[i]) - (square + square);
      V weight, factor;
      radial<kKernel, T>(square, weight, factor);
      sum += weight;
      store(p, weight);
    }
    store(density + v * L, load(density + v * L) + sum);
  }
}

template <class T, int kKernel>
void forward(const PnnSetConv& p, const Block& b, void* scratch) {
  constexpr int L = Simd<T>::kLanes;
  const int64_t channels = p.channels, columns = padded<T>(channels);
  // Lanes along the channels write rows as they are wanted; lanes along the targets waste none when channels are few.
  const bool along_channels = channels > 0 && 4 * columns <= 5 * channels;
  const bool copy_values = along_channels && columns != channels;
  const int64_t signal_size = along_channels ? kTile * columns : channels * kTile;

  Arena<T> arena{static_cast<T*>(scratch)};
  Targets<T> targets;
  targets.dim = p.dim;
  targets.z = arena.take(p.dim * kTile);
  targets.norm = arena.take(kTile);
  Sources<T> sources;
  sources.z = arena.take(kSources * p.dim);
  sources.norm = arena.take(kSources);
  T* tile = arena.take(kSources * kTile);
  T* density = arena.take(kTile);
  T* signal = arena.take(signal_size);
  T* total_density = arena.take(kTile);
  T* total_signal = arena.take(signal_size);
  T* packed = arena.take(kSources * columns);
  for (int64_t d = 0; d < p.dim; ++d) targets.scale[d] = T(p.scale[b.head * p.dim + d]);

  const T* values = static_cast<const T*>(p.y_src) + b.head * p.y_src_head;
  if (copy_values) clear(packed, kSources * columns);
  for (int64_t j0 = b.j0; j0 < b.j1; j0 += kTile) {
    targets.count = least(kTile, b.j1 - j0);
    targets.vectors = (targets.count + L - 1) / L;
    targets.pack(p, b, j0);
    clear(total_density, kTile);
    clear(total_signal, signal_size);
    for (int64_t part = b.i0; part < b.i1; part += kPartial) {
      const int64_t end = least(part + kPartial, b.i1);
      clear(density, kTile);
      clear(signal, signal_size);
      for (int64_t i0 = part; i0 < end; i0 += kSources) {
        const int64_t count = least(kSources, end - i0);
        sources.pack(p, b, targets, i0, count);
        if (distances(targets, sources, count, tile))
          weigh<T, kKernel, true>(targets, sources, count, tile, density);
        else
          weigh<T, kKernel, false>(targets, sources, count, tile, density);
        const T* y = values + i0 * p.y_src_row;
        if (along_channels) {
          int64_t y_row = p.y_src_row;
          if (copy_values) {
            for (int64_t i = 0; i < count; ++i) copy(y + i * y_row, channels, packed + i * columns);
            y = packed;
            y_row = columns;
          }
          product<Dot, true>(tile, 1, kTile, y, y_row, signal, columns, targets.count, columns / L, count);
        } else {
          product<Dot, true>(y, 1, p.y_src_row, tile, kTile, signal, kTile, channels, targets.vectors, count);
        }
      }
      for (int64_t j = 0; j < kTile; j += L) store(total_density + j, load(total_density + j) + load(density + j));
      for (int64_t s = 0; s < signal_size; s += L) store(total_signal + s, load(total_signal + s) + load(signal + s));
    }

    const int64_t row = (j0 - b.dst_row0) * b.dst_heads + (b.dst_heads > 1 ? b.head : 0);
    T* out_density = static_cast<T*>(b.density) + row;
    T* out_signal = static_cast<T*>(b.signal) + row * channels;
    for (int64_t j = 0; j < targets.count; ++j, out_density += b.dst_heads, out_signal += b.dst_heads * channels) {
      *out_density = total_density[j];
      const T factor = b.finish && p.normalize ? T(1) / (total_density[j] + T(p.eps)) : T(1);
      if (along_channels)
        for (int64_t c = 0; c < channels; ++c) out_signal[c] = total_signal[j * columns + c] * factor;
      else
        for (int64_t c = 0; c < channels; ++c) out_signal[c] = total_signal[c * kTile + j] * factor;
    }
  }
}

// Weights and forces of a tile. On entry `tile` holds distances and `force` the inner products of the values with the
// incoming gradients; on return the weights (if wanted) and the forces, with their sums over targets and sources.
template <class T, int kKernel, bool kExpanded, bool kWeights>
PNN_INLINE void push(const Targets<T>& targets, const Sources<T>& sources, int64_t count, const T* grad_density,
                     T* tile, T* force, T* by_source, T* by_target) {
  using V = typename Simd<T>::V;
  constexpr int L = Simd<T>::kLanes;
  const int64_t vectors = targets.vectors;
  V columns[kTile / L];
  for (int64_t v = 0; v < vectors; ++v) columns[v] = V{};
  for (int64_t i = 0; i < count; ++i) {
    V row = V{};
    for (int64_t v = 0; v < vectors; ++v) {
      T* p = tile + i * kTile + v * L;
      T* f = force + i * kTile + v * L;
      V square = load(p);
      if constexpr (kExpanded) square = (load(targets.norm + v * L) + sources.norm[i]) - (square + square);
      V weight, factor;
      radial<kKernel, T>(square, weight, factor);
      const V pull = factor * (load(f) + load(grad_density + v * L));
      if constexpr (kWeights) store(p, weight);
      store(f, pull);
      row += pull;
      columns[v] += pull;
    }
    by_source[i] = sum_lanes<T>(row);
  }
  for (int64_t v = 0; v < vectors; ++v) store(by_target + v * L, load(by_target + v * L) + columns[v]);
}

template <class T, int kKernel>
PNN_INLINE void weights_only(const Targets<T>& targets, const Sources<T>& sources, int64_t count, bool expanded,
                             T* tile, T* unused) {
  if (expanded)
    weigh<T, kKernel, true>(targets, sources, count, tile, unused);
  else
    weigh<T, kKernel, false>(targets, sources, count, tile, unused);
}

template <class T, int kKernel>
void backward(const PnnSetConv& p, const Block& b, void* scratch) {
  constexpr int L = Simd<T>::kLanes;
  const int64_t channels = p.channels, columns = padded<T>(channels), dim = p.dim, width = padded<T>(dim);
  const bool need_y = p.grad_y_src != nullptr, need_x = p.grad_x_src != nullptr;

  Arena<T> arena{static_cast<T*>(scratch)};
  Targets<T> targets;
  targets.dim = dim;
  targets.z = arena.take(dim * kTile);
  targets.norm = arena.take(kTile);
  T* target_rows = arena.take(kTile * width);       // z[j][d], for the products with lanes along the dimensions
  T* grad_lanes = arena.take(channels * kTile);     // g[c][j]
  T* grad_rows = arena.take(kTile * columns);       // g[j][c]
  T* grad_density = arena.take(kTile);
  T* by_target = arena.take(kTile);
  T* dst = arena.take(dim * kTile);
  Sources<T> sources;
  sources.z = arena.take(kSources * dim);
  sources.norm = arena.take(kSources);
  T* by_source = arena.take(kSources);
  T* tile = arena.take(kSources * kTile);
  T* force = arena.take(kSources * kTile);
  T* src = arena.take(kSources * width);
  T* sum_y = arena.take(kSourceBlock * columns);
  T* sum_x = arena.take(kSourceBlock * dim);
  T unscale[kMaxDim];
  double squares[kMaxDim] = {};
  for (int64_t d = 0; d < dim; ++d) {
    targets.scale[d] = T(p.scale[b.head * dim + d]);
    unscale[d] = T(p.unscale[b.head * dim + d]);
  }
  clear(target_rows, kTile * width);
  clear(grad_rows, kTile * columns);

  const T* values = static_cast<const T*>(p.y_src) + b.head * p.y_src_head;
  for (int64_t block = b.i0; block < b.i1; block += kSourceBlock) {
    const int64_t block_end = least(block + kSourceBlock, b.i1);
    clear(sum_y, (block_end - block) * columns);
    clear(sum_x, (block_end - block) * dim);
    for (int64_t j0 = b.j0; j0 < b.j1; j0 += kTile) {
      targets.count = least(kTile, b.j1 - j0);
      targets.vectors = (targets.count + L - 1) / L;
      targets.pack(p, b, j0);
      for (int64_t j = 0; j < targets.count; ++j) {
        const int64_t row = (j0 + j) * p.heads + b.head;
        const T* g = static_cast<const T*>(p.grad_signal) + row * channels;
        T* to = grad_rows + j * columns;
        T g_density = static_cast<const T*>(p.grad_density)[row];
        if (p.normalize) {
          const T* s = static_cast<const T*>(p.signal) + row * channels;
          const T factor = T(1) / (static_cast<const T*>(p.density)[row] + T(p.eps));
          T dot = 0;
          for (int64_t c = 0; c < channels; ++c) {
            to[c] = g[c] * factor;
            dot += to[c] * s[c];
          }
          g_density -= dot;
        } else {
          copy(g, channels, to);
        }
        grad_density[j] = g_density;
      }
      if (need_x) {
        // Zero gradients silence the lanes beyond the last target.
        const int64_t lanes = targets.vectors * L;
        clear(grad_density + targets.count, lanes - targets.count);
        if (targets.count < lanes)
          for (int64_t c = 0; c < channels; ++c)
            clear(grad_lanes + c * kTile + targets.count, lanes - targets.count);
        transpose(grad_rows, columns, grad_lanes, kTile, targets.count, channels);
        transpose(targets.z, kTile, target_rows, width, dim, kTile);
        clear(by_target, kTile);
        clear(dst, dim * kTile);
      }
      for (int64_t i0 = block; i0 < block_end; i0 += kSources) {
        const int64_t count = least(kSources, block_end - i0);
        sources.pack(p, b, targets, i0, count);
        const bool expanded = distances(targets, sources, count, tile);
        if (need_x) {
          product<Dot, false>(values + i0 * p.y_src_row, p.y_src_row, 1, grad_lanes, kTile, force, kTile, count,
                              targets.vectors, channels);
          if (expanded && need_y)
            push<T, kKernel, true, true>(targets, sources, count, grad_density, tile, force, by_source, by_target);
          else if (expanded)
            push<T, kKernel, true, false>(targets, sources, count, grad_density, tile, force, by_source, by_target);
          else if (need_y)
            push<T, kKernel, false, true>(targets, sources, count, grad_density, tile, force, by_source, by_target);
          else
            push<T, kKernel, false, false>(targets, sources, count, grad_density, tile, force, by_source, by_target);
        } else {
          weights_only<T, kKernel>(targets, sources, count, expanded, tile, by_target);
        }
        if (need_y)
          product<Dot, true>(tile, kTile, 1, grad_rows, columns, sum_y + (i0 - block) * columns, columns, count,
                             columns / L, targets.count);
        if (need_x) {
          product<Dot, false>(force, kTile, 1, target_rows, width, src, width, count, width / L, targets.count);
          product<Dot, true>(sources.z, 1, dim, force, kTile, dst, kTile, dim, targets.vectors, count);
          T* to = sum_x + (i0 - block) * dim;
          for (int64_t d = 0; d < dim; ++d) {
            T square = 0;
            for (int64_t i = 0; i < count; ++i) {
              const T z = sources.z[i * dim + d];
              const T pull = src[i * width + d] - z * by_source[i];
              to[i * dim + d] += pull;
              square -= z * pull;
            }
            squares[d] += square;
          }
        }
      }
      if (need_x) {
        T* out = static_cast<T*>(p.grad_x_dst) + (j0 * p.heads + b.head) * dim;
        for (int64_t d = 0; d < dim; ++d) {
          T square = 0;
          for (int64_t j = 0; j < targets.count; ++j) {
            const T z = targets.z[d * kTile + j];
            const T pull = dst[d * kTile + j] - z * by_target[j];
            out[j * p.heads * dim + d] += pull * unscale[d];
            square -= z * pull;
          }
          squares[d] += square;
        }
      }
    }
    for (int64_t i = block; i < block_end; ++i) {
      const int64_t row = (i - b.src_row0) * b.src_heads + (b.src_heads > 1 ? b.head : 0);
      if (need_y) {
        T* out = static_cast<T*>(b.grad_y_src) + row * channels;
        for (int64_t c = 0; c < channels; ++c) out[c] += sum_y[(i - block) * columns + c];
      }
      if (need_x) {
        T* out = static_cast<T*>(b.grad_x_src) + row * dim;
        for (int64_t d = 0; d < dim; ++d) out[d] += sum_x[(i - block) * dim + d] * unscale[d];
      }
    }
  }
  if (need_x)
    for (int64_t d = 0; d < dim; ++d) b.grad_scale[d] += squares[d];
}

// Calls f<T, kernel>() for the type and kernel of a problem.
#define PNN_DISPATCH(is_double, kernel, f, ...)                                     \
  switch ((is_double ? 3 : 0) + kernel) {                                           \
    case 0: return f<float, 0>(__VA_ARGS__);                                        \
    case 1: return f<float, 1>(__VA_ARGS__);                                        \
    case 2: return f<float, 2>(__VA_ARGS__);                                        \
    case 3: return f<double, 0>(__VA_ARGS__);                                       \
    case 4: return f<double, 1>(__VA_ARGS__);                                       \
    case 5: return f<double, 2>(__VA_ARGS__);                                       \
  }

void any_forward(const PnnSetConv& p, const Block& b, void* s) { PNN_DISPATCH(p.is_double, p.kernel, forward, p, b, s) }
void any_backward(const PnnSetConv& p, const Block& b, void* s) {
  PNN_DISPATCH(p.is_double, p.kernel, backward, p, b, s)
}

#include "grid.inc"

void any_locate(const PnnGrid& p, const GridBins& bins, int64_t set, int64_t begin, int64_t end, int64_t* keys) {
  return p.is_double ? locate<double>(p, bins, set, begin, end, keys) : locate<float>(p, bins, set, begin, end, keys);
}
void any_scatter(const PnnGrid& p, const GridBlock& b, void* s) { PNN_DISPATCH(p.is_double, p.kernel, scatter, p, b, s) }
void any_gather(const PnnGrid& p, const GridBlock& b, void* s) { PNN_DISPATCH(p.is_double, p.kernel, gather, p, b, s) }
void any_gradient(const PnnGrid& p, const GridBlock& b, void* s) { PNN_DISPATCH(p.is_double, p.kernel, gradient, p, b, s) }

// Independent chains, enough to hide the latency of a multiply-add.
template <int kChains, class Step>
PNN_INLINE void chains(int64_t count, const Step& step) {
  using V = Simd<float>::V;
  V sum[kChains];
#pragma GCC unroll 16
  for (int c = 0; c < kChains; ++c) sum[c] = splat(-1.f - 0.001f * float(c));
  for (int64_t n = 0; n < count; n += kChains)
#pragma GCC unroll 16
    for (int c = 0; c < kChains; ++c) {
      sum[c] = step(sum[c]);
#ifdef PNN_X86
      asm volatile("" : "+v"(sum[c]));  // keeps the compiler from shortening the chain
#endif
    }
  V total = V{};
#pragma GCC unroll 16
  for (int c = 0; c < kChains; ++c) total += sum[c];
  volatile float sink = sum_lanes<float>(total);
  (void)sink;
}

void measure(int32_t what, int64_t count, int32_t* lanes) {
  using V = Simd<float>::V;
  *lanes = Simd<float>::kLanes;
  const V scale = splat(0.9999999f), shift = splat(-1e-7f);
  if (what == 0)
    chains<12>(count, [&](V v) { return v * scale + shift; });
  else
    chains<8>(count, [&](V v) { return exp2_(v) - scale; });
}

}  // namespace

namespace pnn {

const Kernels* PNN_TABLE() {
  static const Kernels table = {PNN_NAME,    scratch_bytes, grid_scratch_bytes, any_forward, any_backward,
                                any_locate,  any_scatter,   any_gather,         any_gradient, measure};
  return &table;
}

}  // namespace pnn
