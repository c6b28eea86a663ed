/* A step in one call: an array of operations, run one after another by one team of threads.

   Asked for one by one from Python, a step of SmolLM2 is some 330 calls, and each wakes a team for
   microseconds of work. Here the team stays: each operation shares its loop out and ends in a
   barrier. The operations that read something large are the kernels of linear.c and attention.c;
   what lies between them is here. `graphs/plan.py` lays the array out. */
#include "kernels.h"
#include <math.h>

/* What a step works on. N tokens: the position of each, and the cache row of its request. Their
   last [outs] are those whose logits are asked for. */
struct step {
  int64_t N, outs;
  const int64_t *pos, *rows, *last;
  struct requests requests;
  float *logits; /* [outs,V] */
};

/* One layer's attention: q, k and v of a token lie side by side, (H+2G) heads of E. */
struct attention {
  struct slots slots;
  struct rule rule;
  int64_t H, turned;           /* how much of each head is rotated */
  const float *angles;         /* [positions,turned]: cosines of turned/2 angles, then their sines */
  const float *q_norm, *k_norm; /* [E] or null */
  float eps;
  attend_kernel *attend;
  keep_kernel *keep;
};

struct op {
  void (*run)(const struct op *, const struct step *);
  const float *in, *add; /* [N,width]; `add` may be null */
  float *out;            /* null: the step's logits */
  int64_t width;         /* of a row of `in` */
  const void *with;      /* what it needs: a norm's weight, a matrix, a layer's attention */
  linear_kernel *linear;
  float eps;
};

/* y [N,width] = x / sqrt(mean(x^2) + eps) * weight */
static inline void norm_row(const float *x, const float *weight, float *y, int64_t width,
                            float eps) {
  float square = 0;
  for (int64_t d = 0; d < width; d++) square += x[d] * x[d];
  float scale = 1 / sqrtf(square / width + eps);
  for (int64_t d = 0; d < width; d++) y[d] = x[d] * scale * weight[d];
}

void norm(const struct op *op, const struct step *s) {
  #pragma omp for schedule(static)
  for (int64_t n = 0; n < s->N; n++)
    norm_row(op->in + n * op->width, op->with, op->out + n * op->width, op->width, op->eps);
}

/* The same of the tokens whose logits are asked for: [outs,width]. */
void norm_last(const struct op *op, const struct step *s) {
  #pragma omp for schedule(static)
  for (int64_t r = 0; r < s->outs; r++)
    norm_row(op->in + s->last[r] * op->width, op->with, op->out + r * op->width, op->width,
             op->eps);
}

/* [N,width] times a matrix, and perhaps the residual. */
void multiply(const struct op *op, const struct step *s) {
  op->linear(op->with, op->in, op->width, s->N, op->add, op->out);
}

void head(const struct op *op, const struct step *s) {
  op->linear(op->with, op->in, op->width, s->outs, 0, s->logits);
}

/* Pair (i, i + turned/2) of a head turns by the angle of the token's position. */
static inline void turn(float *x, const float *angles, int64_t turned) {
  int64_t half = turned / 2;
  for (int64_t i = 0; i < half; i++) {
    float a = x[i], b = x[i + half], cosine = angles[i], sine = angles[i + half];
    x[i] = a * cosine - b * sine;
    x[i + half] = b * cosine + a * sine;
  }
}

/* Queries and keys are normalised and turned where they are; keys and values go to their slots. */
void rotate_and_keep(const struct op *op, const struct step *s) {
  const struct attention *a = op->with;
  int64_t E = a->slots.E, H = a->H, G = a->slots.G;
  #pragma omp for schedule(static)
  for (int64_t n = 0; n < s->N; n++) {
    float *heads = op->out + n * op->width;
    for (int64_t h = 0; h < H + G; h++) {
      const float *weight = h < H ? a->q_norm : a->k_norm;
      if (weight) norm_row(heads + h * E, weight, heads + h * E, E, a->eps);
      if (a->turned) turn(heads + h * E, a->angles + s->pos[n] * a->turned, a->turned);
    }
    a->keep(heads + H * E, heads + (H + G) * E, &a->slots, s->rows[n], s->pos[n]);
  }
}

void attention(const struct op *op, const struct step *s) {
  const struct attention *a = op->with;
  a->attend(op->in, op->width, a->H, op->out, &a->slots, &s->requests, &a->rule);
}

/* Chunks of a row that threads share out, as one token is the usual case. */
enum { CHUNK = 256 };

/* out [N,width/2] = silu(gate) * up of the two halves of a row */
void silu_gate(const struct op *op, const struct step *s) {
  int64_t F = op->width / 2, chunks = (F + CHUNK - 1) / CHUNK;
  #pragma omp for collapse(2) schedule(static)
  for (int64_t n = 0; n < s->N; n++)
    for (int64_t c = 0; c < chunks; c++) {
      const float *gate = op->in + n * op->width, *up = gate + F;
      for (int64_t i = c * CHUNK; i < MIN(F, (c + 1) * CHUNK); i++)
        op->out[n * F + i] = gate[i] / (1 + expf(-gate[i])) * up[i];
    }
}

/* The same with GELU in its tanh form. */
void gelu_gate(const struct op *op, const struct step *s) {
  int64_t F = op->width / 2, chunks = (F + CHUNK - 1) / CHUNK;
  #pragma omp for collapse(2) schedule(static)
  for (int64_t n = 0; n < s->N; n++)
    for (int64_t c = 0; c < chunks; c++) {
      const float *gate = op->in + n * op->width, *up = gate + F;
      for (int64_t i = c * CHUNK; i < MIN(F, (c + 1) * CHUNK); i++) {
        float x = gate[i], inner = 0.7978845608f * (x + 0.044715f * x * x * x);
        op->out[n * F + i] = x / (1 + expf(-2 * inner)) * up[i]; /* x (1 + tanh(inner)) / 2 */
      }
    }
}

/* out [N,width] += in, where a norm stands between a layer and the residual stream. */
void add(const struct op *op, const struct step *s) {
  #pragma omp for schedule(static)
  for (int64_t n = 0; n < s->N; n++)
    for (int64_t d = 0; d < op->width; d++) op->out[n * op->width + d] += op->in[n * op->width + d];
}

void run(const struct op *ops, int64_t count, const struct step *s, int threads) {
  #pragma omp parallel num_threads(threads)
  for (int64_t i = 0; i < count; i++) ops[i].run(ops + i, s);
}

/* Bytes of the structures that Python lays out, to be compared. */
const int64_t *sizes(void) {
  static const int64_t bytes[] = {sizeof(struct op), sizeof(struct attention), sizeof(struct step)};
  return bytes;
}
