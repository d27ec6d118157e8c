// Schedule of the kernels over sets and threads. Every result is independent of the number of threads: blocks are cut
// from the problem alone, and no two blocks that run at the same time write to the same row.
#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <memory>
#include <new>
#include <thread>
#include <vector>

#include "kernels.h"
#ifdef PNN_X86
#include <xmmintrin.h>
#endif

namespace pnn {
namespace {

bool supported(const char* name) {
#ifdef PNN_X86
  if (std::strcmp(name, "avx512") == 0)
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
           __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl");
  if (std::strcmp(name, "avx2") == 0) return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
#endif
  return std::strcmp(name, "baseline") == 0;
}

const Kernels* find(const char* name) {
  if (!supported(name)) return nullptr;
#ifdef PNN_X86
  if (std::strcmp(name, "avx512") == 0) return avx512_kernels();
  if (std::strcmp(name, "avx2") == 0) return avx2_kernels();
#endif
  return baseline_kernels();
}

const Kernels* best() {
  for (const char* name : {"avx512", "avx2"})
    if (const Kernels* found = find(name)) return found;
  return baseline_kernels();
}

std::atomic<const Kernels*> chosen{nullptr};

const Kernels& kernels() {
  const Kernels* k = chosen.load(std::memory_order_acquire);
  if (k == nullptr) chosen.store(k = best(), std::memory_order_release);
  return *k;
}

// Denormal weights are far below the rounding error of any sum they enter, but each costs a microcode assist.
class FlushDenormals {
 public:
#ifdef PNN_X86
  FlushDenormals() : saved_(_mm_getcsr()) { _mm_setcsr(saved_ | 0x8040); }
  ~FlushDenormals() { _mm_setcsr(saved_); }

 private:
  unsigned saved_;
#endif
};

class Scratch {
 public:
  explicit Scratch(int64_t bytes) : data_(std::aligned_alloc(64, static_cast<size_t>((bytes + 127) / 64 * 64))) {
    if (data_ == nullptr) throw std::bad_alloc();
  }
  ~Scratch() { std::free(data_); }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  void* get() const { return data_; }

 private:
  void* data_;
};

// Runs task(index, scratch) for all indices. Threads live for one call: a pool would not survive fork(), on which the
// workers of data loaders rely, and starting a thread costs some ten microseconds.
template <class Task>
void parallel(int64_t count, int threads, int64_t scratch_bytes, const Task& task) {
  std::atomic<int64_t> next{0};
  std::atomic<bool> failed{false};
  const auto work = [&] {
    const FlushDenormals flush;
    try {
      const Scratch scratch(scratch_bytes);
      for (int64_t n; !failed.load(std::memory_order_relaxed) && (n = next.fetch_add(1)) < count;)
        task(n, scratch.get());
    } catch (const std::bad_alloc&) {
      failed = true;
    }
  };
  std::vector<std::thread> team;
  const int64_t helpers = std::min<int64_t>(threads, count) - 1;
  for (int64_t t = 0; t < helpers; ++t) {
    try {
      team.emplace_back(work);
    } catch (const std::exception&) {
      break;  // The machine has no thread to give: those that run do the work.
    }
  }
  work();
  for (auto& thread : team) thread.join();
  if (failed) throw std::bad_alloc();
}

template <class Body>
int32_t guarded(const Body& body) {
  try {
    body();
    return 0;
  } catch (const std::bad_alloc&) {
    return 1;
  }
}

// Below this many multiply-adds a second thread costs more than it saves.
constexpr double kSmall = 2e6;

int team_size(double work, int32_t threads) { return work < kSmall ? 1 : std::max(1, threads); }

int64_t tiles(int64_t n) { return (n + kTile - 1) / kTile; }

// Multiply-adds per pair, with the exponential counted as ten.
double pair_cost(const PnnSetConv& p) { return double(p.dim + p.channels + 10); }

size_t element_size(const PnnSetConv& p) { return p.is_double ? 8 : 4; }

template <class T>
void add(const void* from, void* to, int64_t n) {
  const T* a = static_cast<const T*>(from);
  T* b = static_cast<T*>(to);
  for (int64_t k = 0; k < n; ++k) b[k] += a[k];
}

void* at(void* base, int64_t elements, size_t size) {
  return base == nullptr ? nullptr : static_cast<char*>(base) + elements * static_cast<int64_t>(size);
}

// ---------------------------------------------------------------------------------------------------------------------
// Forward: blocks of targets are independent. Only a few targets against very many sources are also cut by sources,
// into a number of parts that follows from the problem, and summed in order.
// ---------------------------------------------------------------------------------------------------------------------

constexpr int64_t kBlockPairs = 1 << 20;    // pairs per block: enough to outweigh its start
constexpr int64_t kManySources = 1 << 15;   // sources worth cutting into parts
constexpr int64_t kParts = 16;

template <class T>
void normalize(const PnnSetConv& p, int64_t row) {
  const T factor = T(1) / (static_cast<const T*>(p.density)[row] + T(p.eps));
  T* signal = static_cast<T*>(p.signal) + row * p.channels;
  for (int64_t c = 0; c < p.channels; ++c) signal[c] *= factor;
}

void forward(const PnnSetConv& p) {
  const Kernels& k = kernels();
  const size_t size = element_size(p);
  std::vector<Block> blocks;
  double pairs = 0;
  struct Split {
    int64_t j0, j1, head;
  };
  std::vector<Split> splits;
  int64_t split_rows = 0;
  for (int64_t s = 0; s < p.num_sets; ++s) {
    const int64_t i0 = p.ptr_src[s], i1 = p.ptr_src[s + 1], j0 = p.ptr_dst[s], j1 = p.ptr_dst[s + 1];
    if (j0 == j1) continue;
    pairs += double(i1 - i0) * double(j1 - j0);
    const bool split = i1 - i0 >= kManySources && tiles(j1 - j0) < kParts;
    const int64_t step = split ? j1 - j0 : std::max<int64_t>(1, kBlockPairs / std::max<int64_t>(1, (i1 - i0) * kTile)) * kTile;
    for (int64_t h = 0; h < p.heads; ++h) {
      if (split) {
        splits.push_back({j0, j1, h});
        split_rows += j1 - j0;
      }
      for (int64_t j = j0; j < j1; j += step)
        for (int64_t part = 0; part < (split ? kParts : 1); ++part) {
          Block b{};
          b.set = s;
          b.head = h;
          b.i0 = split ? i0 + (i1 - i0) * part / kParts : i0;
          b.i1 = split ? i0 + (i1 - i0) * (part + 1) / kParts : i1;
          b.j0 = j;
          b.j1 = std::min(j + step, j1);
          b.density = p.density;
          b.signal = p.signal;
          b.dst_heads = p.heads;
          b.finish = !split;
          blocks.push_back(b);
        }
    }
  }
  // Partial sums: parts 1.. of every split set get rows of their own, laid out like the outputs.
  std::vector<char> partial(static_cast<size_t>(split_rows * (kParts - 1) * (1 + p.channels)) * size);
  if (!splits.empty()) {
    char* next = partial.data();
    for (Block& b : blocks) {
      if (b.finish || b.i0 == p.ptr_src[b.set]) continue;
      const int64_t rows = b.j1 - b.j0;
      b.dst_row0 = b.j0;
      b.dst_heads = 1;
      b.density = next;
      b.signal = next + rows * static_cast<int64_t>(size);
      next += rows * (1 + p.channels) * static_cast<int64_t>(size);
    }
  }
  parallel(int64_t(blocks.size()), team_size(pairs * p.heads * pair_cost(p), p.threads), k.scratch_bytes(p),
           [&](int64_t n, void* scratch) { k.forward(p, blocks[size_t(n)], scratch); });
  const char* next = partial.data();
  for (const Split& s : splits) {
    const int64_t rows = s.j1 - s.j0;
    for (int64_t part = 1; part < kParts; ++part) {
      const char* density = next;
      const char* signal = next + rows * static_cast<int64_t>(size);
      next += rows * (1 + p.channels) * static_cast<int64_t>(size);
      for (int64_t j = 0; j < rows; ++j) {
        const int64_t row = (s.j0 + j) * p.heads + s.head;
        const auto sum = p.is_double ? add<double> : add<float>;
        sum(density + j * static_cast<int64_t>(size), at(p.density, row, size), 1);
        sum(signal + j * p.channels * static_cast<int64_t>(size), at(p.signal, row * p.channels, size), p.channels);
      }
    }
    if (p.normalize)
      for (int64_t j = s.j0; j < s.j1; ++j) (p.is_double ? normalize<double> : normalize<float>)(p, j * p.heads + s.head);
  }
}

// ---------------------------------------------------------------------------------------------------------------------
// Backward: one visit to a pair serves its target and its source, so that two blocks may run at the same time only if
// they share neither. A large set is cut into groups of targets and of sources; step s runs the blocks
// (g, (g + s) mod groups) of a Latin square. A set with few sources is cut into groups of targets with sums of their own
// for the sources, and a small set or one of many is a single block.
// ---------------------------------------------------------------------------------------------------------------------

constexpr int64_t kGroups = 16;
constexpr int64_t kFewSources = 1024;
constexpr double kSmallSet = 1 << 17;

void backward(const PnnSetConv& p) {
  const Kernels& k = kernels();
  const size_t size = element_size(p);
  const int64_t row_size = (p.grad_y_src ? p.channels : 0) + (p.grad_x_src ? p.dim : 0);
  double total = 0;
  for (int64_t s = 0; s < p.num_sets; ++s)
    total += double(p.ptr_src[s + 1] - p.ptr_src[s]) * double(p.ptr_dst[s + 1] - p.ptr_dst[s]);
  total *= double(p.heads);

  struct Private {
    int64_t i0, i1, head, groups, offset;  // offset: in elements
  };
  std::vector<Private> privates;
  std::vector<std::vector<Block>> steps(kGroups);
  int64_t private_size = 0;
  for (int64_t s = 0; s < p.num_sets; ++s) {
    const int64_t i0 = p.ptr_src[s], i1 = p.ptr_src[s + 1], j0 = p.ptr_dst[s], j1 = p.ptr_dst[s + 1];
    const int64_t n = i1 - i0, m = j1 - j0;
    if (n == 0 || m == 0) continue;
    const double pairs = double(n) * double(m);
    const bool whole = pairs <= kSmallSet || pairs * 64 <= total;
    const bool few = !whole && n < kFewSources;
    const int64_t groups = whole ? 1 : few ? std::min(kGroups, tiles(m)) : kGroups;
    const auto cut = [groups](int64_t from, int64_t to, int64_t g) {
      return std::min(to, from + (tiles(to - from) * g / groups) * kTile);
    };
    for (int64_t h = 0; h < p.heads; ++h) {
      if (few) {
        privates.push_back({i0, i1, h, groups, private_size});
        private_size += groups * n * row_size;
      }
      for (int64_t g = 0; g < groups; ++g)
        for (int64_t step = 0; step < (few ? 1 : groups); ++step) {
          Block b{};
          b.set = s;
          b.head = h;
          b.j0 = cut(j0, j1, g);
          b.j1 = cut(j0, j1, g + 1);
          b.i0 = few ? i0 : cut(i0, i1, (g + step) % groups);
          b.i1 = few ? i1 : cut(i0, i1, (g + step) % groups + 1);
          b.grad_x_src = p.grad_x_src;
          b.grad_y_src = p.grad_y_src;
          b.src_row0 = few ? i0 : 0;
          b.src_heads = few ? 1 : p.heads;
          if (few) b.set = -1 - (int64_t(privates.size()) - 1) * kGroups - g;  // resolved below
          if (b.i0 < b.i1 && b.j0 < b.j1) steps[size_t(step)].push_back(b);
        }
    }
  }
  std::unique_ptr<char[]> own(new char[static_cast<size_t>(private_size) * size]());
  int64_t count = 0;
  for (auto& step : steps)
    for (Block& b : step) {
      ++count;
      if (b.set >= 0) continue;
      const Private& mine = privates[size_t((-1 - b.set) / kGroups)];
      const int64_t n = mine.i1 - mine.i0, offset = mine.offset + (-1 - b.set) % kGroups * n * row_size;
      if (p.grad_x_src) b.grad_x_src = at(own.get(), offset, size);
      if (p.grad_y_src) b.grad_y_src = at(own.get(), offset + (p.grad_x_src ? n * p.dim : 0), size);
    }
  std::vector<double> scales(p.grad_x_src ? static_cast<size_t>(count * p.dim) : 0);
  int64_t slot = 0;
  for (auto& step : steps)
    for (Block& b : step) b.grad_scale = scales.empty() ? nullptr : scales.data() + p.dim * slot++;

  const int threads = team_size(2 * total * pair_cost(p), p.threads);
  for (auto& step : steps)
    parallel(int64_t(step.size()), threads, k.scratch_bytes(p),
             [&](int64_t n, void* scratch) { k.backward(p, step[size_t(n)], scratch); });

  for (const Private& mine : privates) {
    const int64_t n = mine.i1 - mine.i0;
    const auto sum = p.is_double ? add<double> : add<float>;
    for (int64_t g = 0; g < mine.groups; ++g) {
      const int64_t offset = mine.offset + g * n * row_size;
      for (int64_t i = 0; i < n; ++i) {
        const int64_t row = (mine.i0 + i) * p.heads + mine.head;
        if (p.grad_x_src) sum(at(own.get(), offset + i * p.dim, size), at(p.grad_x_src, row * p.dim, size), p.dim);
        if (p.grad_y_src)
          sum(at(own.get(), offset + (p.grad_x_src ? n * p.dim : 0) + i * p.channels, size),
              at(p.grad_y_src, row * p.channels, size), p.channels);
      }
    }
  }
  if (!scales.empty())
    for (auto& step : steps)
      for (Block& b : step)
        for (int64_t d = 0; d < p.dim; ++d) p.grad_scale[b.head * p.dim + d] += b.grad_scale[d];
}

// ---------------------------------------------------------------------------------------------------------------------
// Grids: a stable counting sort brings the points into the order of their cells, so that what a point touches is in the
// cache already. Slabs of the first axis are blocks; a scatter runs the even slabs before the odd ones, since a window
// reaches from its slab into the next.
// ---------------------------------------------------------------------------------------------------------------------

struct Sorted {
  std::vector<int64_t> order;
  std::vector<GridBlock> even, odd;
};

template <class T>
int64_t first_cell(const PnnGrid& p, const T* x, const double* origin, int64_t axis) {
  const double position = (double(x[axis]) - origin[axis]) / p.spacing[axis];
  const double start = position - 0.5 * double(p.window[axis]);
  // Also false for NaN.
  if (!(start > -1e15 && start < 1e15)) return -1;
  int64_t first = int64_t(start);
  first += start > double(first);  // ceil, without a call into the mathematical library
  if (first >= p.shape[axis] || first + p.window[axis] <= 0) return -1;
  return std::max<int64_t>(first, 0);
}

template <class T>
Sorted sort_points(const PnnGrid& p) {
  constexpr int64_t kCells = 8, kSlabs = 32;
  Sorted result;
  const int64_t axes = std::min<int64_t>(p.dim, 2);
  const int64_t most_bins = axes == 1 ? 16384 : 512;
  int64_t width[2] = {1, 1}, bins[2] = {1, 1};
  for (int64_t a = 0; a < axes; ++a) {
    width[a] = std::max(kCells, p.shape[a] / most_bins);
    bins[a] = std::max<int64_t>(1, (p.shape[a] + width[a] - 1) / width[a]);
  }
  // Slabs must be at least as long as a window for the two-phase scatter.
  int64_t slab = std::max((p.window[0] + width[0] - 1) / width[0], (bins[0] + kSlabs - 1) / kSlabs);
  if (p.num_sets >= 64) slab = bins[0];
  const int64_t per_set = bins[0] * bins[1], keys = p.num_sets * per_set;

  const int threads = p.num_points >= (1 << 16) ? std::max<int32_t>(1, std::min<int32_t>(p.threads, 16)) : 1;
  const T* x = static_cast<const T*>(p.x);
  std::vector<int64_t> key(static_cast<size_t>(p.num_points));
  std::vector<std::vector<int64_t>> counts(size_t(threads), std::vector<int64_t>(static_cast<size_t>(keys + 1)));
  const auto bound = [&](int64_t t) { return p.num_points * t / threads; };
  parallel(threads, threads, 64, [&](int64_t t, void*) {
    auto& mine = counts[size_t(t)];
    int64_t n = bound(t);
    int64_t set = std::upper_bound(p.ptr, p.ptr + p.num_sets + 1, n) - p.ptr - 1;
    for (; n < bound(t + 1); ++n) {
      while (n >= p.ptr[set + 1]) ++set;
      int64_t place = set;
      bool inside = true;
      for (int64_t a = 0; a < p.dim; ++a) {
        const int64_t cell = first_cell(p, x + n * p.dim, p.origin + set * p.dim, a);
        inside = inside && cell >= 0;
        if (a < axes) place = place * bins[a] + cell / width[a];
      }
      key[size_t(n)] = inside ? place : keys;
      ++mine[size_t(inside ? place : keys)];
    }
  });
  std::vector<int64_t> start(static_cast<size_t>(keys + 2));
  int64_t sum = 0;
  for (int64_t q = 0; q <= keys; ++q) {
    start[size_t(q)] = sum;
    for (auto& mine : counts) {
      const int64_t c = mine[size_t(q)];
      mine[size_t(q)] = sum;
      sum += c;
    }
  }
  result.order.resize(static_cast<size_t>(p.num_points));
  parallel(threads, threads, 64, [&](int64_t t, void*) {
    auto& mine = counts[size_t(t)];
    for (int64_t n = bound(t); n < bound(t + 1); ++n) result.order[size_t(mine[size_t(key[size_t(n)])]++)] = n;
  });
  for (int64_t s = 0; s < p.num_sets; ++s)
    for (int64_t b = 0, phase = 0; b < bins[0]; b += slab, phase ^= 1) {
      const int64_t from = start[size_t(s * per_set + b * bins[1])];
      const int64_t to = start[size_t(s * per_set + std::min(b + slab, bins[0]) * bins[1])];
      if (from < to) (phase ? result.odd : result.even).push_back({result.order.data() + from, to - from, s, nullptr});
    }
  return result;
}

Sorted sort_points(const PnnGrid& p) { return p.is_double ? sort_points<double>(p) : sort_points<float>(p); }

using GridKernel = void (*)(const PnnGrid&, const GridBlock&, void*);

void over_grid(const PnnGrid& p, GridKernel kernel, bool phases, bool scales) {
  if (p.num_points == 0 || p.num_sets == 0) return;
  for (int64_t d = 0; d < p.dim; ++d)
    if (p.shape[d] == 0) return;
  Sorted sorted = sort_points(p);
  if (!phases) {
    sorted.even.insert(sorted.even.end(), sorted.odd.begin(), sorted.odd.end());
    sorted.odd.clear();
  }
  std::vector<double> slots(scales ? sorted.even.size() * static_cast<size_t>(p.dim) : 0);
  for (size_t n = 0; scales && n < sorted.even.size(); ++n)
    sorted.even[n].grad_scale = slots.data() + n * static_cast<size_t>(p.dim);
  double cells = 1;
  for (int64_t d = 0; d < p.dim; ++d) cells *= double(p.window[d]);
  const int threads = team_size(double(p.num_points) * cells * double(p.channels + 10), p.threads);
  for (auto* blocks : {&sorted.even, &sorted.odd})
    parallel(int64_t(blocks->size()), threads, kernels().grid_scratch_bytes(p),
             [&](int64_t n, void* scratch) { kernel(p, (*blocks)[size_t(n)], scratch); });
  for (size_t n = 0; n < slots.size(); ++n) p.grad_scale[n % static_cast<size_t>(p.dim)] += slots[n];
}

}  // namespace
}  // namespace pnn

extern "C" {

int32_t pnn_set_conv_forward(const PnnSetConv* p) {
  return pnn::guarded([&] { pnn::forward(*p); });
}

int32_t pnn_set_conv_backward(const PnnSetConv* p) {
  return pnn::guarded([&] { pnn::backward(*p); });
}

int32_t pnn_grid_scatter(const PnnGrid* p) {
  return pnn::guarded([&] { pnn::over_grid(*p, pnn::kernels().scatter, true, false); });
}

int32_t pnn_grid_gather(const PnnGrid* p) {
  return pnn::guarded([&] { pnn::over_grid(*p, pnn::kernels().gather, false, false); });
}

int32_t pnn_grid_gradient(const PnnGrid* p) {
  return pnn::guarded([&] { pnn::over_grid(*p, pnn::kernels().gradient, false, true); });
}

int32_t pnn_abi_version(void) { return 1; }

const char* pnn_instruction_set(void) { return pnn::kernels().name; }

int32_t pnn_force_instruction_set(const char* name) {
  const pnn::Kernels* found = std::strcmp(name, "best") == 0 ? pnn::best() : pnn::find(name);
  if (found == nullptr) return 0;
  pnn::chosen.store(found);
  return 1;
}

double pnn_measure(int32_t what, int64_t count, int32_t* lanes) {
  const auto start = std::chrono::steady_clock::now();
  pnn::kernels().measure(what, count, lanes);
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}
}
