"""What readers would type, and the heading (or the glossary's term) that they look for.

Written before the search was tuned; each is to be found first or second.
"""

CHAPTER, SOFTMAX, GLOSSARY = (
    "book/chapters/02_kv_cache",
    "book/chapters/02b_online_softmax",
    "book/glossary",
)

QUERIES = [
    # terms
    ("kv cache", CHAPTER, "The KV cache"),
    ("what is a kv cache?", GLOSSARY, "KV cache"),
    ("KV-cache", CHAPTER, "The KV cache"),
    ("gqa", GLOSSARY, "GQA"),
    ("grouped query attention", GLOSSARY, "GQA"),
    ("ttft", GLOSSARY, "TTFT"),
    ("time to first token", GLOSSARY, "TTFT"),
    ("rotary position embedding", GLOSSARY, "RoPE"),
    ("logit", GLOSSARY, "logits"),
    ("roofline", GLOSSARY, "roofline"),
    ("arithmetic intensity", GLOSSARY, "intensity"),
    ("bfloat16", GLOSSARY, "bf16"),
    ("paging", GLOSSARY, "paged cache"),
    # headings
    ("one request one cache", CHAPTER, "One request, one cache"),
    ("where the kv cache loses", CHAPTER, "Where it loses"),
    ("where gqa loses", "book/chapters/03_gqa", "Where it loses"),
    ("prefill and decode", CHAPTER, "Prefill and decode are two machines"),
    ("online softmax", SOFTMAX, "Online softmax"),
    ("quiz kv cache", CHAPTER, "Quiz"),
    ("in the wild kv cache vllm flags", CHAPTER, "In the wild"),
    ("receipts", "book/how-to-use", "Receipts"),
    ("licence", "book/colophon", "Licences"),
    # twin spellings and word forms
    ("quantisation labs", "book/labs", "11 Quantisation"),
    ("quantization labs", "book/labs", "11 Quantisation"),
    ("batched", GLOSSARY, "batch"),
    ("batching", GLOSSARY, "batch"),
    ("speculative decoding labs", "book/labs", "12 Speculative decoding"),
    ("license", "book/colophon", "Licences"),
    # questions
    ("how much memory does the cache need", CHAPTER, "What it costs"),
    ("why is there no cache in training?", CHAPTER, "Why training has no cache"),
    ("how do i run this in colab", "book/how-to-use", "Run it"),
    ("how are the numbers measured", "book/colophon", "How numbers are made"),
    ("keyboard shortcuts", "book/how-to-use", "Keyboard, screen reader, paper"),
    ("causal mask bug", CHAPTER, "The bug: causal, but from which corner?"),
    ("moe labs", "book/labs", "06 Mixtures of experts"),
]
