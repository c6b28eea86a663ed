/* y = x w' + b, with the weight in panels: the layout that a processor's caches and vectors like.

   A panel holds two vectors' worth of outputs, input by input: [K,PANEL]. For each input the two
   vectors are loaded once and multiplied with that input of up to ROWS rows, whose sums stay in
   registers. So a decode reads the weight once, front to back, and a prompt uses a panel for many
   rows while it is in the cache (Goto & van de Geijn 2008). The twin in torch is `F.linear`. */
#include "kernels.h"
#ifdef __AVX2__
#include <immintrin.h>
#endif

#ifdef __AVX512F__
enum { LANES = 16, ROWS = 12 }; /* 2 * ROWS sums, of 32 registers */
#else
enum { LANES = 8, ROWS = 6 }; /* of 16 */
#endif
enum {
  PANEL = 2 * LANES,
  CACHE = 128 << 10, /* bytes of x that stay in a core's cache while panels pass by */
  AHEAD = 32         /* inputs from which on memory is asked for weights */
};

typedef float vec __attribute__((vector_size(4 * LANES), aligned(4)));

/* -- a vector of weights, widened on the way where they have fewer bits -------------- */

#ifdef HALF
typedef _Float16 item;
#elif defined CODES
typedef int8_t item;
#else
typedef float item;
#endif

static inline vec load(const item *w) {
#if !defined HALF && !defined CODES
  return *(const vec *)w;
#elif defined HALF && defined __AVX512F__
  return _mm512_cvtph_ps(_mm256_loadu_si256((const void *)w));
#elif defined HALF && defined __AVX2__
  return _mm256_cvtph_ps(_mm_loadu_si128((const void *)w));
#elif defined CODES && defined __AVX512F__
  return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const void *)w)));
#elif defined CODES && defined __AVX2__
  return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const void *)w)));
#else
  vec x;
  for (int i = 0; i < LANES; i++) x[i] = w[i];
  return x;
#endif
}

int64_t panel(void) { return PANEL; }

/* -- a few rows by one panel --------------------------------------------------------- */

/* One panel: its weights [K,PANEL], its outputs' scales and biases, and how many outputs it has. */
struct panel {
  const item *w;
  vec scale[2], bias[2];
  int width;
};

/* `rows` rows of x by a panel; `ahead`: weights to ask memory for meanwhile, or null. `rows` is a
   constant where this is inlined, so the sums are registers. */
static inline __attribute__((always_inline)) void tile(int rows, const float *x, int64_t stride,
                                                       const struct panel *p, int64_t K,
                                                       const float *add, float *y, int64_t N,
                                                       const item *ahead) {
  const item *w = p->w;
  vec sum[ROWS][2];
  for (int i = 0; i < rows; i++) sum[i][0] = sum[i][1] = (vec){0};
  for (int64_t k = 0; k < K; k++) {
    for (int i = 0; ahead && i < PANEL; i += 64 / sizeof(item))
      __builtin_prefetch(ahead + k * PANEL + i);
    vec left = load(w + k * PANEL), right = load(w + k * PANEL + LANES);
    for (int i = 0; i < rows; i++) {
      sum[i][0] += x[i * stride + k] * left;
      sum[i][1] += x[i * stride + k] * right;
    }
  }
  for (int i = 0; i < rows; i++) {
    vec before[2] = {{0}, {0}};
    if (add) memcpy(before, add + i * N, sizeof(float) * p->width);
    for (int j = 0; j < 2; j++) sum[i][j] = sum[i][j] * p->scale[j] + p->bias[j] + before[j];
    memcpy(y + i * N, sum[i], sizeof(float) * p->width);
  }
}

static void some(int rows, const float *x, int64_t stride, const struct panel *p, int64_t K,
                 const float *add, float *y, int64_t N, const item *ahead) {
#define CASE(n) \
  case n: \
    tile(n, x, stride, p, K, add, y, N, ahead); \
    break;
  switch (rows) {
    CASE(1) CASE(2) CASE(3) CASE(4) CASE(5) CASE(6)
#if __AVX512F__
    CASE(7) CASE(8) CASE(9) CASE(10) CASE(11) CASE(12)
#endif
  }
}

/* -- all rows by all panels ---------------------------------------------------------- */

/* The panel that holds output n and those after it. */
static inline struct panel panel_at(int64_t n, const struct matrix *m) {
  const float *scale = m->scale;
  struct panel p = {.w = (const item *)m->weight + n * m->K, .width = MIN(m->N - n, PANEL)};
  for (int j = 0; j < 2; j++) p.scale[j] = 1 - (vec){0};
  if (scale) memcpy(p.scale, scale + n, sizeof(float) * p.width);
  if (m->bias) memcpy(p.bias, m->bias + n, sizeof(float) * p.width);
  return p;
}

/* A `linear_kernel`: weight [panels,K,PANEL], the last one filled up; scale [N] or null. */
void linear(const struct matrix *w, const float *x, int64_t stride, int64_t M, const float *add,
            float *y) {
  int64_t K = w->K, N = w->N, block = CACHE / (4 * K) / ROWS * ROWS;
  if (block < ROWS) block = ROWS;
  for (int64_t from = 0; from < M; from += block) {
    int64_t rows = MIN(M - from, block), tiles = (rows + ROWS - 1) / ROWS;
    #pragma omp for schedule(static) nowait
    for (int64_t n = 0; n < N; n += PANEL) {
      struct panel p = panel_at(n, w);
      for (int64_t t = 0; t < tiles; t++) { /* of equal height */
        int64_t m = from + rows * t / tiles, next = from + rows * (t + 1) / tiles, at = m * N + n;
        /* A panel for one tile is read from memory, so ask early; one for several comes while the
           last of them has the one before. */
        const item *ahead = tiles == 1 ? p.w + AHEAD * PANEL : t == tiles - 1 ? p.w + K * PANEL : 0;
        some(next - m, x + m * stride, stride, &p, K, add ? add + at : 0, y + at, N, ahead);
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
