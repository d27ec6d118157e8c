// The table of kernels that each instruction set fills; the schedule that calls them is compiled once.
#pragma once
#include "abi.h"

namespace pnn {

// A rectangle of pairs: targets [j0, j1) against sources [i0, i1), all of one set and one head.
struct Block {
  int64_t set, head, i0, i1, j0, j1;
  // Where the results go: the tensors themselves or buffers for a few of their rows.
  void *density, *signal;
  int64_t dst_row0;     // number of the row at the start of the two pointers above
  int64_t dst_heads;    // heads per row in them
  bool finish;  // whether the sums are complete, so that normalisation applies
  void *grad_x_src, *grad_y_src;
  int64_t src_row0, src_heads;  // the same for these two
  double* grad_scale;   // [D], private to the block
};

// Bins of 64 neighbouring cells, 2^bits on each axis. Both bins and the cells inside one are numbered row by row.
constexpr int64_t kBinCells = 64;

struct GridBins {
  int64_t bits, number[3], outside;  // bins along each axis; the key of points that reach no cell
};

struct GridBlock {
  const int64_t* order;  // points, sorted by cell
  int64_t count, set;
  int64_t low, high;     // scatter: the cells of the first axis that the block owns
  double* grad_scale;    // gradient: [D], private to the block
};

struct Kernels {
  const char* name;
  int64_t (*scratch_bytes)(const PnnSetConv&);
  int64_t (*grid_scratch_bytes)(const PnnGrid&);
  void (*forward)(const PnnSetConv&, const Block&, void* scratch);
  void (*backward)(const PnnSetConv&, const Block&, void* scratch);
  // Keys of points [begin, end), all of one set: the number of the first cell of each window, by bins.
  void (*locate)(const PnnGrid&, const GridBins&, int64_t set, int64_t begin, int64_t end, int64_t* keys);
  void (*scatter)(const PnnGrid&, const GridBlock&, void* scratch);
  void (*gather)(const PnnGrid&, const GridBlock&, void* scratch);
  void (*gradient)(const PnnGrid&, const GridBlock&, void* scratch);
  void (*measure)(int32_t what, int64_t count, int32_t* lanes);
};

// Targets per tile; the schedule cuts blocks at multiples of it.
constexpr int64_t kTile = 64;

const Kernels* baseline_kernels();
#ifdef PNN_X86
const Kernels* avx2_kernels();
const Kernels* avx512_kernels();
#endif

}  // namespace pnn
