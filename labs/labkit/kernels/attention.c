/* Attention over keys and values where they lie: no copy, no padding, no mask in memory.

   Each request's queries walk over its keys in tiles of 64, with the softmax of FlashAttention (Dao et al. 2022, algorithm 1): a
   running maximum, a running sum, and outputs that are rescaled when the maximum grows. Which slots a tile is made of, the request's
   block table says (Kwon et al. 2023, section 4.1). Sums are fp32, whatever the items are. The twin in torch is `ops.attend`. */
#include <math.h>
#include <stdint.h>
#include <string.h>
#ifdef __AVX2__
#include <immintrin.h>
#endif

enum { KEYS = 64, QUERIES = 4, MOST = 64 }; /* a tile · queries multiplied at once · queries that meet a tile while it is in the cache */

typedef float vec __attribute__((vector_size(32), aligned(4)));
typedef float vec4 __attribute__((vector_size(16), aligned(4)));

#ifdef BF16 /* the upper half of a float */
typedef uint16_t item;
typedef uint16_t item8 __attribute__((vector_size(16), aligned(2)));
typedef uint32_t wide8 __attribute__((vector_size(32)));
static inline vec load(const item *x) {
#ifdef __AVX2__
  return (vec)((wide8)_mm256_cvtepu16_epi32(_mm_loadu_si128((const void *)x)) << 16);
#else
  return (vec)(__builtin_convertvector(*(const item8 *)x, wide8) << 16);
#endif
}
static inline float widen(item x) {
  uint32_t bits = (uint32_t)x << 16;
  float y;
  return memcpy(&y, &bits, 4), y;
}
static inline item narrow(float x) { /* to the nearest, ties to even */
  uint32_t bits;
  memcpy(&bits, &x, 4);
  return (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
}
#else
typedef float item;
static inline vec load(const item *x) { return *(const vec *)x; }
static inline float widen(item x) { return x; }
static inline item narrow(float x) { return x; }
#endif

static inline float total(vec x) {
  vec4 y = *(vec4 *)&x + *((vec4 *)&x + 1);
  return (y[0] + y[1]) + (y[2] + y[3]);
}

/* s [QUERIES,KEYS] = q [QUERIES,E] times n keys [n,E] */
static inline void scores(const float *q, const item *k, int n, int E, float *s) {
  for (int j = 0; j < n; j += 2) {
    const item *first = k + j * E, *second = j + 1 < n ? first + E : first;
    vec a[QUERIES] = {0}, b[QUERIES] = {0};
    for (int e = 0; e < E; e += 8) {
      vec x = load(first + e), y = load(second + e);
      for (int i = 0; i < QUERIES; i++) a[i] += *(const vec *)(q + i * E + e) * x, b[i] += *(const vec *)(q + i * E + e) * y;
    }
    for (int i = 0; i < QUERIES; i++) {
      s[i * KEYS + j] = total(a[i]);
      if (j + 1 < n) s[i * KEYS + j + 1] = total(b[i]);
    }
  }
}

/* out [QUERIES,E] += p [QUERIES,KEYS] times n values [n,E] */
static inline void mix(float *out, const float *p, const item *v, int n, int E) {
  for (int e = 0; e < E; e += 16) {
    vec a[QUERIES], b[QUERIES];
    for (int i = 0; i < QUERIES; i++) a[i] = *(vec *)(out + i * E + e), b[i] = *(vec *)(out + i * E + e + 8);
    for (int j = 0; j < n; j++) {
      vec x = load(v + j * E + e), y = load(v + j * E + e + 8);
      for (int i = 0; i < QUERIES; i++) a[i] += p[i * KEYS + j] * x, b[i] += p[i * KEYS + j] * y;
    }
    for (int i = 0; i < QUERIES; i++) *(vec *)(out + i * E + e) = a[i], *(vec *)(out + i * E + e + 8) = b[i];
  }
}

/* Where n keys from position a on lie: in so many runs, side by side within a block. A ring is one block that goes round. */
static inline int runs(const int64_t *table, int64_t columns, int64_t size, int64_t a, int n, int E, int64_t *at, int *length) {
  int found = 0;
  for (int64_t b = a; b < a + n; b += length[found++]) {
    at[found] = (table[b / size % columns] * size + b % size) * E;
    length[found] = size - b % size < a + n - b ? size - b % size : a + n - b;
  }
  return found;
}

static inline void fetch(const item *x, int n) {
  for (int i = 0; i < n; i += 64 / sizeof(item)) __builtin_prefetch(x + i);
}

/* One request and one key head: n of its queries, from the `from`-th on. Query i is head i % share of token i / share. */
static void queries(const item *q, const item *k, const item *v, const int64_t *table, int columns, int size, int64_t first, int from, int n, int share,
                    int64_t stride, int E, float scale, int64_t window, const float *sinks, item *out, int64_t out_stride) {
  float x[MOST * E], sum[MOST * E], top[MOST], divisor[MOST], p[QUERIES * KEYS];
  int padded = (n + QUERIES - 1) / QUERIES * QUERIES;
  memset(x, 0, sizeof(float) * padded * E), memset(sum, 0, sizeof(float) * padded * E);
  for (int i = 0; i < padded; i++) {
    int head = (from + i) % share;
    top[i] = sinks ? sinks[head] : -1e30f, divisor[i] = sinks != 0; /* a sink is a score whose value is nothing */
    for (int e = 0; i < n && e < E; e++) x[i * E + e] = scale * widen(q[(from + i) / share * stride + head * E + e]);
  }
  int64_t last = first + (from + n - 1) / share, oldest = first + from / share + 1 - window;
  for (int64_t a = oldest > 0 ? oldest : 0; a <= last; a += KEYS) {
    int keys = last + 1 - a < KEYS ? last + 1 - a : KEYS, rest = last + 1 - a - keys, length[KEYS];
    int64_t at[KEYS];
    for (int r = runs(table, columns, size, a + keys, rest < KEYS ? rest : KEYS, E, at, length); r--;) fetch(k + at[r], length[r] * E);
    int count = runs(table, columns, size, a, keys, E, at, length);
    for (int r = 0; r < count; r++) fetch(v + at[r], length[r] * E); /* while keys are multiplied */
    for (int i = 0; i < n; i += QUERIES) {
      for (int r = 0, j = 0; r < count; j += length[r++]) scores(x + i * E, k + at[r], length[r], E, p + j);
      for (int y = i; y < i + QUERIES; y++) {
        int64_t end = first + (from + y) / share + 1 - a, begin = end - window; /* of the keys that this query may look at */
        float *s = p + (y - i) * KEYS, high = top[y], added = 0;
        for (int j = end > 0 ? end : 0; j < keys; j++) s[j] = -1e30f;
        for (int j = 0; j < begin && j < keys; j++) s[j] = -1e30f;
        for (int j = 0; j < keys; j++) high = s[j] > high ? s[j] : high;
        #pragma omp simd reduction(+ : added)
        for (int j = 0; j < keys; j++) added += s[j] = expf(s[j] - high);
        if (high > top[y]) {
          float shrink = expf(top[y] - high);
          for (int e = 0; e < E; e++) sum[y * E + e] *= shrink;
          divisor[y] *= shrink, top[y] = high;
        }
        divisor[y] += added;
      }
      for (int r = 0, j = 0; r < count; j += length[r++]) mix(sum + i * E, p + j, v + at[r], length[r], E);
    }
  }
  for (int i = 0; i < n; i++)
    for (int e = 0; e < E; e++) out[(from + i) / share * out_stride + (from + i) % share * E + e] = narrow(sum[i * E + e] / divisor[i]);
}

/* q [N,H,E], token n at q + n * stride · k, v [G,slots,E] · table [.,columns], in blocks of `size` slots, row rows[r] for request r ·
   cu [R+1] its tokens · first [R] the position of its first · sinks [H] or null · out [N,H,E]. Causal, within `window`. */
void attend(const item *q, const item *k, const item *v, const int64_t *table, const int64_t *rows, const int64_t *cu, const int64_t *first,
            const float *sinks, item *out, int64_t R, int64_t columns, int64_t size, int64_t slots, int64_t stride, int64_t H, int64_t G,
            int64_t E, int64_t window, float scale, int threads) {
  int share = H / G;
  #pragma omp parallel for collapse(2) schedule(dynamic) num_threads(threads)
  for (int64_t g = 0; g < G; g++)
    for (int64_t r = 0; r < R; r++)
      for (int i = 0, n = (cu[r + 1] - cu[r]) * share; i < n; i += MOST)
        queries(q + cu[r] * stride + g * share * E, k + g * slots * E, v + g * slots * E, table + rows[r] * columns, columns, size, first[r], i,
                n - i < MOST ? n - i : MOST, share, stride, E, scale, window, sinks ? sinks + g * share : 0,
                out + (cu[r] * H + g * share) * E, H * E);
}
