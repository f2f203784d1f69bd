"""llama.cpp as a source of logits, through the low-level API of its Python binding (package llama-cpp-python).

LLAMA_CPP_LIB_PATH names the folder with libllama.so when the binding was not installed with its own build. Settings
are fixed: flash attention on, f16 KV, batch and micro-batch 512, CPU only.
"""
import ctypes

import llama_cpp.llama_cpp as api
import numpy as np

FLAGS = "flash attention on, f16 KV, n_batch = n_ubatch = 512, CPU"


class LlamaPeer:
    def __init__(self, path, n_ctx, threads):
        self.silent = api.llama_log_callback(lambda level, text, data: None)
        api.llama_log_set(self.silent, ctypes.c_void_p(0))
        api.llama_backend_init()
        self.model = api.llama_model_load_from_file(str(path).encode(), api.llama_model_default_params())
        if not self.model:
            raise SystemExit(f"llama.cpp cannot load {path}")
        self.vocab = api.llama_model_get_vocab(self.model)
        self.n_vocab = api.llama_vocab_n_tokens(self.vocab)
        params = api.llama_context_default_params()
        params.n_ctx, params.n_batch, params.n_ubatch = n_ctx, 512, 512
        params.n_threads = params.n_threads_batch = threads
        params.flash_attn_type = api.LLAMA_FLASH_ATTN_TYPE_ENABLED
        self.context = api.llama_init_from_model(self.model, params)
        if not self.context:
            raise SystemExit(f"llama.cpp cannot make a context of {n_ctx} tokens for {path}")
        self.batch = api.llama_batch_init(512, 0, 1)

    def tokenize(self, text):
        """Ids with the special tokens that the model's metadata ask for; special tokens in the text are plain text."""
        data = text.encode()
        ids = (ctypes.c_int32 * (len(data) + 16))()
        count = api.llama_tokenize(self.vocab, data, len(data), ids, len(ids), True, False)
        assert count >= 0
        return list(ids[:count])

    def bos(self):
        """The token that llama-perplexity puts at the start of a window, or None."""
        return api.llama_vocab_bos(self.vocab) if api.llama_vocab_get_add_bos(self.vocab) else None

    def clear(self):
        api.llama_memory_clear(api.llama_get_memory(self.context), True)
        self.position = 0

    def decode(self, tokens, first_wanted):
        """Appends tokens; returns the float32 logits [rows, n_vocab] of tokens[first_wanted:]."""
        rows = []
        for start in range(0, len(tokens), 512):
            part = tokens[start:start + 512]
            self.batch.n_tokens = len(part)
            for i, token in enumerate(part):
                self.batch.token[i] = token
                self.batch.pos[i] = self.position + i
                self.batch.n_seq_id[i] = 1
                self.batch.seq_id[i][0] = 0
                self.batch.logits[i] = start + i >= first_wanted
            if api.llama_decode(self.context, self.batch) != 0:
                raise SystemExit("llama_decode failed")
            self.position += len(part)
            for i in range(max(0, first_wanted - start), len(part)):
                row = api.llama_get_logits_ith(self.context, i)
                rows.append(np.ctypeslib.as_array(row, shape=(self.n_vocab,)).copy())
        return np.stack(rows) if rows else np.empty((0, self.n_vocab), np.float32)

    def window_logits(self, tokens):
        """Logits of the positions that llama-perplexity scores: n/2 .. n-2 of a window of n tokens."""
        self.clear()
        return self.decode(tokens, len(tokens) // 2)[:-1]


def log_softmax(logits):
    """Rows of log-probabilities in double."""
    x = np.asarray(logits, np.float64)
    x = x - x.max(axis=-1, keepdims=True)
    return x - np.log(np.exp(x).sum(axis=-1, keepdims=True))


def text_windows(peer, text, n_ctx, chunks):
    """The first windows of a text as llama-perplexity feeds them: each starts with BOS in place of its own token."""
    tokens, bos = peer.tokenize(text), peer.bos()
    if len(tokens) < chunks * n_ctx:
        raise SystemExit(f"the text has {len(tokens)} tokens, {chunks} windows of {n_ctx} wanted")
    windows = [tokens[i * n_ctx:(i + 1) * n_ctx] for i in range(chunks)]
    return [([bos] + w[1:] if bos is not None else w) for w in windows]
