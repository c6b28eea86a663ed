/* Attention over keys and values where they lie: no copy, no padding, no mask in memory.

   Each request's queries walk over its keys in tiles of 64, with the softmax of FlashAttention (Dao
   et al. 2022, algorithm 1): a running maximum, a running sum, and outputs that are rescaled when
   the maximum grows. Which slots a tile is made of, the request's block table says (Kwon et al.
   2023, section 4.1). Sums are fp32, whatever the items are. The twin in torch is `ops.attend`. */
#include "kernels.h"
#include <math.h>
#ifdef __AVX2__
#include <immintrin.h>
#endif

enum {
  KEYS = 64,   /* of a tile */
  QUERIES = 4, /* that are multiplied at once */
  MOST = 64    /* queries that meet a tile while it is in the processor's cache */
};

#define HIDDEN -1e30f

typedef float vec __attribute__((vector_size(32), aligned(4)));
typedef float vec4 __attribute__((vector_size(16), aligned(4)));

/* -- what a cache holds: floats, or (BF16) the upper halves of floats ---------------- */

#ifdef BF16
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

static inline item narrow(float x) { /* to the nearest, ties to even */
  uint32_t bits;
  memcpy(&bits, &x, 4);
  return (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
}
#else
typedef float item;

static inline vec load(const item *x) { return *(const vec *)x; }
static inline item narrow(float x) { return x; }
#endif

/* The queries of one request that share a key head: i is head i % share of token i / share. */
struct group {
  const float *q;
  const item *k, *v;
  float *out;
  const float *sinks;
  int64_t row, first, stride, out_stride;
  int share;
};

/* -- one tile ------------------------------------------------------------------------ */

/* Where n keys from position p on lie: in so many runs, side by side within a block. */
struct runs {
  int count, length[KEYS];
  int64_t at[KEYS];
};

static inline void find(struct runs *found, const struct slots *c, int64_t row, int64_t p, int n) {
  found->count = 0;
  for (int64_t stop = p + n; p < stop; p += found->length[found->count++]) {
    found->at[found->count] = slot_of(c, row, p) * c->E;
    found->length[found->count] = MIN(c->size - p % c->size, stop - p);
  }
}

/* Ask for memory before it is needed. */
static inline void fetch(const item *x, const struct runs *of, int64_t E) {
  for (int r = 0; r < of->count; r++)
    for (int i = 0; i < of->length[r] * E; i += 64 / sizeof(item))
      __builtin_prefetch(x + of->at[r] + i);
}

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
      for (int i = 0; i < QUERIES; i++) {
        vec query = *(const vec *)(q + i * E + e);
        a[i] += query * x;
        b[i] += query * y;
      }
    }
    for (int i = 0; i < QUERIES; i++) {
      s[i * KEYS + j] = total(a[i]);
      if (j + 1 < n) s[i * KEYS + j + 1] = total(b[i]);
    }
  }
}

/* One query's scores become weights: keys before `begin` and from `end` on are hidden. What it has
   summed up so far shrinks where its maximum grows. */
static inline void weigh(float *s, int keys, int64_t begin, int64_t end, float *top, float *divisor,
                         float *sum, int E) {
  for (int j = end > 0 ? end : 0; j < keys; j++) s[j] = HIDDEN;
  for (int j = 0; j < begin && j < keys; j++) s[j] = HIDDEN;
  float high = *top, added = 0;
  for (int j = 0; j < keys; j++) high = s[j] > high ? s[j] : high;
  #pragma omp simd reduction(+ : added)
  for (int j = 0; j < keys; j++) added += s[j] = expf(s[j] - high);
  if (high > *top) {
    float shrink = expf(*top - high);
    for (int e = 0; e < E; e++) sum[e] *= shrink;
    *divisor *= shrink;
    *top = high;
  }
  *divisor += added;
}

/* sum [QUERIES,E] += weights [QUERIES,KEYS] times n values [n,E] */
static inline void mix(float *sum, const float *weights, const item *v, int n, int E) {
  for (int e = 0; e < E; e += 16) {
    vec a[QUERIES], b[QUERIES];
    for (int i = 0; i < QUERIES; i++) {
      a[i] = *(vec *)(sum + i * E + e);
      b[i] = *(vec *)(sum + i * E + e + 8);
    }
    for (int j = 0; j < n; j++) {
      vec x = load(v + j * E + e), y = load(v + j * E + e + 8);
      for (int i = 0; i < QUERIES; i++) {
        a[i] += weights[i * KEYS + j] * x;
        b[i] += weights[i * KEYS + j] * y;
      }
    }
    for (int i = 0; i < QUERIES; i++) {
      *(vec *)(sum + i * E + e) = a[i];
      *(vec *)(sum + i * E + e + 8) = b[i];
    }
  }
}

/* -- all tiles ----------------------------------------------------------------------- */

/* n queries of a group, from the `from`-th on, over all keys that one of them may look at. */
static void queries(const struct group *g, const struct slots *c, const struct rule *rule, int from,
                    int n) {
  int E = c->E, share = g->share, padded = (n + QUERIES - 1) / QUERIES * QUERIES;
  float x[MOST * E], sum[MOST * E], top[MOST], divisor[MOST], s[QUERIES * KEYS];
  memset(x, 0, sizeof(float) * padded * E);
  memset(sum, 0, sizeof(float) * padded * E);
  for (int i = 0; i < padded; i++) {
    int token = (from + i) / share, head = (from + i) % share;
    top[i] = g->sinks ? g->sinks[head] : HIDDEN; /* a sink is a score whose value is nothing */
    divisor[i] = g->sinks != 0;
    const float *q = g->q + token * g->stride + head * E;
    for (int e = 0; i < n && e < E; e++) x[i * E + e] = rule->scale * q[e];
  }

  int64_t oldest = g->first + from / share + 1 - rule->window;
  int64_t stop = g->first + (from + n - 1) / share + 1;
  for (int64_t a = oldest > 0 ? oldest : 0; a < stop; a += KEYS) {
    int keys = MIN(stop - a, KEYS);
    struct runs here, next;
    find(&here, c, g->row, a, keys);
    find(&next, c, g->row, a + keys, MIN(stop - a - keys, KEYS));
    fetch(g->k, &next, E);
    fetch(g->v, &here, E); /* while keys are multiplied */
    for (int i = 0; i < n; i += QUERIES) {
      /* of these queries the last one looks furthest: what lies beyond is never multiplied */
      int64_t furthest = g->first + (MIN(i + QUERIES, n) - 1 + from) / share + 1 - a;
      int see = MIN(furthest, keys);
      if (see <= 0) continue;
      for (int r = 0, j = 0; j < see; j += here.length[r++])
        scores(x + i * E, g->k + here.at[r], MIN(here.length[r], see - j), E, s + j);
      for (int y = i; y < i + QUERIES; y++) {
        int64_t end = g->first + (from + y) / share + 1 - a; /* of what this query may look at */
        weigh(s + (y - i) * KEYS, see, end - rule->window, end, top + y, divisor + y, sum + y * E,
              E);
      }
      for (int r = 0, j = 0; j < see; j += here.length[r++])
        mix(sum + i * E, s + j, g->v + here.at[r], MIN(here.length[r], see - j), E);
    }
  }

  for (int i = 0; i < n; i++) {
    float *out = g->out + (from + i) / share * g->out_stride + (from + i) % share * E;
    for (int e = 0; e < E; e++) out[e] = sum[i * E + e] / divisor[i];
  }
}

/* An `attend_kernel`. */
void attend(const float *q, int64_t stride, int64_t H, float *out, const struct slots *c,
            const struct requests *s, const struct rule *rule) {
  int64_t E = c->E, share = H / c->G;
  #pragma omp for collapse(2) schedule(dynamic)
  for (int64_t g = 0; g < c->G; g++)
    for (int64_t r = 0; r < s->R; r++) {
      int64_t head = g * share, token = s->cu[r];
      int n = (s->cu[r + 1] - token) * share;
      struct group group = {
          .q = q + token * stride + head * E,
          .k = (const item *)c->k + g * c->slots * E,
          .v = (const item *)c->v + g * c->slots * E,
          .out = out + (token * H + head) * E,
          .sinks = rule->sinks ? rule->sinks + head : 0,
          .row = s->rows[r],
          .first = s->first[r],
          .stride = stride,
          .out_stride = H * E,
          .share = share,
      };
      for (int i = 0; i < n; i += MOST) queries(&group, c, rule, i, MIN(n - i, MOST));
    }
}

void attend_alone(const float *q, int64_t stride, int64_t H, float *out, const struct slots *c,
                  const struct requests *s, const struct rule *rule, int threads) {
  #pragma omp parallel num_threads(threads)
  attend(q, stride, H, out, c, s, rule);
}

/* A `keep_kernel`. */
void keep(const float *k, const float *v, const struct slots *c, int64_t row, int64_t p) {
  int64_t E = c->E, at = slot_of(c, row, p) * E;
  for (int64_t g = 0; g < c->G; g++, at += c->slots * E)
    for (int64_t e = 0; e < E; e++) {
      ((item *)c->k)[at + e] = narrow(k[g * E + e]);
      ((item *)c->v)[at + e] = narrow(v[g * E + e]);
    }
}
