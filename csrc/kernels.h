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

struct GridBlock {
  const int64_t* order;  // the points of the block, sorted by cell
  int64_t count, set;
  double* grad_scale;
};

struct Kernels {
  const char* name;
  int64_t (*scratch_bytes)(const PnnSetConv&);
  int64_t (*grid_scratch_bytes)(const PnnGrid&);
  void (*forward)(const PnnSetConv&, const Block&, void* scratch);
  void (*backward)(const PnnSetConv&, const Block&, void* scratch);
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
