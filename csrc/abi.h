// The C interface between the Python package and its compiled kernels: plain structs of raw pointers, so that one
// library serves every version of Python and PyTorch. Mirrored field by field in pyg_nas_np/ops/cpu.py.
#pragma once
#include <cstdint>

#define PNN_API __attribute__((visibility("default")))

extern "C" {

enum PnnKernel : int32_t { PNN_RBF = 0, PNN_MATERN32 = 1, PNN_MATERN52 = 2 };

// Ragged set convolution. Rows are N sources or M targets; the innermost axis of every tensor is contiguous, and a
// head stride of 0 shares a tensor between the heads. Outputs are contiguous: [N or M, H, D or C].
struct PnnSetConv {
  const void *x_src, *y_src, *x_dst;
  const int64_t *ptr_src, *ptr_dst;
  const double* scale;     // [H, D]: multiplies differences; includes the constants of the kernel
  const double* unscale;   // [H, D]: turns a gradient in scaled units into one in units of x
  int64_t x_src_row, x_src_head, y_src_row, y_src_head, x_dst_row, x_dst_head;
  int64_t num_src, num_dst, num_sets, heads, dim, channels;
  int32_t kernel, normalize, is_double, threads;
  double eps;
  void *density, *signal;  // forward: written; backward with normalize: read
  const void *grad_density, *grad_signal;
  void *grad_x_src, *grad_y_src, *grad_x_dst;  // null where not needed
  double* grad_scale;      // [H, D]: sum of force times squared scaled difference
};

// Truncated convolution between points and one uniform grid per set.
struct PnnGrid {
  const void* x;           // [N, D], contiguous
  const int64_t* ptr;      // [B + 1]
  const double* origin;    // [B, D]
  const double* spacing;   // [D]
  const double* scale;     // [D]: scaled distance of neighbouring cells; includes the constants of the kernel
  const int64_t* shape;    // [D]
  const int64_t* window;   // [D]
  double unscale;          // inverse square of the constant of the kernel in `scale`
  int64_t num_points, num_sets, dim, channels;
  int32_t kernel, is_double, threads, reserved;
  const void *u, *u_density;              // per point: [N, C], [N]
  const void *v, *v_density;              // per cell: [B, *shape, C], [B, *shape]; the gradient takes one density
  void *out_density, *out_signal;         // scatter: per cell; gather: per point
  void* grad_x;                           // [N, D]
  double* grad_scale;                     // [D]
};

// Sums of binary trees. The two children of a node are neighbours: it leads to `child`, or to the node after it if the
// feature of the row is above the threshold. A leaf leads to itself, and no number is above its threshold.
struct PnnTrees {
  const float* x;          // [B, F], contiguous
  const float* threshold;  // [N]
  const int32_t *feature, *child;  // [N]
  const double* value;     // [N]
  const int32_t *root, *depth;  // [T]
  int64_t num_rows, num_columns, num_nodes, num_trees, threads;
  double* sum;             // [B]
};

// Return 0, or 1 if memory ran out.
PNN_API int32_t pnn_set_conv_forward(const PnnSetConv* problem);
PNN_API int32_t pnn_set_conv_backward(const PnnSetConv* problem);
PNN_API int32_t pnn_grid_scatter(const PnnGrid* problem);
PNN_API int32_t pnn_grid_gather(const PnnGrid* problem);
PNN_API int32_t pnn_grid_gradient(const PnnGrid* problem);
PNN_API int32_t pnn_tree_sum(const PnnTrees* problem);

PNN_API int32_t pnn_abi_version(void);
// Name of the instruction set in use: "avx512", "avx2" or "baseline".
PNN_API const char* pnn_instruction_set(void);
// Restricts the choice to instruction sets up to this one; returns 0 if the machine lacks it. For tests.
PNN_API int32_t pnn_force_instruction_set(const char* name);
// Seconds that one core takes for `count` vector operations: 0 = fused multiply-adds, 1 = exponentials (float32).
PNN_API double pnn_measure(int32_t what, int64_t count, int32_t* lanes);
}
