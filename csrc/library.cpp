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
#ifdef __linux__
#include <sys/mman.h>
#endif
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

// New memory comes in pages of 4 kB, and to fault each in takes longer than to fill it: asks for large ones.
void ask_for_large_pages(void* data, int64_t bytes) {
#ifdef MADV_HUGEPAGE
  constexpr uintptr_t kLarge = uintptr_t{1} << 21;
  const uintptr_t from = (reinterpret_cast<uintptr_t>(data) + kLarge - 1) & ~(kLarge - 1);
  const uintptr_t to = (reinterpret_cast<uintptr_t>(data) + static_cast<uintptr_t>(bytes)) & ~(kLarge - 1);
  if (data != nullptr && from < to) madvise(reinterpret_cast<void*>(from), to - from, MADV_HUGEPAGE);
#else
  (void)data, (void)bytes;
#endif
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
// Grids: two stable counting sorts, by bins and inside each bin, bring the points into the order of their cells: what a
// point touches is in the cache already, and neighbours share most of it. Slabs of the first axis are blocks. A block of
// a scatter owns its cells and takes all points that reach them, so that every sum has one owner and one order.
// ---------------------------------------------------------------------------------------------------------------------

constexpr int64_t kSlabs = 32;

struct Sorted {
  std::vector<int64_t> order, start;  // start: of each bin in the order, then of the points outside, then the end
  GridBins bins;
  int64_t per_set = 1;
};

Sorted sort_points(const PnnGrid& p) {
  Sorted result;
  GridBins& bins = result.bins;
  bins.bits = p.dim == 1 ? 6 : p.dim == 2 ? 3 : 2;
  for (int64_t a = 0; a < p.dim; ++a)
    result.per_set *= bins.number[a] = (p.shape[a] + (int64_t{1} << bins.bits) - 1) >> bins.bits;
  const int64_t count = p.num_sets * result.per_set;
  bins.outside = count * kBinCells;

  const int threads = p.num_points >= (1 << 16) ? std::max<int32_t>(1, std::min<int32_t>(p.threads, 16)) : 1;
  std::vector<int64_t> keys(static_cast<size_t>(p.num_points));
  std::vector<std::vector<int64_t>> counts(size_t(threads), std::vector<int64_t>(static_cast<size_t>(count + 1)));
  const auto bound = [&](int64_t t) { return p.num_points * t / threads; };
  parallel(threads, threads, 64, [&](int64_t t, void*) {
    auto& mine = counts[size_t(t)];
    int64_t n = bound(t);
    for (int64_t s = std::upper_bound(p.ptr, p.ptr + p.num_sets + 1, n) - p.ptr - 1; n < bound(t + 1); ++s) {
      const int64_t end = std::min(p.ptr[s + 1], bound(t + 1));
      kernels().locate(p, bins, s, n, end, keys.data() + n);
      for (; n < end; ++n) ++mine[size_t(keys[size_t(n)] / kBinCells)];
    }
  });
  auto& start = result.start;
  start.resize(static_cast<size_t>(count + 2));
  int64_t sum = 0;
  for (int64_t q = 0; q <= count; ++q) {
    start[size_t(q)] = sum;
    for (auto& mine : counts) {
      const int64_t c = mine[size_t(q)];
      mine[size_t(q)] = sum;
      sum += c;
    }
  }
  start[size_t(count + 1)] = sum;
  // Until the second sort, a point's cell in its bin lies in the six bits above its number.
  constexpr int kShift = 57;
  constexpr int64_t kNumber = (int64_t{1} << kShift) - 1;
  auto& order = result.order;
  order.resize(static_cast<size_t>(p.num_points));
  parallel(threads, threads, 64, [&](int64_t t, void*) {
    auto& mine = counts[size_t(t)];
    for (int64_t n = bound(t); n < bound(t + 1); ++n) {
      const int64_t key = keys[size_t(n)];
      order[size_t(mine[size_t(key / kBinCells)]++)] = n | (key % kBinCells) << kShift;
    }
  });
  parallel(threads, threads, 64, [&](int64_t t, void*) {
    std::vector<int64_t> bin;
    for (int64_t q = count * t / threads; q < count * (t + 1) / threads; ++q) {
      int64_t* const from = order.data() + start[size_t(q)];
      const int64_t size = start[size_t(q + 1)] - start[size_t(q)];
      bin.assign(from, from + size);
      int32_t at[kBinCells + 1] = {};
      for (const int64_t point : bin) ++at[(point >> kShift) + 1];
      for (int64_t c = 1; c < kBinCells; ++c) at[c] += at[c - 1];
      for (const int64_t point : bin) from[at[point >> kShift]++] = point & kNumber;
    }
  });
  return result;
}

using GridKernel = void (*)(const PnnGrid&, const GridBlock&, void*);

// Slabs of bins along the first axis, with the points that start in them, and `before` cells further down.
std::vector<GridBlock> slabs(const PnnGrid& p, const Sorted& sorted, int64_t before) {
  std::vector<GridBlock> blocks;
  if (sorted.per_set == 0) return blocks;
  const GridBins& bins = sorted.bins;
  const int64_t length = bins.number[0], line = sorted.per_set / length;
  // Windows longer than a slab would make a scatter place the points in many blocks.
  int64_t step = std::max({int64_t{1}, before >> bins.bits, (length + kSlabs - 1) / kSlabs});
  if (p.num_sets >= 64) step = length;
  for (int64_t s = 0; s < p.num_sets; ++s)
    for (int64_t b = 0; b < length; b += step) {
      const int64_t end = std::min(b + step, length);
      const int64_t first = std::max<int64_t>(0, ((b << bins.bits) - before) >> bins.bits);
      GridBlock block{};
      block.set = s;
      block.low = b << bins.bits;
      block.high = std::min(end << bins.bits, p.shape[0]);
      block.order = sorted.order.data() + sorted.start[size_t(s * sorted.per_set + first * line)];
      block.count = sorted.order.data() + sorted.start[size_t(s * sorted.per_set + end * line)] - block.order;
      blocks.push_back(block);
    }
  return blocks;
}

void run(const PnnGrid& p, GridKernel kernel, const std::vector<GridBlock>& blocks) {
  double cells = 1;
  for (int64_t d = 0; d < p.dim; ++d) cells *= double(p.window[d]);
  const int threads = team_size(double(p.num_points) * cells * double(p.channels + 10), p.threads);
  parallel(int64_t(blocks.size()), threads, kernels().grid_scratch_bytes(p),
           [&](int64_t n, void* scratch) { kernel(p, blocks[size_t(n)], scratch); });
}

void scatter(const PnnGrid& p) {
  int64_t cells = p.num_sets;
  for (int64_t d = 0; d < p.dim; ++d) cells *= p.shape[d];
  if (cells == 0) return;
  const int64_t size = p.is_double ? 8 : 4;
  ask_for_large_pages(p.out_signal, cells * p.channels * size);
  ask_for_large_pages(p.out_density, cells * size);
  const Sorted sorted = sort_points(p);
  run(p, kernels().scatter, slabs(p, sorted, p.window[0] - 1));
}

void gather(const PnnGrid& p) {
  const int64_t size = p.is_double ? 8 : 4;
  ask_for_large_pages(p.out_signal, p.num_points * p.channels * size);
  const Sorted sorted = sort_points(p);
  for (int64_t n = sorted.start[sorted.start.size() - 2]; n < p.num_points; ++n) {
    // Points that reach no cell are in no block.
    const int64_t point = sorted.order[size_t(n)];
    std::memset(at(p.out_density, point, size_t(size)), 0, size_t(size));
    std::memset(at(p.out_signal, point * p.channels, size_t(size)), 0, size_t(p.channels * size));
  }
  run(p, kernels().gather, slabs(p, sorted, 0));
}

void gradient(const PnnGrid& p) {
  const Sorted sorted = sort_points(p);
  std::vector<GridBlock> blocks = slabs(p, sorted, 0);
  std::vector<double> scales(blocks.size() * static_cast<size_t>(p.dim));
  for (size_t n = 0; n < blocks.size(); ++n) blocks[n].grad_scale = scales.data() + n * static_cast<size_t>(p.dim);
  run(p, kernels().gradient, blocks);
  for (size_t n = 0; n < scales.size(); ++n) p.grad_scale[n % static_cast<size_t>(p.dim)] += scales[n];
}

// ---------------------------------------------------------------------------------------------------------------------
// Trees: rows go down together, because each step of one waits for the memory and those of others do not. All of them
// take as many steps as the deepest leaf needs, so that there is no branch to guess.
// ---------------------------------------------------------------------------------------------------------------------

constexpr int64_t kTreeRows = 64;  // rows of a block: they stay in the first-level cache while all trees are visited
constexpr int kTogether = 16;

struct TreeNode {  // what a step reads, in one line of the cache
  float threshold;
  int32_t feature, child, unused;
};

void tree_sum(const PnnTrees& p) {
  std::vector<TreeNode> nodes(static_cast<size_t>(p.num_nodes));
  double steps = 0;
  for (size_t n = 0; n < nodes.size(); ++n) nodes[n] = {p.threshold[n], p.feature[n], p.child[n], 0};
  for (int64_t t = 0; t < p.num_trees; ++t) steps += p.depth[t];
  const int64_t blocks = (p.num_rows + kTreeRows - 1) / kTreeRows;
  parallel(blocks, team_size(double(p.num_rows) * steps, int32_t(p.threads)), 64, [&](int64_t b, void*) {
    const int64_t first = b * kTreeRows, count = std::min(kTreeRows, p.num_rows - first);
    double sum[kTreeRows] = {};
    for (int64_t t = 0; t < p.num_trees; ++t)
      for (int64_t g = 0; g < count; g += kTogether) {
        const float* row[kTogether];
        int32_t at[kTogether];
        for (int k = 0; k < kTogether; ++k) {
          row[k] = p.x + (first + std::min(g + k, count - 1)) * p.num_columns;
          at[k] = p.root[t];
        }
        for (int32_t d = 0; d < p.depth[t]; ++d)
#pragma GCC unroll 16
          for (int k = 0; k < kTogether; ++k) {
            const TreeNode& node = nodes[size_t(at[k])];
            at[k] = node.child + (row[k][node.feature] > node.threshold);
          }
        for (int k = 0; k < kTogether && g + k < count; ++k) sum[g + k] += p.value[at[k]];
      }
    std::copy(sum, sum + count, p.sum + first);
  });
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
  return pnn::guarded([&] { pnn::scatter(*p); });
}

int32_t pnn_grid_gather(const PnnGrid* p) {
  return pnn::guarded([&] { pnn::gather(*p); });
}

int32_t pnn_grid_gradient(const PnnGrid* p) {
  return pnn::guarded([&] { pnn::gradient(*p); });
}

int32_t pnn_tree_sum(const PnnTrees* p) {
  return pnn::guarded([&] { pnn::tree_sum(*p); });
}

int32_t pnn_abi_version(void) { return 3; }

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
