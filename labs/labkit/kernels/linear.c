/* y = x w' + b, with the weight in panels: the layout that a processor's caches and vectors like.

   A panel holds three vectors' worth of outputs, input by input: [K,PANEL]. For each input the
   vectors are loaded once and multiplied with that input of up to ROWS rows, whose sums stay in
   registers. So a decode reads the weight once, front to back, and a prompt uses a panel for many
   rows while it is in the cache (Goto & van de Geijn 2008). The twin in torch is `F.linear`.

   The weight is fp32, fp16 (-DHALF) or bf16 (-DBRAIN). Products and sums are fp32. */
#pragma GCC optimize("no-associative-math") /* sums stay in the order that is written here */
#include "kernels.h"
#ifdef __AVX2__
#include <immintrin.h>
#endif

#ifdef __AVX512F__
enum { LANES = 16, ROWS = 8 }; /* VECTORS * ROWS sums, of 32 registers */
#else
enum { LANES = 8, ROWS = 4 }; /* of 16 */
#endif
enum {
  VECTORS = 3,
  PANEL = VECTORS * LANES,
  CACHE = 256 << 10, /* bytes of x that stay in a core's cache while panels pass by */
#ifndef SLICE
  SLICE = 192,       /* inputs of a panel that stay in the first cache while all rows pass by */
#endif
  AHEAD = 2048       /* bytes from which on memory is asked for weights */
};

typedef float vec __attribute__((vector_size(4 * LANES), aligned(4)));
typedef uint32_t words __attribute__((vector_size(4 * LANES), aligned(4)));

/* -- a vector of weights, widened on the way where they have fewer bits -------------- */

/* bf16 are the upper halves of fp32. So two inputs of one output lie in one word, [K/2,PANEL,2]: a
   shift widens the first, a mask the second. */
#ifdef BRAIN
enum { TOGETHER = 2, WIDEN = 2 };
typedef uint32_t item;
#elif defined HALF
enum { TOGETHER = 1, WIDEN = 3 };
typedef _Float16 item;
#else
enum { TOGETHER = 1, WIDEN = INT32_MAX };
typedef float item;
#endif

static inline vec load(const item *w, int which) {
#ifdef BRAIN
  words both = *(const words *)w;
  return (vec)(which ? both & 0xffff0000 : both << 16);
#elif defined HALF && defined __AVX512F__
  return _mm512_cvtph_ps(_mm256_loadu_si256((const void *)w));
#elif defined HALF && defined __AVX2__
  return _mm256_cvtph_ps(_mm_loadu_si128((const void *)w));
#elif defined HALF
  vec x;
  for (int i = 0; i < LANES; i++) x[i] = w[i];
  return x;
#else
  return *(const vec *)w;
#endif
}

/* So many inputs of a panel in fp32, [inputs,PANEL]: from WIDEN tiles on this is cheaper than on the
   way. */
static void widen(const item *w, int64_t inputs, float *wide) {
  for (int64_t k = 0; k < inputs; k++)
    for (int j = 0; j < PANEL; j += LANES)
      *(vec *)(wide + k * PANEL + j) = load(w + k / TOGETHER * PANEL + j, k % TOGETHER);
}

/* A compiler that would load this again for every use keeps it in a register. */
#ifdef __AVX2__
#define KEEP(v) __asm__("" : "+v"(v))
#else
#define KEEP(v)
#endif

int64_t panel(void) { return PANEL; }

/* -- a few rows by one panel --------------------------------------------------------- */

/* What a tile is made of: some rows of x, some inputs of a panel, as items or `wide`; what the sums
   begin with (`before` [rows,N] or null, and `bias` or null); where `width` of them go. */
struct part {
  const float *x;
  int64_t stride, inputs;
  const item *w;
  const float *wide, *before;
  const vec *bias;
  float *y;
  int64_t N;
  int width;
  const char *ahead; /* memory is asked for this, and `step` bytes further with every step */
  int64_t step;
};

/* Floats of one output each: for a whole panel a few moves, and no call. */
static inline void copy(void *to, const void *from, int width) {
  if (width == PANEL) memcpy(to, from, sizeof(float) * PANEL);
  else memcpy(to, from, sizeof(float) * width);
}

/* One input of `rows` rows times the panel's weights for it, added to the sums. */
#define ADD_INPUT(k, weight) \
  { \
    vec v[VECTORS]; \
    for (int j = 0; j < VECTORS; j++) { \
      v[j] = weight; \
      KEEP(v[j]); \
    } \
    for (int i = 0; i < rows; i++) \
      for (int j = 0; j < VECTORS; j++) sum[i][j] += x[i * p.stride + (k)] * v[j]; \
  }

/* `rows` and `wide` are constants where this is inlined, so the sums are registers. */
static inline __attribute__((always_inline)) void tile(int rows, int wide, struct part p) {
  vec sum[ROWS][VECTORS];
  const float *x = p.x;
  for (int i = 0; i < rows; i++) {
    for (int j = 0; j < VECTORS; j++) sum[i][j] = (vec){0};
    if (p.before) copy(sum[i], p.before + i * p.N, p.width);
    for (int j = 0; p.bias && j < VECTORS; j++) sum[i][j] += p.bias[j];
  }
  if (wide) {
    for (int64_t k = 0; k < p.inputs; k++, p.wide += PANEL, p.ahead += p.step) {
      ask(p.ahead, PANEL * sizeof(item) / TOGETHER);
      ADD_INPUT(k, *(const vec *)(p.wide + j * LANES))
    }
  } else {
    int64_t k = 0;
    for (; k + TOGETHER <= p.inputs; k += TOGETHER, p.w += PANEL, p.ahead += p.step) {
      ask(p.ahead, PANEL * sizeof(item));
      ADD_INPUT(k, load(p.w + j * LANES, 0))
      if (TOGETHER == 2) ADD_INPUT(k + 1, load(p.w + j * LANES, 1))
    }
    if (k < p.inputs) ADD_INPUT(k, load(p.w + j * LANES, 0))
  }
  for (int i = 0; i < rows; i++) copy(p.y + i * p.N, sum[i], p.width);
}

/* Not inlined: the sums need all registers. */
static __attribute__((noinline)) void some(int rows, struct part p) {
#define CASE(n) \
  case n: \
    if (p.wide) tile(n, 1, p); \
    else tile(n, 0, p); \
    break;
  switch (rows) {
    CASE(1) CASE(2) CASE(3) CASE(4)
#ifdef __AVX512F__
    CASE(5) CASE(6) CASE(7) CASE(8)
#endif
  }
}

/* -- all rows by all panels ---------------------------------------------------------- */

/* A `linear_kernel`: weight [panels,K,PANEL], the last one filled up. */
void linear(const struct matrix *w, const float *x, int64_t stride, int64_t M, const float *add,
            float *y) {
  int64_t K = w->K, N = w->N, steps = (K + TOGETHER - 1) / TOGETHER;
  int64_t most = CACHE / (4 * K) > ROWS ? CACHE / (4 * K) : ROWS, blocks = (M + most - 1) / most;
  float wide[SLICE * PANEL];
  for (int64_t b = 0; b < blocks; b++) { /* of equal height, as tiles are */
    int64_t from = M * b / blocks, rows = M * (b + 1) / blocks - from;
    int64_t tiles = (rows + ROWS - 1) / ROWS;
    #pragma omp for schedule(static) nowait
    for (int64_t n = 0; n < N; n += PANEL) {
      struct part p = {.stride = stride, .N = N, .width = MIN(N - n, PANEL)};
      p.w = (const item *)w->weight + n * steps;
      vec bias[VECTORS] = {{0}};
      if (w->bias) memcpy(bias, w->bias + n, sizeof(float) * p.width);
      for (int64_t k = 0; k < K; k += SLICE, p.w += SLICE / TOGETHER * PANEL) {
        p.inputs = MIN(K - k, SLICE);
        if (tiles >= WIDEN) {
          widen(p.w, p.inputs, wide);
          p.wide = wide;
        }
        p.bias = k ? 0 : bias;
        int64_t bytes = p.inputs / TOGETHER * PANEL * sizeof(item);
        p.step = PANEL * sizeof(item) / tiles / (p.wide ? TOGETHER : 1);
        for (int64_t t = 0; t < tiles; t++) { /* of equal height */
          int64_t m = from + rows * t / tiles, next = from + rows * (t + 1) / tiles;
          p.x = x + m * stride + k;
          p.y = y + m * N + n;
          p.before = k ? p.y : add ? add + m * N + n : 0;
          /* One tile asks for what it needs next; several, each for its part of the next slice. */
          p.ahead = (const char *)p.w + (tiles > 1 ? bytes + bytes * t / tiles : AHEAD);
          some(next - m, p);
        }
      }
    }
  }
  #pragma omp barrier
}

void linear_alone(const struct matrix *w, const float *x, int64_t stride, int64_t M,
                  const float *add, float *y, int threads) {
  #pragma omp parallel num_threads(threads)
  linear(w, x, stride, M, add, y);
}
