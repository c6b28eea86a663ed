// llama.cpp with one model, behind a line protocol: commands come in on standard input, and what is
// answered goes out as a line of JSON. Built against libllama 11434.
//
//   worker MODEL.gguf THREADS     answers {"ready": "what the processor is used for"}
//   open SEQUENCES LENGTH CACHE SHARED  room for so many sequences, each of so many tokens;
//                                       CACHE: f32, f16 or bf16; SHARED: 1 = one pool of cells for
//                                       all of them, 0 = a buffer for each
//   request NEW ID ID ...               a prompt, and how many tokens it wants; not answered
//   decode                              all requests at once, greedily and in lockstep: the seconds
//                                       to the first tokens, and of each further step
//   serve SLOTS PREFIX BUDGET           continuous batching: at most SLOTS requests are served at
//                                       once, a step takes at most BUDGET tokens of prompts, and
//                                       the first PREFIX tokens, which all share, are computed once
//
// After `decode` and `serve` the requests are forgotten. What fails answers {"error": "why"}.
//
//   worker quantise IN.gguf OUT.gguf FORMAT    every matrix of a file in Q8_0, Q4_0 or Q4_1

#include "llama.h"

#ifdef __linux__
#include <csignal>
#include <sys/prctl.h>
#endif

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <iostream>
#include <map>
#include <sstream>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

using Tokens = std::vector<int>;

struct Request {
  int wanted;
  Tokens prompt;
  Tokens reply;

  bool decodes() const { return !reply.empty(); }
  bool done() const { return int(reply.size()) == wanted; }
};

// What a step feeds: tokens with their places in their sequences, and whose logits are wanted.
struct Batch {
  llama_batch of;
  int room;

  explicit Batch(int room) : of(llama_batch_init(room, 0, 1)), room(room) {}
  ~Batch() { llama_batch_free(of); }
  Batch(const Batch &) = delete;

  int add(int token, int position, int sequence, bool logits) {
    int i = of.n_tokens;
    if (i == room) throw std::runtime_error("a batch is longer than planned");
    of.token[i] = token;
    of.pos[i] = position;
    of.n_seq_id[i] = 1;
    of.seq_id[i][0] = sequence;
    of.logits[i] = logits;
    return of.n_tokens++;
  }
};

static int threads;
static int vocabulary;
static llama_model *model;
static llama_context *context;
static std::vector<Request> requests;

static double now() {
  auto since = std::chrono::steady_clock::now().time_since_epoch();
  return std::chrono::duration<double>(since).count();
}

static void run(Batch &batch) {
  int room = int(llama_n_batch(context));
  if (batch.of.n_tokens > room)  // it would abort
    throw std::runtime_error(std::to_string(batch.of.n_tokens) + " tokens at once, and room for " +
                             std::to_string(room));
  if (int code = llama_decode(context, batch.of))
    throw std::runtime_error("llama_decode gave " + std::to_string(code));
}

// The likeliest token behind the batch's row.
static int greedy(int row) {
  const float *logits = llama_get_logits_ith(context, row);
  return int(std::max_element(logits, logits + vocabulary) - logits);
}

static void open(int sequences, int length, const std::string &cache, bool shared) {
  static const std::map<std::string, ggml_type> types = {
      {"f32", GGML_TYPE_F32}, {"f16", GGML_TYPE_F16}, {"bf16", GGML_TYPE_BF16}};
  // what isn't said here is as llama.cpp has it: flash attention where it can, 512 tokens at once
  llama_context_params p = llama_context_default_params();
  p.type_k = p.type_v = types.at(cache);
  p.n_threads = p.n_threads_batch = threads;
  p.n_seq_max = sequences;
  p.n_ctx = sequences * ((length + 255) / 256 * 256);  // it works in blocks of 256 cells
  p.n_batch = p.n_ctx;
  p.kv_unified = shared;
  if (context) llama_free(context);
  context = llama_init_from_model(model, p);
  if (!context) throw std::runtime_error("there is no such context");
}

static void answer_replies() {
  printf("\"tokens\":[");
  for (size_t r = 0; r < requests.size(); r++) {
    printf(r ? ",[" : "[");
    const Tokens &reply = requests[r].reply;
    for (size_t i = 0; i < reply.size(); i++) printf(i ? ",%d" : "%d", reply[i]);
    printf("]");
  }
  printf("]}\n");
}

static void decode() {
  llama_memory_clear(llama_get_memory(context), false);
  size_t total = 0;
  for (const Request &r : requests) total += r.prompt.size();
  Batch batch(int(std::max(total, requests.size())));
  std::vector<int> last;  // the rows that the first tokens come from
  std::vector<double> each;

  double start = now();
  for (size_t r = 0; r < requests.size(); r++) {
    const Tokens &prompt = requests[r].prompt;
    for (size_t i = 0; i + 1 < prompt.size(); i++) batch.add(prompt[i], int(i), int(r), false);
    last.push_back(batch.add(prompt.back(), int(prompt.size()) - 1, int(r), true));
  }
  run(batch);
  for (size_t r = 0; r < requests.size(); r++) requests[r].reply = {greedy(last[r])};
  double before = now(), first = before - start;

  while (!requests[0].done()) {
    batch.of.n_tokens = 0;
    for (size_t r = 0; r < requests.size(); r++) {
      const Request &one = requests[r];
      batch.add(one.reply.back(), int(one.prompt.size() + one.reply.size()) - 1, int(r), true);
    }
    run(batch);
    for (size_t r = 0; r < requests.size(); r++) requests[r].reply.push_back(greedy(int(r)));
    double after = now();
    each.push_back(after - before);
    before = after;
  }
  printf("{\"first\":%.9f,\"each\":[", first);
  for (size_t i = 0; i < each.size(); i++) printf(i ? ",%.9f" : "%.9f", each[i]);
  printf("],");
  answer_replies();
}

static void serve(int slots, int prefix, int budget) {
  struct Slot {
    Request *request = nullptr;
    int fed = 0;  // tokens of its prompt that are in the cache
  };
  auto memory = llama_get_memory(context);
  llama_memory_clear(memory, false);
  Batch batch(std::max(budget, prefix) + slots);
  std::vector<Slot> all(slots);
  size_t next = 0, finished = 0;

  double start = now();
  if (prefix) {  // one sequence more keeps it, to be copied from
    for (int i = 0; i < prefix; i++) batch.add(requests[0].prompt[i], i, slots, i + 1 == prefix);
    run(batch);
  }
  while (finished < requests.size()) {
    batch.of.n_tokens = 0;
    std::vector<std::pair<int, int>> wanted;  // a slot, and the row that its next token comes from

    // those who decode go first, so that nobody waits for somebody else's prompt
    for (int s = 0; s < slots; s++) {
      Request *r = all[s].request;
      if (!r || !r->decodes()) continue;
      int position = int(r->prompt.size() + r->reply.size()) - 1;
      wanted.push_back({s, batch.add(r->reply.back(), position, s, true)});
    }
    for (int s = 0; s < slots; s++) {
      if (!all[s].request && next < requests.size() && batch.of.n_tokens < budget) {
        all[s] = {&requests[next++], prefix};
        if (prefix) llama_memory_seq_cp(memory, slots, s, -1, -1);
      }
      Request *r = all[s].request;
      if (!r || r->decodes()) continue;
      int last = int(r->prompt.size()) - 1;
      while (all[s].fed <= last && batch.of.n_tokens < budget) {
        int i = all[s].fed++;
        int row = batch.add(r->prompt[i], i, s, i == last);
        if (i == last) wanted.push_back({s, row});
      }
    }
    run(batch);
    for (auto [s, row] : wanted) {
      Request *r = all[s].request;
      r->reply.push_back(greedy(row));
      if (!r->done()) continue;
      finished++;
      all[s] = {};
      llama_memory_seq_rm(memory, s, -1, -1);
    }
  }
  printf("{\"seconds\":%.9f,", now() - start);
  answer_replies();
}

static void obey(const std::string &line) {
  std::istringstream words(line);
  std::string what;
  words >> what;
  if (what == "request") {
    Request r;
    words >> r.wanted;
    for (int id; words >> id;) r.prompt.push_back(id);
    requests.push_back(r);
    return;
  }
  if (what == "open") {
    int sequences, length, shared;
    std::string cache;
    words >> sequences >> length >> cache >> shared;
    open(sequences, length, cache, shared);
    printf("{}\n");
  } else if (what == "decode") {
    decode();
    requests.clear();
  } else if (what == "serve") {
    int slots, prefix, budget;
    words >> slots >> prefix >> budget;
    serve(slots, prefix, budget);
    requests.clear();
  } else {
    throw std::runtime_error("no command is called " + what);
  }
}

static void log(ggml_log_level level, const char *text, void *) {
  if (level == GGML_LOG_LEVEL_ERROR) fputs(text, stderr);
}

static int quantise(const char *from, const char *to, const std::string &format) {
  static const std::map<std::string, llama_ftype> formats = {{"Q8_0", LLAMA_FTYPE_MOSTLY_Q8_0},
                                                             {"Q4_0", LLAMA_FTYPE_MOSTLY_Q4_0},
                                                             {"Q4_1", LLAMA_FTYPE_MOSTLY_Q4_1}};
  llama_model_quantize_params p = llama_model_quantize_default_params();
  p.ftype = formats.at(format);
  p.pure = true;  // the embedding too: left to itself, it keeps more bits of that one
  return llama_model_quantize(from, to, &p) ? 1 : 0;
}

int main(int argc, char **argv) {
#ifdef __linux__
  prctl(PR_SET_PDEATHSIG, SIGKILL);  // whoever asked is gone: nobody waits for the answer
#endif
  llama_log_set(log, nullptr);
  llama_backend_init();
  if (argc == 5) return quantise(argv[2], argv[3], argv[4]);
  if (argc != 3) return 2;
  threads = atoi(argv[2]);
  model = llama_model_load_from_file(argv[1], llama_model_default_params());
  if (!model) return 1;
  vocabulary = llama_vocab_n_tokens(llama_model_get_vocab(model));
  printf("{\"ready\":\"%s\"}\n", llama_print_system_info());
  fflush(stdout);
  for (std::string line; std::getline(std::cin, line);) {
    try {
      obey(line);
    } catch (const std::exception &e) {
      requests.clear();
      printf("{\"error\":\"%s\"}\n", e.what());
    }
    fflush(stdout);
  }
}
