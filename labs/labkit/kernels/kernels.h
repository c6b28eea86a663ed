/* What the kernels share: the structures that Python hands over (`kernels/linear.py`,
   `kernels/attention.py`), and how a kernel is called.

   A kernel is called by every thread of a team, shares its loops out among them (an `omp for` that
   binds to whoever is around it), and ends in a barrier. So one call of its own starts a team for
   one kernel, and `plan.c` one team for all kernels of a step. Outside of any team it runs alone. */
#include <stdint.h>
#include <string.h>

#define MIN(a, b) ((a) < (b) ? (a) : (b))

/* A weight [N,K] in panels, whatever its bits. */
struct matrix {
  const void *weight;
  const void *scale; /* fp32 [N], of each output, or what the format says; null where it has none */
  const float *bias; /* [N] or null */
  int64_t K, N;
  const void *minimum; /* what code 0 stands for, where the format has it, or null */
};

/* y [M,N] = x [M,K] times a matrix, plus bias, plus `add` [M,N] unless it is null; row m of x is at
   x + m * stride. y may be `add`. */
typedef void linear_kernel(const struct matrix *w, const float *x, int64_t stride, int64_t M,
                           const float *add, float *y);

/* Ask memory for so many bytes from p on: those that a later step will want. */
static inline void ask(const void *p, int64_t bytes) {
  for (int64_t i = 0; i < bytes; i += 64) __builtin_prefetch((const char *)p + i);
}
