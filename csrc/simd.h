// Vectors of the widest registers that this translation unit is compiled for. Everything has internal linkage: the
// same source is compiled once per instruction set, and the linker must not merge the copies.
#pragma once
#include <cmath>
#include <cstdint>
#include <cstring>
#ifdef PNN_X86
#include <immintrin.h>
#endif

#define PNN_INLINE static inline __attribute__((always_inline))

namespace {

#if defined(__AVX512F__)
constexpr int kBytes = 64;
constexpr int kRegisters = 32;
#elif defined(__AVX2__)
constexpr int kBytes = 32;
constexpr int kRegisters = 16;
#else
constexpr int kBytes = 16;
constexpr int kRegisters = 16;
#endif

template <class T>
struct Simd;

template <>
struct Simd<float> {
  typedef float V __attribute__((vector_size(kBytes)));
  typedef int32_t I __attribute__((vector_size(kBytes)));
  static constexpr int kLanes = kBytes / 4;
};

template <>
struct Simd<double> {
  typedef double V __attribute__((vector_size(kBytes)));
  typedef int64_t I __attribute__((vector_size(kBytes)));
  static constexpr int kLanes = kBytes / 8;
};

template <class T>
PNN_INLINE typename Simd<T>::V load(const T* p) {
  typename Simd<T>::V v;
  std::memcpy(&v, p, kBytes);
  return v;
}

template <class T>
PNN_INLINE void store(T* p, typename Simd<T>::V v) {
  std::memcpy(p, &v, kBytes);
}

template <class T>
PNN_INLINE typename Simd<T>::V splat(T s) {
  return typename Simd<T>::V{} + s;
}

PNN_INLINE Simd<float>::V root(Simd<float>::V v) {
#if defined(__AVX512F__)
  return (Simd<float>::V)_mm512_sqrt_ps((__m512)v);
#elif defined(__AVX2__)
  return (Simd<float>::V)_mm256_sqrt_ps((__m256)v);
#else
  for (int l = 0; l < Simd<float>::kLanes; ++l) v[l] = std::sqrt(v[l]);
  return v;
#endif
}

PNN_INLINE Simd<double>::V root(Simd<double>::V v) {
#if defined(__AVX512F__)
  return (Simd<double>::V)_mm512_sqrt_pd((__m512d)v);
#elif defined(__AVX2__)
  return (Simd<double>::V)_mm256_sqrt_pd((__m256d)v);
#else
  for (int l = 0; l < Simd<double>::kLanes; ++l) v[l] = std::sqrt(v[l]);
  return v;
#endif
}

// 2^t for t <= 1: t is split into the nearest integer n and a rest f in [-1/2, 1/2], and 2^f is a polynomial with
// p(0) = 1, so that a distance of zero has weight exactly one. NaN stays NaN; results below the smallest normal number
// become zero. Largest relative error 2.2e-7 (float), 3e-16 (double).
PNN_INLINE Simd<float>::V exp2_(Simd<float>::V t) {
  using V = Simd<float>::V;
  using I = Simd<float>::I;
#if defined(__AVX512F__)
  t = (V)_mm512_max_ps(_mm512_set1_ps(-200.f), (__m512)t);
#endif
  const V magic = splat(12582912.f);
  const V shifted = t + magic;
  const V n = shifted - magic;
  const V f = t - n;
  V p = f * 1.3276472632e-3f + 9.67554134312e-3f;
  p = p * f + 5.55071327186e-2f;
  p = p * f + 2.40221197237e-1f;
  p = p * f + 6.93146967065e-1f;
  p = p * f + 1.f;
#if defined(__AVX512F__)
  return (V)_mm512_scalef_ps((__m512)p, (__m512)n);
#else
  const V power = (V)(((I)shifted << 23) + (127 << 23));
  const I tiny = t < splat(-126.f);
  return (V)((I)(p * power) & ~tiny);
#endif
}

PNN_INLINE Simd<double>::V exp2_(Simd<double>::V t) {
  using V = Simd<double>::V;
  using I = Simd<double>::I;
#if defined(__AVX512F__)
  t = (V)_mm512_max_pd(_mm512_set1_pd(-2000.0), (__m512d)t);
#endif
  const V magic = splat(6755399441055744.0);
  const V shifted = t + magic;
  const V n = shifted - magic;
  const V f = t - n;
  V p = f * 4.07807178609287042e-10 + 7.07257039454079943e-9;
  p = p * f + 1.01806476605730693e-7;
  p = p * f + 1.32154426754528552e-6;
  p = p * f + 1.52527273851897748e-5;
  p = p * f + 1.54035304415718501e-4;
  p = p * f + 1.33335581534399697e-3;
  p = p * f + 9.61812910760700262e-3;
  p = p * f + 5.55041086647903945e-2;
  p = p * f + 2.4022650695910098e-1;
  p = p * f + 6.93147180559945697e-1;
  p = p * f + 1.0;
#if defined(__AVX512F__)
  return (V)_mm512_scalef_pd((__m512d)p, (__m512d)n);
#else
  const V power = (V)(((I)shifted << 52) + (int64_t{1023} << 52));
  const I tiny = t < splat(-1022.0);
  return (V)((I)(p * power) & ~tiny);
#endif
}

// A radial kernel at `square`, the squared distance in units that make it cheap: for the RBF kernel
// r^2 log2(e) / 2, for a Matern kernel 3 r^2 or 5 r^2. `factor` is q(r) of pyg_nas_np/ops/radial.py.
template <int kKernel, class T>
PNN_INLINE void radial(typename Simd<T>::V square, typename Simd<T>::V& weight, typename Simd<T>::V& factor) {
  using V = typename Simd<T>::V;
  if constexpr (kKernel == 0) {
    weight = factor = exp2_(-square);
  } else {
    // The expanded square of a distance can round below zero, and a root must not.
    const V positive = square < splat(T(0)) ? splat(T(0)) : square;
    const V u = root(positive);
    const V decay = exp2_(u * T(-1.4426950408889634));
    if constexpr (kKernel == 1) {
      weight = decay + u * decay;
      factor = decay * T(3);
    } else {
      const V linear = decay + u * decay;
      weight = linear + (positive * T(1.0 / 3)) * decay;
      factor = linear * T(5.0 / 3);
    }
  }
}

template <class T>
PNN_INLINE T sum_lanes(typename Simd<T>::V v) {
#if defined(__AVX512F__)
  if constexpr (sizeof(T) == 4)
    return _mm512_reduce_add_ps((__m512)v);
  else
    return _mm512_reduce_add_pd((__m512d)v);
#else
  T total = 0;
  for (int l = 0; l < Simd<T>::kLanes; ++l) total += v[l];
  return total;
#endif
}

// The first n lanes only, 0 < n <= kLanes; memory beyond them is neither read nor written.
template <class T>
PNN_INLINE typename Simd<T>::V load_part(const T* p, int64_t n) {
#if defined(__AVX512F__)
  if constexpr (sizeof(T) == 4)
    return (typename Simd<T>::V)_mm512_maskz_loadu_ps(static_cast<__mmask16>((1u << n) - 1), p);
  else
    return (typename Simd<T>::V)_mm512_maskz_loadu_pd(static_cast<__mmask8>((1u << n) - 1), p);
#else
  typename Simd<T>::V v{};
  for (int64_t l = 0; l < n; ++l) v[l] = p[l];
  return v;
#endif
}

template <class T>
PNN_INLINE void store_part(T* p, int64_t n, typename Simd<T>::V v) {
#if defined(__AVX512F__)
  if constexpr (sizeof(T) == 4)
    _mm512_mask_storeu_ps(p, static_cast<__mmask16>((1u << n) - 1), (__m512)v);
  else
    _mm512_mask_storeu_pd(p, static_cast<__mmask8>((1u << n) - 1), (__m512d)v);
#else
  for (int64_t l = 0; l < n; ++l) p[l] = v[l];
#endif
}

// Not those of the standard library: their instances have external linkage, and the linker would keep one copy for all
// instruction sets.
template <class T>
PNN_INLINE T least(T a, T b) {
  return b < a ? b : a;
}

template <class T>
PNN_INLINE T most(T a, T b) {
  return a < b ? b : a;
}

template <class T>
PNN_INLINE void clear(T* p, int64_t n) {
  std::memset(p, 0, static_cast<size_t>(n) * sizeof(T));
}

template <class T>
PNN_INLINE void copy(const T* from, int64_t n, T* to) {
  std::memcpy(to, from, static_cast<size_t>(n) * sizeof(T));
}

// ---------------------------------------------------------------------------------------------------------------------
// The one small matrix product on which everything stands:
//   out[r][:] (=, +=) sum_k a(r, k) * b[k][:]          for Dot
//   out[r][:]  =      sum_k (b[k][:] - a(r, k))^2      for Square
// with the vector lanes along the columns, and any strides for `a`, so that a tile of weights serves as either operand.
// ---------------------------------------------------------------------------------------------------------------------

struct Dot {
  template <class V, class T>
  PNN_INLINE V step(V sum, V b, T a) {
    return sum + b * a;
  }
};

struct Square {
  template <class V, class T>
  PNN_INLINE V step(V sum, V b, T a) {
    const V d = b - a;
    return sum + d * d;
  }
};

template <class Op, bool kAdd, int kRows, int kVectors, class T>
PNN_INLINE void product_block(const T* a, int64_t a_row, int64_t a_k, const T* b, int64_t b_k, T* out,
                              int64_t out_row, int64_t depth) {
  using V = typename Simd<T>::V;
  constexpr int L = Simd<T>::kLanes;
  V sum[kRows][kVectors];
#pragma GCC unroll 16
  for (int r = 0; r < kRows; ++r)
#pragma GCC unroll 16
    for (int v = 0; v < kVectors; ++v) sum[r][v] = V{};
  for (int64_t k = 0; k < depth; ++k, a += a_k, b += b_k) {
    V columns[kVectors];
#pragma GCC unroll 16
    for (int v = 0; v < kVectors; ++v) columns[v] = load(b + v * L);
#pragma GCC unroll 16
    for (int r = 0; r < kRows; ++r) {
      const T s = a[r * a_row];
#pragma GCC unroll 16
      for (int v = 0; v < kVectors; ++v) sum[r][v] = Op::step(sum[r][v], columns[v], s);
    }
  }
#pragma GCC unroll 16
  for (int r = 0; r < kRows; ++r)
#pragma GCC unroll 16
    for (int v = 0; v < kVectors; ++v) {
      T* p = out + r * out_row + v * L;
      store(p, kAdd ? load(p) + sum[r][v] : sum[r][v]);
    }
}

template <class Op, bool kAdd, int kVectors, class T>
PNN_INLINE void product_columns(const T* a, int64_t a_row, int64_t a_k, const T* b, int64_t b_k, T* out,
                                int64_t out_row, int64_t rows, int64_t depth) {
  // As many rows as keep all sums, the columns and one broadcast in registers.
  constexpr int kMost = kRegisters == 32 ? (kVectors == 4 ? 6 : 8) : (kVectors == 4 ? 2 : kVectors == 2 ? 4 : 8);
  int64_t r = 0;
  for (; r + kMost <= rows; r += kMost)
    product_block<Op, kAdd, kMost, kVectors>(a + r * a_row, a_row, a_k, b, b_k, out + r * out_row, out_row, depth);
  for (; r + 4 <= rows; r += 4)
    product_block<Op, kAdd, 4, kVectors>(a + r * a_row, a_row, a_k, b, b_k, out + r * out_row, out_row, depth);
  for (; r + 2 <= rows; r += 2)
    product_block<Op, kAdd, 2, kVectors>(a + r * a_row, a_row, a_k, b, b_k, out + r * out_row, out_row, depth);
  for (; r < rows; ++r)
    product_block<Op, kAdd, 1, kVectors>(a + r * a_row, a_row, a_k, b, b_k, out + r * out_row, out_row, depth);
}

template <class Op, bool kAdd, class T>
__attribute__((noinline)) void product(const T* a, int64_t a_row, int64_t a_k, const T* b, int64_t b_k, T* out,
                                       int64_t out_row, int64_t rows, int64_t vectors, int64_t depth) {
  constexpr int L = Simd<T>::kLanes;
  constexpr int kMost = kRegisters == 32 ? 4 : 2;
  int64_t v = 0;
  if constexpr (kMost == 4)
    for (; v + 4 <= vectors; v += 4)
      product_columns<Op, kAdd, 4>(a, a_row, a_k, b + v * L, b_k, out + v * L, out_row, rows, depth);
  for (; v + 2 <= vectors; v += 2)
    product_columns<Op, kAdd, 2>(a, a_row, a_k, b + v * L, b_k, out + v * L, out_row, rows, depth);
  for (; v < vectors; ++v)
    product_columns<Op, kAdd, 1>(a, a_row, a_k, b + v * L, b_k, out + v * L, out_row, rows, depth);
}

}  // namespace
