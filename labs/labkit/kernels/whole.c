/* y = x w' + b in whole numbers: weights of 8 or 4 bits in panels, activations rounded here.

   A row of x is rounded to whole numbers with a scale of its own: to 8 bits (-DNARROW), or to as
   many as their sums have room for, 13 and more, which is close to exact. Products of whole
   numbers are then summed up in whole numbers. These have no order, so what a request gets does not
   depend, by a single bit, on who else is in the batch.

   8 bits (-DBITS=8): codes -127 ... 127, a scale for each output: y = scale * of_x * sum(w x), and
   the sum runs over all inputs. 4 bits (-DBITS=4): codes 0 ... 15, a scale and a minimum for each
   group of 32 inputs of an output, and x has a scale for each group too: y is the sum over groups of
   scale * of_x * sum(w x) + minimum * of_x * sum(x). Where there is no `minimum`, it is -8 scales.

   A panel holds LANES outputs, four inputs of each side by side: [K/4,LANES,4] bytes, or for 4 bits
   [K/8,LANES,4], inputs 0 ... 3 in the lower halves and 4 ... 7 in the upper ones. The twins in
   torch are in `quant/linear.py`. */
#pragma GCC optimize("no-associative-math") /* sums stay in the order that is written here */
#include "kernels.h"
#include <math.h>
#ifdef __AVX2__
#include <immintrin.h>
#endif

#ifdef __AVX512BW__
enum { LANES = 16, ROWS = 8 }; /* VECTORS * ROWS sums, of 32 registers */
#else
enum { LANES = 8, ROWS = 4 }; /* of 16 */
#endif
enum {
  VECTORS = 2,
  PANEL = VECTORS * LANES,
  GROUP = 32,        /* inputs that share the scale of a 4-bit weight */
  CACHE = 64 << 10,  /* bytes of rounded x that stay in a core's cache while panels pass by */
  AHEAD = 2048       /* bytes from which on memory is asked for weights */
};

typedef float vec __attribute__((vector_size(4 * LANES), aligned(4)));
typedef int32_t ints __attribute__((vector_size(4 * LANES), aligned(4)));
typedef int16_t shorts __attribute__((vector_size(4 * LANES), aligned(4)));
typedef uint16_t halves __attribute__((vector_size(4 * LANES), aligned(4)));

/* Here a compiler has this value ready: it neither merges a product with the sum after it, which
   would round once instead of twice, nor puts off what would then fill its registers. */
#ifdef __AVX2__
#define KEEP(v) __asm__("" : "+v"(v))
#else
#define KEEP(v)
#endif
/* The sums of a group's few steps; those of a whole panel stay in registers anyway. */
#if BITS == 4
#define KEEP_SUM KEEP
#else
#define KEEP_SUM(v)
#endif

int64_t panel(void) { return PANEL; }

/* -- products of whole numbers ------------------------------------------------------- */

/* sum + the two products of 16 bits in each lane. */
static inline ints add_pairs(ints sum, ints w, int32_t x) {
  ints all = x - (ints){0};
#if defined __AVX512VNNI__
  return (ints)_mm512_dpwssd_epi32((__m512i)sum, (__m512i)w, (__m512i)all);
#elif defined __AVX512BW__
  return sum + (ints)_mm512_madd_epi16((__m512i)w, (__m512i)all);
#elif defined __AVX2__
  return sum + (ints)_mm256_madd_epi16((__m256i)w, (__m256i)all);
#else
  return sum + (w << 16 >> 16) * (all << 16 >> 16) + (w >> 16) * (all >> 16);
#endif
}

/* Where the processor multiplies 8 bits by 8 bits into 32 (VNNI), narrow x stay bytes; so they do
   for 4-bit weights, for there is room for all of a group's sums in 16. */
#if defined NARROW && (BITS == 4 || defined __AVX512VNNI__)
#define BYTES
#endif

#ifdef BYTES
enum { WORDS = 1 }; /* of four inputs */
/* sum + the four products of bytes in each lane, w without a sign; `sum` is 32 bits of VNNI's, or
   a pair of 16. */
static inline ints add_bytes(ints sum, ints w, int32_t x) {
  ints all = x - (ints){0};
#if defined __AVX512VNNI__
  return (ints)_mm512_dpbusd_epi32((__m512i)sum, (__m512i)w, (__m512i)all);
#elif defined __AVX512BW__
  return (ints)((shorts)sum + (shorts)_mm512_maddubs_epi16((__m512i)w, (__m512i)all));
#elif defined __AVX2__
  return (ints)((shorts)sum + (shorts)_mm256_maddubs_epi16((__m256i)w, (__m256i)all));
#else
  shorts even = (shorts)w & 255, odd = (shorts)((halves)w >> 8), both = (shorts)all;
  return (ints)((shorts)sum + even * (both << 8 >> 8) + odd * (both >> 8));
#endif
}

/* What `add_bytes` has summed up, as 32 bits. */
static inline ints total(ints sum) {
#if defined __AVX512VNNI__
  return sum;
#else
  return add_pairs((ints){0}, sum, 0x00010001);
#endif
}
#else
enum { WORDS = 2 };
#endif

/* -- rows of x ----------------------------------------------------------------------- */

typedef float eight __attribute__((vector_size(32), aligned(4)));
typedef int32_t eight_ints __attribute__((vector_size(32), aligned(4)));
typedef int64_t four_longs __attribute__((vector_size(32), aligned(4)));
typedef int8_t eight_bytes __attribute__((vector_size(8), aligned(4)));

/* Up to eight inputs, filled up with zeros. */
static inline eight load_some(const float *x, int64_t n) {
  eight v = {0};
  if (n < 8) memcpy(&v, x, 4 * n);
  else v = *(const eight *)x;
  return v;
}

/* Whole numbers as the kernel wants them: bytes in order, or pairs of 16 bits as the weights are
   unpacked, inputs 0 and 2, then 1 and 3. */
static inline void store_codes(int32_t *to, eight_ints v) {
#ifdef BYTES
  *(eight_bytes *)to = __builtin_convertvector(v, eight_bytes);
#else
  four_longs low = (four_longs)(v & 0xffff), high = (four_longs)(v << 16);
  low |= __builtin_shuffle(high, (four_longs){1, 1, 3, 3});
  low = __builtin_shuffle(low, (four_longs){0, 2, 0, 2});
  memcpy(to, &low, 16);
#endif
}

enum { TINY = 0x1e3ce508 }; /* the bits of 1e-20 */

/* So many inputs of a row as whole numbers in -levels ... levels, filled up with zeros to a
   multiple of 8; what one is worth; and their sum. An infinity or NaN makes the worth one. */
static float round_inputs(const float *x, int64_t n, int levels, int32_t *codes, int32_t *sum) {
  eight_ints top = {0}, all = {0};
  for (int64_t k = 0; k < n; k += 8) { /* sizes, as bits: NaN is the largest */
    eight_ints v = (eight_ints)load_some(x + k, n - k) & INT32_MAX, larger = v > top;
    top = (v & larger) | (top & ~larger);
  }
  for (int j = 1; j < 8; j++) top[0] = top[j] > top[0] ? top[j] : top[0];
  eight worths = (eight)top * (1.0f / levels);
  if (((eight_ints)worths)[0] < TINY) worths[0] = 1e-20f; /* a row of zeros; compared as bits too */
  float worth = worths[0], per = 1 / worth;
  for (int64_t k = 0; k < n; k += 8, codes += 2 * WORDS) {
    eight v = load_some(x + k, n - k) * per;
    KEEP(v);
    v += 12582912.0f; /* 1.5 * 2^23: what is left of v in the lowest bits is a whole number */
    eight_ints i = (eight_ints)v - 0x4b400000;
    all += i;
    store_codes(codes, i);
  }
  *sum = 0;
  for (int j = 0; j < 8; j++) *sum += all[j];
  return worth;
}

enum { EACH = BITS == 4 ? GROUP : INT32_MAX }; /* inputs that share a scale */

/* Rows of x, rounded: codes [rows,stride], and of each row, or with 4-bit weights of each of its
   groups, what one is worth and the sum of its codes: as it is, or what that is worth. */
struct rounded {
  int32_t *codes;
  int64_t stride;
  float *worth;
  int32_t *sum;
  float *share;
};

#ifdef NARROW
static int levels_for(int64_t K) { return 127; }
#elif BITS == 4
static int levels_for(int64_t K) { return 32767; }
#else
static int levels_for(int64_t K) { return MIN(INT32_MAX / (127 * K), 32767); }
#endif

/* -- a few rows by one panel --------------------------------------------------------- */

/* What memory is asked for meanwhile: `step` bytes further with every step. */
struct ahead {
  const char *from;
  int64_t step;
};

/* A panel: its weights, and of its outputs, or with 4-bit weights of each group's, the scales and
   minima; how many steps or groups it has. */
struct panel {
  const int32_t *w;
  int64_t steps;
#if BITS == 8
  vec scale[VECTORS];
#else
  const _Float16 *scale, *minimum;
#endif
};

#define EACH_VECTOR for (int j = 0; j < VECTORS; j++)
#define EACH_ROW for (int i = 0; i < rows; i++)

/* The panel's weights at w, made into `part` of them, times that word of codes of every row. */
#define WEIGHTS (*(const shorts *)(w + j * LANES))
#define ADD(how, word, part) \
  EACH_VECTOR { \
    v[j] = (ints)(part); \
  } \
  EACH_ROW EACH_VECTOR { \
    sum[i][j] = how(sum[i][j], v[j], codes[i * x->stride + word]); \
    KEEP_SUM(sum[i][j]); \
  }

/* `rows` rows from row m on by a panel. `rows` is a constant where this is inlined, so the sums are
   registers. */
#if BITS == 8

static inline __attribute__((always_inline)) void multiply(int rows, const struct rounded *x,
                                                           int64_t m, const struct panel *p,
                                                           vec y[][VECTORS], struct ahead a) {
  const int32_t *codes = x->codes + m * x->stride, *w = p->w;
  ints sum[ROWS][VECTORS], v[VECTORS];
  EACH_ROW EACH_VECTOR sum[i][j] = (ints){0};
  for (int64_t k = 0; k < p->steps; k++, w += PANEL, codes += WORDS, a.from += a.step) {
    ask(a.from, 4 * PANEL);
#ifdef BYTES
    ADD(add_bytes, 0, WEIGHTS ^ (int16_t)0x8080) /* 128 more: bytes without a sign */
#else
    ADD(add_pairs, 0, WEIGHTS << 8 >> 8)
    ADD(add_pairs, 1, WEIGHTS >> 8)
#endif
  }
  EACH_ROW EACH_VECTOR {
#ifdef BYTES
    sum[i][j] -= 128 * x->sum[m + i];
#endif
    y[i][j] = __builtin_convertvector(sum[i][j], vec) * p->scale[j] * x->worth[m + i];
  }
}

#else

static inline vec load_halves(const _Float16 *p) {
#if defined __AVX512BW__
  return _mm512_cvtph_ps(_mm256_loadu_si256((const void *)p));
#elif defined __AVX2__
  return _mm256_cvtph_ps(_mm_loadu_si128((const void *)p));
#else
  vec x;
  for (int i = 0; i < LANES; i++) x[i] = p[i];
  return x;
#endif
}

static inline __attribute__((always_inline)) void multiply(int rows, const struct rounded *x,
                                                           int64_t m, const struct panel *p,
                                                           vec y[][VECTORS], struct ahead a) {
  const int32_t *codes = x->codes + m * x->stride, *w = p->w;
  const float *worth = x->worth + m * p->steps, *share = x->share + m * p->steps;
  vec all[ROWS][VECTORS];
  EACH_ROW EACH_VECTOR all[i][j] = (vec){0};
  for (int64_t g = 0; g < p->steps; g++) {
    ints sum[ROWS][VECTORS], v[VECTORS];
    EACH_ROW EACH_VECTOR sum[i][j] = (ints){0};
    _Pragma("GCC unroll 1")
    for (int k = 0; k < GROUP / 8; k++, w += PANEL, codes += 2 * WORDS, a.from += a.step) {
      ask(a.from, 4 * PANEL);
#ifdef BYTES
      ADD(add_bytes, 0, WEIGHTS & 0x0f0f)
      ADD(add_bytes, 1, WEIGHTS >> 4 & 0x0f0f)
#else
      ADD(add_pairs, 0, WEIGHTS & 15)
      ADD(add_pairs, 1, WEIGHTS >> 8 & 15)
      ADD(add_pairs, 2, WEIGHTS >> 4 & 15)
      ADD(add_pairs, 3, WEIGHTS >> 12 & 15)
#endif
    }
    const _Float16 *scale = p->scale + g * PANEL, *minimum = p->minimum + g * PANEL;
    ask((const char *)scale + AHEAD / 8, 2 * PANEL);
    if (p->minimum) ask((const char *)minimum + AHEAD / 8, 2 * PANEL);
    vec s[VECTORS], low[VECTORS];
    EACH_VECTOR {
      s[j] = load_halves(scale + j * LANES);
      low[j] = p->minimum ? load_halves(minimum + j * LANES) : s[j] * -8.0f;
    }
    EACH_ROW EACH_VECTOR {
#ifdef BYTES
      sum[i][j] = total(sum[i][j]);
#endif
      all[i][j] += __builtin_convertvector(sum[i][j], vec) * worth[i * p->steps + g] * s[j];
      all[i][j] += share[i * p->steps + g] * low[j];
    }
  }
  EACH_ROW EACH_VECTOR y[i][j] = all[i][j];
}

#endif

/* -- all rows by all panels ---------------------------------------------------------- */

static void round_rows(const float *x, int64_t stride, int64_t rows, int64_t K,
                       struct rounded *to) {
  int64_t each = MIN(K, EACH), runs = (K + each - 1) / each;
  int levels = levels_for(K);
  for (int64_t i = 0; i < rows * runs; i++) {
    int64_t row = i / runs, k = i % runs * each;
    int32_t *codes = to->codes + row * to->stride + k / 4 * WORDS;
    to->worth[i] = round_inputs(x + row * stride + k, each, levels, codes, to->sum + i);
    to->share[i] = to->worth[i] * to->sum[i];
  }
}

/* Outputs of rows m ... m + rows of x, by a panel. Not inlined: the sums need all registers. */
static __attribute__((noinline)) void some(int rows, const struct rounded *x, int64_t m,
                                           const struct panel *p, vec y[][VECTORS],
                                           struct ahead a) {
  switch (rows) {
#define CASE(n) \
  case n: \
    multiply(n, x, m, p, y, a); \
    break;
    CASE(1) CASE(2) CASE(3) CASE(4)
#ifdef __AVX512BW__
    CASE(5) CASE(6) CASE(7) CASE(8)
#endif
  }
}

/* A `linear_kernel`. 8 bits: weight [panels,K/4,PANEL,4], scale fp32 [N]. 4 bits: weight
   [panels,K/8,PANEL,4], scale and minimum fp16 [panels,K/32,PANEL]. The last panel, and for 8 bits
   the last four inputs, are filled up. Every thread rounds the rows for itself. */
void linear(const struct matrix *w, const float *x, int64_t stride, int64_t M, const float *add,
            float *y) {
  int64_t K = w->K, N = w->N, runs = BITS == 4 ? K / GROUP : 1;
  int64_t size = PANEL * (BITS == 4 ? K / 8 : (K + 3) / 4); /* of a panel, in words */
  struct rounded r = {.stride = (K + 7) / 8 * 2 * WORDS};
  int64_t block = MIN(M, CACHE / (4 * r.stride) / ROWS * ROWS);
  if (block < ROWS) block = MIN(M, ROWS);
  int32_t codes[block * r.stride], sum[block * runs];
  float worth[block * runs], share[block * runs];
  r.codes = codes;
  r.sum = sum;
  r.worth = worth;
  r.share = share;
  for (int64_t from = 0; from < M; from += block) {
    int64_t rows = MIN(M - from, block), tiles = (rows + ROWS - 1) / ROWS;
    round_rows(x + from * stride, stride, rows, K, &r);
    #pragma omp for schedule(static) nowait
    for (int64_t n = 0; n < N; n += PANEL) {
      int64_t at = n / PANEL, bytes = sizeof(float) * MIN(N - n, PANEL);
      vec bias[VECTORS] = {{0}};
      if (w->bias) memcpy(bias, w->bias + n, bytes);
      struct panel p = {(const int32_t *)w->weight + at * size};
#if BITS == 8
      p.steps = (K + 3) / 4;
      memcpy(p.scale, (const float *)w->scale + n, bytes);
#else
      p.steps = runs;
      p.scale = (const _Float16 *)w->scale + at * runs * PANEL;
      if (w->minimum) p.minimum = (const _Float16 *)w->minimum + at * runs * PANEL;
#endif
      for (int64_t t = 0; t < tiles; t++) { /* of equal height */
        int64_t m = rows * t / tiles, next = rows * (t + 1) / tiles;
        /* One tile asks for what it needs next; several, each for its part of the next panel. */
        struct ahead a = {(const char *)p.w + AHEAD, 4 * PANEL};
        if (tiles > 1) {
          a.step /= tiles;
          a.from = (const char *)(p.w + size) + size * 4 * t / tiles;
        }
        vec out[ROWS][VECTORS];
        some(next - m, &r, m, &p, out, a);
        for (int64_t i = 0; i < next - m; i++) {
          float *to = y + (from + m + i) * N + n;
          vec before[VECTORS] = {{0}};
          if (add) memcpy(before, add + (to - y), bytes);
          EACH_VECTOR out[i][j] += bias[j] + before[j];
          memcpy(to, out[i], bytes);
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
