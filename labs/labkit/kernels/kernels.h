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

/* Where a cache's tokens lie. k, v [G,slots,E] of floats or of 16-bit numbers, in blocks of `size`
   slots. Position p of row r is in block table[r,p/size]; without a table it is in block r, which
   positions go round. */
struct slots {
  void *k, *v;
  int64_t G, slots, E, size;
  const int64_t *table;
  int64_t columns;
};

static inline int64_t slot_of(const struct slots *c, int64_t row, int64_t p) {
  int64_t block = c->table ? c->table[row * c->columns + p / c->size] : row;
  return block * c->size + p % c->size;
}

/* R requests: the cache row of each, its tokens cu[r] to cu[r+1], the position of its first. */
struct requests {
  int64_t R;
  const int64_t *rows, *cu, *first;
};

/* How a query weighs what it may look at: sinks [H] or null; keys that are `window` back are
   hidden. */
struct rule {
  const float *sinks;
  int64_t window;
  float scale;
};

/* Causal attention of all tokens of the requests to all that their cache holds. q and out [N,H,E],
   token n of q at q + n * stride. */
typedef void attend_kernel(const float *q, int64_t stride, int64_t H, float *out,
                           const struct slots *c, const struct requests *s, const struct rule *rule);

/* The key and the value [G,E] of the token at position p of a row go into their slot. */
typedef void keep_kernel(const float *k, const float *v, const struct slots *c, int64_t row,
                         int64_t p);

/* Ask memory for so many bytes from p on: those that a later step will want. */
static inline void ask(const void *p, int64_t bytes) {
  for (int64_t i = 0; i < bytes; i += 64) __builtin_prefetch((const char *)p + i);
}
